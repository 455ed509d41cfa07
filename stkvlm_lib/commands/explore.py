"""Look at a run in the browser, or at two, ask, and mark.

The page is served on this machine alone, at an address with a token that is printed.
"""

import argparse
from pathlib import Path

from stkvlm_lib.commands.arguments import add_run, require_folder, whole_number
from stkvlm_lib.config import BASE
from stkvlm_lib.runs import find_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    beside = "another run, whose answers stand beside; or `base`: those of the base without the adapter"
    parser.add_argument("beside", nargs="?", default="", metavar="RUN2", help=beside)
    parser.add_argument("--frames", metavar="DIR", help="default: the frames that the run was made of")
    parser.add_argument("--adapter", metavar="DIR", help="default: the run's own")
    parser.add_argument("--picture", default="", metavar="FILE", help="open at it, e.g. test/800000_00_im.jpg")
    parser.add_argument("--question", default="", metavar="TEXT", help="with this question about it")
    port = "default: 8866, or another where that is in use"
    parser.add_argument("--port", type=whole_number(1, 65535), default=8866, help=port)


def check(options: argparse.Namespace) -> None:
    find_run(options.run)
    if options.beside not in ("", BASE):
        find_run(options.beside)
    for name, folder in _folders(options).items():
        require_folder(Path(folder), f"one that is there for {name}")


def call(options: argparse.Namespace) -> None:
    from stkvlm_lib.explore.links import Place
    from stkvlm_lib.explore.page import serve

    parameters = _folders(options)
    if options.beside:
        parameters["COMPARE_RUN"] = BASE if options.beside == BASE else str(find_run(options.beside))
    serve(find_run(options.run), parameters, options.port, Place(options.picture, options.question))


def _folders(options: argparse.Namespace) -> dict[str, str]:
    """The notebook's parameters for the folders that were given."""
    given = {"FRAMES_DIR": options.frames, "ADAPTER_DIR": options.adapter}
    return {name: str(Path(folder).absolute()) for name, folder in given.items() if folder}
