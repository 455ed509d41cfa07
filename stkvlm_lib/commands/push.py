"""Upload an adapter or a merged model with its card to the Hugging Face hub."""

import argparse
from pathlib import Path

from stkvlm_lib.commands.arguments import A_RUN
from stkvlm_lib.model_files import EXPORT_RECORD
from stkvlm_lib.runs import find_adapter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = f"a run ({A_RUN}), the folder of an adapter, or a model that was exported with --merge"
    parser.add_argument("folder", metavar="RUN_OR_DIR", help=what)
    parser.add_argument("name", metavar="OWNER/NAME", help="the repository on the hub")
    parser.add_argument("--private", action="store_true", help="where the repository has to be made: not public")


def check(options: argparse.Namespace) -> None:
    exported = (Path(options.folder) / EXPORT_RECORD).is_file()
    options.folder = Path(options.folder) if exported else find_adapter(options.folder)


def call(options: argparse.Namespace) -> None:
    from stkvlm_lib.vlm.hub import push_adapter

    print(push_adapter(options.folder, options.name, private=options.private))
