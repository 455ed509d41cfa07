"""Upload an adapter or a merged model with its card to the Hugging Face hub."""

import argparse

from stkvlm_lib.commands.arguments import folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = "an adapter, such as outputs/latest/adapter, or a model that was exported with --merge"
    such = folder("an adapter, such as outputs/latest/adapter")
    parser.add_argument("folder", type=such, metavar="DIR", help=what)
    parser.add_argument("name", metavar="OWNER/NAME", help="the repository on the hub")
    parser.add_argument("--private", action="store_true", help="where the repository has to be made: not public")


def call(options: argparse.Namespace) -> None:
    from stkvlm_lib.vlm.hub import push_adapter

    print(push_adapter(options.folder, options.name, private=options.private))
