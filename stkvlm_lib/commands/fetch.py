"""Download and unpack the course's data.

They belong to UT Austin (homework 4 of Advances in Deep Learning) and may not be redistributed; they are no part of
this project.
"""

import argparse
import shlex
from pathlib import Path

from stkvlm_lib.config import ROOT, from_root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", nargs="?", metavar="PATH_OR_URL", help="default: the address that the course gives")
    to = "default: data/course in the repository (git ignores it)"
    parser.add_argument("--to", type=Path, metavar="DIR", help=to)


def call(options: argparse.Namespace) -> None:
    from stkvlm_lib.data.course_zip import COURSE_URL, FOLDER, fetch

    print(" ".join(__doc__.splitlines()[2:]).strip())
    got = fetch(options.source or COURSE_URL, options.to or ROOT / FOLDER)
    counts = ", ".join(f"{split} {number:,}" for split, number in sorted(got.frames.items()))
    print(f"{got.folder}: frames: {counts}; {got.written:,} files written, {got.kept:,} were there")
    print(f"next: ./run_all.sh -p FRAMES_DIR {shlex.quote(str(from_root(got.folder.resolve())))}")
