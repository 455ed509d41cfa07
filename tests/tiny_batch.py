"""`python tiny_batch.py OUTPUTS [--no-page] WORDS...`: the command line, with runs of tiny_run.py for real ones."""

import sys
from pathlib import Path

import tiny_run

from stkvlm_lib import __main__ as cli
from stkvlm_lib import runs
from stkvlm_lib.batch import machines, run_batch
from stkvlm_lib.commands import batch as command

if __name__ == "__main__":
    runs.OUTPUTS = Path(sys.argv[1])
    machines.gpus_here = lambda: ()  # what tells loads torch
    if sys.argv[2] == "--no-page":  # which loads more
        command.tell = lambda *given: None
        del sys.argv[2]
    run_batch.run_batch.__kwdefaults__["command"] = tiny_run.command
    sys.exit(cli.main(sys.argv[2:]))
