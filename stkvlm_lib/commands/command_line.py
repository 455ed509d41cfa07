"""The one command line behind `./run_all.sh`, `stkvlm` and `python -m stkvlm_lib`: what it takes, and its help."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from stkvlm_lib.commands import run
from stkvlm_lib.commands.endings import EXIT_STATUSES, USAGE_ERROR, ended
from stkvlm_lib.config import PROFILES, ConfigError, did_you_mean
from stkvlm_lib.installation import lead_to_this_library
from stkvlm_lib.parameters import check_checkout
from stkvlm_lib.runs import quiet_libraries

LISTED = (
    *("run", "batch", "test", "ask", "explore", "report", "compare"),
    *("export", "push", "render", "assets", "fetch", "card"),
)
"""The commands in the order in which the help lists them."""
COMMANDS = {name: import_module(f"stkvlm_lib.commands.{name}") for name in (*LISTED, "pins")}
GO_ON = 10
"""The status of `check` for arguments that are in order; 0 is that of --help, after which nothing is left to do."""
SCRIPT = "./run_all.sh"
DESCRIPTION = (
    "Fine-tune a small vision-language model on questions about SuperTuxKart frames, and show how well it answers."
)
INSTALLING = """\
The first call of ./run_all.sh installs what is needed (into the conda environment `stkvlm` where conda or mamba is
present and no other environment is active, otherwise into .venv); an active environment that has everything is used as
it is. In an environment of your own, `pip install -e .` brings the same commands as `stkvlm`."""


def main(arguments: Sequence[str] | None = None, prog: str = SCRIPT) -> int:
    """Do what the words say -> exit status: 0 done, 1 a step or the system failed, 2 a wrong argument or file (one line
    says which), 130 interrupted, 128 + N ended by signal N."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return ended(lambda: _follow(words, prog))


def script() -> int:
    """The program `stkvlm` of an environment, which always runs the library that is installed there."""

    def call() -> int | None:
        check_checkout(Path.cwd())
        return _follow(sys.argv[1:], "stkvlm")

    return ended(call)


def _follow(words: list[str], prog: str) -> int | None:
    checked_only = words[:1] == ["check"]
    options = parse(words[checked_only:], prog)
    check = getattr(options.command, "check", lambda options: None)
    try:
        check(options)
    except ModuleNotFoundError:  # before the first installation; with the packages it is checked once more
        if not checked_only:
            raise
    if checked_only:
        return GO_ON
    lead_to_this_library()
    quiet_libraries()
    return options.command.call(options)


def parse(words: list[str], prog: str = SCRIPT) -> argparse.Namespace:
    """The options of the command that is meant, with `command`, its module, and `again`, the words to type again.

    Exits with one line for what it does not take.
    """
    options = build_parser(prog).parse_args(_complete(words))
    options.again = shlex.join([prog, *words])
    return options


def _complete(words: list[str]) -> list[str]:
    """With the command's name in front where it was left out. Raises ConfigError where the first is none at all."""
    first = words[0] if words else ""
    if first in ("-h", "--help", "help"):
        return ["--help"]
    if first not in COMMANDS:
        if first and not first.startswith("-") and first not in PROFILES:
            meant = did_you_mean(first, (*LISTED, *PROFILES))
            listed = f"a command ({', '.join(LISTED)}) nor a profile ({', '.join(PROFILES)})"
            raise ConfigError(f"{first!r:.80}{meant} is neither {listed}")
        return ["run", *words]
    if getattr(COMMANDS[first], "PASSES_ON", False) and words[1:2] not in (["-h"], ["--help"]):
        return [first, "--", *words[1:]]
    return words


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str):
        self.exit(USAGE_ERROR, f"error: {message}; {self.prog} --help shows what there is\n")


def build_parser(prog: str = SCRIPT) -> argparse.ArgumentParser:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = _OneLineParser(
        prog=prog,
        usage=f"{prog} [PROFILE] [-p NAME VALUE ...] [--run-id ID] [--from STEP]\n       {prog} COMMAND ...",
        description=DESCRIPTION,
        epilog=_overview(prog),
        formatter_class=as_written,
        add_help=False,
    )
    parser.add_argument("--help", action="help", help=argparse.SUPPRESS)  # listed, it would be a section of one line
    commands = parser.add_subparsers(required=True, metavar="COMMAND", help=argparse.SUPPRESS, prog=prog)
    for name, command in COMMANDS.items():
        own = commands.add_parser(
            name,
            description=command.__doc__.strip(),
            epilog=getattr(command, "EPILOG", None),
            formatter_class=as_written,
        )
        command.add_arguments(own)
        own.set_defaults(command=command)
    return parser


def _overview(prog: str) -> str:
    """The commands, the profiles, and what happens at first and in the end."""
    lines = [f"  {name:<9} {COMMANDS[name].__doc__.splitlines()[0].rstrip('.')}" for name in LISTED]
    listed = "\n".join([f"commands ({prog} COMMAND --help tells more; `run` may be left out):", *lines])
    return "\n\n".join([listed, run.EPILOG, INSTALLING, EXIT_STATUSES])
