"""Render frames from the game into a new folder, or go on with one."""

import argparse
import shlex
import sys
from pathlib import Path

from stkvlm_lib.commands.arguments import whole_number
from stkvlm_lib.config import ConfigError

IMAGES = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    at_least = f"how many pictures at least (default {IMAGES}), in at least ten races"
    draws = "draws tracks, line-ups and races (default 0)"
    parser.add_argument("out", type=Path, metavar="OUT", help="a new folder, or one to go on with")
    parser.add_argument("--images", type=whole_number(1), metavar="N", help=at_least)
    parser.add_argument("--tracks", nargs="+", metavar="TRACK", help="default: all 21")
    parser.add_argument("--seed", type=whole_number(0), metavar="N", help=draws)
    parser.add_argument("--recipe", type=Path, metavar="FILE", help="JSON: settings of a set, or of each of its splits")
    parser.add_argument("--workers", type=whole_number(0), default=0, metavar="N", help="default: a process a core")
    parser.add_argument("--cluster", default="", metavar="ADDRESS", help="render on a Dask cluster, tcp://host:port")
    parser.add_argument("--replay", type=Path, metavar="MANIFEST", help="render what another run has rendered")
    parser.add_argument("--retry", action="store_true", help="try again what was skipped")


def check(options: argparse.Namespace) -> None:
    file = options.recipe or options.replay
    given = [name for name in ("images", "tracks", "seed") if getattr(options, name) is not None]
    if file and given:
        raise ConfigError(f"{file} says what is rendered; leave out {', '.join('--' + name for name in given)}")


def call(options: argparse.Namespace) -> None:
    from stkvlm_lib import parallel
    from stkvlm_lib.cards.frames_card import write_card
    from stkvlm_lib.data.frame_sets import read_frames
    from stkvlm_lib.game import simulate

    file, tracks, seed = options.recipe or options.replay, options.tracks or [], options.seed or 0
    recipes = simulate.choose_recipes(file, options.images or IMAGES, tracks, seed)
    try:
        with parallel.cluster(options.cluster):
            made = simulate.collect(
                recipes, options.out, workers=options.workers, replay=options.replay, retry=options.retry
            )
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on with what is missing", file=sys.stderr)
        raise
    print(f"{made['images']:,} pictures in {len(made['races'])} races, {made['skipped_frames']} frames skipped")
    card = write_card(read_frames(options.out), options.out / "README.md")
    print(f"truth   {made['truth_sha256']}\ncard    {card}")
    print(f"next    ./run_all.sh -p FRAMES_DIR {shlex.quote(str(options.out.resolve()))}")
