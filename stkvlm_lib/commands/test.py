"""Run the linter and the tests.

What follows goes to pytest, e.g. `-m render`, `-k wording` or `tests/test_files.py`; `--slow` adds those that take
minutes each. All tests run in a worker a core, chosen ones in one process.
"""

import argparse
import signal
import subprocess
import sys

from stkvlm_lib.commands.endings import FAILED, Stopped
from stkvlm_lib.config import ROOT

PASSES_ON = True
"""Its arguments are another program's, whatever they look like."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("arguments", nargs="*", metavar="PYTEST ARGUMENTS", help="go to pytest as they are")


def call(options: argparse.Namespace) -> int:
    linted = _status("ruff", "check", ".")
    tested = _status("pytest", *options.arguments)
    return tested or (FAILED if linted else 0)


def _status(module: str, *arguments: str) -> int:
    """The exit status of a module run in the repository. Interrupted, it is waited for, as tests tidy up in the end."""
    with subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=ROOT) as process:
        try:
            return process.wait()
        except KeyboardInterrupt as stop:
            if isinstance(stop, Stopped):  # the terminal sends Ctrl-C to both, but a signal has reached this one alone
                process.send_signal(signal.SIGINT)
            process.wait()
            raise
