"""Render frames from the game into a new folder, or go on with one."""

import argparse
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path

from stkvlm_lib.commands.arguments import whole_number
from stkvlm_lib.commands.endings import FAILED, INTERRUPTED
from stkvlm_lib.config import ConfigError

IMAGES = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument(
        "--images",
        type=whole_number(1),
        metavar="N",
        help=f"how many pictures at least (default {IMAGES}), in at least ten races",
    )
    parser.add_argument("--tracks", nargs="+", metavar="TRACK", help="default: all 21")
    parser.add_argument(
        "--seed", type=whole_number(0), metavar="N", help="draws tracks, line-ups and races (default 0)"
    )
    parser.add_argument("--recipe", type=Path, metavar="FILE", help="JSON: settings of a set, or of each of its splits")
    parser.add_argument(
        "--workers", type=whole_number(0), default=0, metavar="N", help="processes; default: one a core"
    )
    parser.add_argument("--cluster", metavar="ADDRESS", help="render on a Dask cluster, tcp://host:port")
    parser.add_argument("--replay", type=Path, metavar="MANIFEST", help="render what another run has rendered")
    parser.add_argument("--retry", action="store_true", help="try again what was skipped")


def check(options: argparse.Namespace) -> None:
    file = options.recipe or options.replay
    given = [name for name in ("images", "tracks", "seed") if getattr(options, name) is not None]
    if file and given:
        raise ConfigError(f"{file} says what is rendered; leave out {', '.join('--' + name for name in given)}")


def call(options: argparse.Namespace) -> int:
    from stkvlm_lib.game import simulate

    try:
        made = _collect(options)
    except simulate.FAILURES as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on with what is missing", file=sys.stderr)
        return INTERRUPTED
    print(f"{made['images']:,} pictures in {len(made['races'])} races, {made['skipped_frames']} frames skipped")
    print(f"truth   {made['truth_sha256']}\ncard    {_write_card(options.out)}")
    print(f"next    ./run_all.sh -p FRAMES_DIR {shlex.quote(str(options.out.resolve()))}")
    return 0


def _collect(options: argparse.Namespace) -> dict:
    from stkvlm_lib import parallel
    from stkvlm_lib.game import simulate

    file, tracks, seed = options.recipe or options.replay, options.tracks or [], options.seed or 0
    recipes = simulate.choose_recipes(file, options.images or IMAGES, tracks, seed)
    with parallel.cluster(options.cluster) if options.cluster else nullcontext():
        return simulate.collect(
            recipes,
            options.out,
            workers=options.workers,
            replay=options.replay,
            retry=options.retry,
        )


def _write_card(folder: Path) -> Path:
    from stkvlm_lib.cards.frames_card import write_card
    from stkvlm_lib.data.frame_sets import read_frames

    return write_card(read_frames(folder), folder / "README.md")
