"""List pinned packages; for run_all.sh, which calls it with the interpreter that it thinks of using."""

import argparse

from stkvlm_lib.installation import is_linked, pins, unmet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--test", action="store_true", help="also those of the tests")
    lacking = "those that this interpreter does not have; status 1 where there are any"
    parser.add_argument("--unmet", action="store_true", help=lacking)
    parser.add_argument("--library", action="store_true", help="with --unmet: this checkout's library, too")


def call(options: argparse.Namespace) -> int:
    wanted = pins("test") if options.test else pins()
    listed = unmet(wanted) if options.unmet else wanted
    lines = [f"{name}=={version}" for name, version in listed.items()]
    if options.unmet and options.library and not is_linked():
        lines.append("stkvlm, installed from this checkout")
    print("\n".join(lines))
    return int(options.unmet and bool(lines))
