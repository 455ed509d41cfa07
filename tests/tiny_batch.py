"""`python tiny_batch.py OUTPUTS WORDS...`: the command line with runs of tiny_run.py in place of real ones."""

import sys
from pathlib import Path

import tiny_run

from stkvlm_lib import __main__ as cli
from stkvlm_lib import runs
from stkvlm_lib.batch import run_batch

if __name__ == "__main__":
    runs.OUTPUTS = cli.OUTPUTS = Path(sys.argv[1])
    run_batch.run_batch.__kwdefaults__["command"] = tiny_run.command
    sys.exit(cli.main(sys.argv[2:]))
