"""Write the dataset card of a data folder."""

import argparse
from pathlib import Path

from stkvlm_lib.commands.arguments import folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    frames, with_frames = folder("one with frames"), "with frames, or with train/ valid/ test/ of them"
    parser.add_argument("folder", type=frames, metavar="DIR", help=with_frames)
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: README.md in the folder")
    parser.add_argument("--title", default="", help="default: the folder's name")


def call(options: argparse.Namespace) -> None:
    from stkvlm_lib.cards.frames_card import write_card
    from stkvlm_lib.data.frame_sets import read_frames

    print(write_card(read_frames(options.folder), options.out or options.folder / "README.md", options.title))
