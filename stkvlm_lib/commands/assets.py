"""Prepare the game's data, once before rendering."""

import argparse
import sys

from stkvlm_lib.commands.endings import FAILED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def call(options: argparse.Namespace) -> int:
    from stkvlm_lib.game import game_assets

    try:
        print(game_assets.prepare_assets(game_assets.default_folder()))
    except game_assets.RenderError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    return 0
