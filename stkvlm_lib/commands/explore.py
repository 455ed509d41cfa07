"""Look at a run in the browser, or at two, ask, and mark.

The page is served on this machine alone, at an address with a token that is printed.
"""

import argparse

from stkvlm_lib.commands.arguments import add_run, folder, whole_number
from stkvlm_lib.config import BASE
from stkvlm_lib.runs import find_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    beside = "another run, whose answers stand beside; or `base`: those of the base without the adapter"
    parser.add_argument("beside", nargs="?", type=_run_or_base, default="", metavar="RUN2", help=beside)
    frames, adapter = (folder(f"one that is there for {name}") for name in ("FRAMES_DIR", "ADAPTER_DIR"))
    frames_default = "default: the frames that the run was made of"
    parser.add_argument("--frames", type=frames, metavar="DIR", help=frames_default)
    parser.add_argument("--adapter", type=adapter, metavar="DIR", help="default: the run's own")
    parser.add_argument("--picture", default="", metavar="FILE", help="open at it, e.g. test/800000_00_im.jpg")
    parser.add_argument("--question", default="", metavar="TEXT", help="with this question about it")
    port = "default: 8866, or another where that is in use"
    parser.add_argument("--port", type=whole_number(1, 65535), default=8866, help=port)


def _run_or_base(text: str) -> str:
    return text if text in ("", BASE) else str(find_run(text))


def call(options: argparse.Namespace) -> None:
    from stkvlm_lib.explore.links import Place
    from stkvlm_lib.explore.page import serve

    given = {"FRAMES_DIR": options.frames, "ADAPTER_DIR": options.adapter}
    parameters = {name: str(path.absolute()) for name, path in given.items() if path}
    if options.beside:
        parameters["COMPARE_RUN"] = options.beside
    serve(options.run, parameters, options.port, Place(options.picture, options.question))
