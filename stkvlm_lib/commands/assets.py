"""Prepare the game's data, once before rendering."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def call(options: argparse.Namespace) -> None:
    from stkvlm_lib.game import game_assets

    print(game_assets.prepare_assets(game_assets.default_folder()))
