"""Make runs of many settings and seeds, and tell them apart on one page."""

import argparse

from stkvlm_lib.batch.command import add_arguments, batch_of, call

__all__ = ["add_arguments", "call", "check"]


def check(options: argparse.Namespace) -> None:
    try:
        batch_of(options)
    except ModuleNotFoundError:  # before the first installation nothing here reads YAML; `call` does, before it starts
        return
