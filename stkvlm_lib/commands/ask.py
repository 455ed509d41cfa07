"""Answer a question about a picture."""

import argparse
from pathlib import Path

from stkvlm_lib import runs
from stkvlm_lib.config import EMBEDDED
from stkvlm_lib.model_files import read_adapter_record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    adapter = "the one that answers, or a run; default: that of outputs/latest"
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a picture of the game, best of 3:2")
    parser.add_argument("question", nargs="+", metavar="QUESTION", help="in your own words, best in quotes")
    parser.add_argument("--adapter", default="latest", metavar="DIR", help=adapter)
    parser.add_argument("--base", metavar="NAME_OR_DIR", help="base model, where the adapter's own is a local folder")


def check(options: argparse.Namespace) -> None:
    if not options.image.is_file():
        raise FileNotFoundError(f"{options.image}: there is no such picture; name a file that is one")
    options.adapter = runs.find_adapter(options.adapter)
    read_adapter_record(options.adapter)


def call(options: argparse.Namespace) -> None:
    runs.set_up_hub(options.base or EMBEDDED)  # a base that only the adapter names is not fetched

    from stkvlm_lib.data.pictures import BrokenFile, load_image
    from stkvlm_lib.explore.asking import checked, in_lines
    from stkvlm_lib.explore.understanding import as_asked

    question = as_asked(checked(" ".join(options.question)))
    try:
        image = load_image(options.image)
    except BrokenFile as error:  # its remedy is a notebook's parameter
        raise ValueError(f"{error.file}: {error.reason}; name another file, best JPEG or PNG") from error

    from stkvlm_lib.explore.models import put
    from stkvlm_lib.explore.own_picture import shape_told
    from stkvlm_lib.vlm.adapter import load_answerer  # only now: these imports take seconds

    runs.set_up_torch()
    model = load_answerer(options.adapter, options.base)
    said = in_lines(*put(model, model.encode([image]), question))
    print("\n".join(filter(None, (*said, shape_told(*image.size)))))
