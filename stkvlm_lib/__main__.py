"""`python -m stkvlm_lib`, as run_all.sh calls it."""

import sys

from stkvlm_lib.commands.command_line import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
