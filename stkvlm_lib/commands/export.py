"""Write an adapter with its base for those who have plain Transformers and PEFT alone."""

import argparse
from pathlib import Path

from stkvlm_lib.commands.arguments import A_RUN, require_new_folder
from stkvlm_lib.config import EMBEDDED
from stkvlm_lib.model_files import read_adapter_record
from stkvlm_lib.runs import find_adapter, set_up_hub


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("adapter", metavar="RUN_OR_ADAPTER", help=f"a run ({A_RUN}), or the folder of an adapter")
    parser.add_argument("folder", type=Path, metavar="DIR", help="a new folder")
    parser.add_argument("--merge", action="store_true", help="one model, instead of adapter/ beside base/")
    parser.add_argument("--base", metavar="NAME_OR_DIR", help="base model, where the adapter's own is a local folder")


def check(options: argparse.Namespace) -> None:
    read_adapter_record(find_adapter(options.adapter))
    require_new_folder(options.folder)


def call(options: argparse.Namespace) -> None:
    set_up_hub(options.base or EMBEDDED)  # a base that only the adapter names is not fetched

    from stkvlm_lib.vlm.export import export_adapter

    adapter = find_adapter(options.adapter)
    print(export_adapter(adapter, options.folder, merge=options.merge, base_model=options.base))
