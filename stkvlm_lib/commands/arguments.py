"""Arguments that several commands take, and how they are read."""

import argparse
import errno
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from stkvlm_lib.config import ConfigError
from stkvlm_lib.runs import find_run

A_RUN = "a name in outputs/, or a folder (relative ones count from the repository)"


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """An argparse type for whole numbers in a range."""

    def read(text: str) -> int:
        wanted = f"a whole number from {least}" + (f" to {most}" if most else "")
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text) or not least <= int(text) <= (most or 10**18):
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not {wanted}")
        return int(text)

    return read


def add_run(parser: argparse.ArgumentParser) -> None:
    """The folder of one run, the newest where none is named."""
    newest, meaning = find_run(None), f"{A_RUN}; default: the newest"
    parser.add_argument("run", nargs="?", type=find_run, default=newest, metavar="RUN", help=meaning)


def add_parameters(parser: argparse.ArgumentParser, metavar: str, meaning: str) -> None:
    """`-p A 1 B 2`, any number of times."""
    parser.add_argument("-p", dest="parameters", nargs="+", action="append", default=[], metavar=metavar, help=meaning)


def named_values(words: Sequence[str]) -> dict[str, str]:
    """What stands behind -p as names and values. Raises ConfigError for an odd number of words."""
    if len(words) % 2:
        raise ConfigError(f"-p takes a NAME and a VALUE; {words[-1]!r} stands alone")
    return dict(zip(words[::2], words[1::2], strict=True))


def require_new_folder(folder: Path) -> None:
    """Raises ConfigError where something lies there already, OSError where no folder can be made."""
    if folder.is_symlink() or folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ConfigError(f"{folder}: is there already; remove it, or name another folder")
    place = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if not place.is_dir():
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
    if not os.access(place, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(place))


def folder(what: str) -> Callable[[str], Path]:
    """An argparse type for folders that are there, else it raises FileNotFoundError. what: which one to name."""

    def read(text: str) -> Path:
        if not Path(text).is_dir():
            raise FileNotFoundError(f"{text}: no such folder; name {what}")
        return Path(text)

    return read
