"""Run the notebooks that are not done yet, one after the other.

The first code cell of each notebook lists its parameters; relative paths in them count from the repository.
"""

import argparse

from stkvlm_lib.commands.arguments import add_parameters, named_values
from stkvlm_lib.config import PROFILES, STEPS
from stkvlm_lib.pipeline import Request, check_request, run_pipeline
from stkvlm_lib.preflight import EXPECTED_TIME

_PROFILE_IS = {
    "smoke": "little data, one epoch; what the tests use",
    "cpu": "embedded base, bundled frames; the default without a GPU",
    "gpu": f"{PROFILES['gpu']['BASE_MODEL'].rpartition('/')[2]} from the hub; the default with a CUDA device",
}
EPILOG = "profiles:\n" + "\n".join(f"  {name:<9} {EXPECTED_TIME[name]}: {_PROFILE_IS[name]}" for name in PROFILES)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("profile", nargs="?", metavar="PROFILE", help=", ".join(PROFILES))
    add_parameters(parser, "NAME VALUE", "set it in every notebook that has it, e.g. -p EPOCHS 4 -p SEED 1")
    run_id = "the run's name, a folder in outputs/; given again, the run goes on at the first step not done"
    parser.add_argument("--run-id", metavar="ID", help=run_id)
    again = f"do one of {', '.join(STEPS)} and what follows it again; needs --run-id"
    parser.add_argument("--from", dest="from_step", metavar="STEP", help=again)
    parser.add_argument("--to", dest="to_step", metavar="STEP", help="the last step to do; default: all")


def check(options: argparse.Namespace) -> None:
    check_request(_request(options))


def call(options: argparse.Namespace) -> None:
    run_pipeline(_request(options))


def _request(options: argparse.Namespace) -> Request:
    """`-p A 1 -p B 2` and `-p A 1 B 2` alike; a profile may also stand after them."""
    profile, parameters = options.profile, {}
    for words in options.parameters:
        if len(words) % 2 and profile is None and words[-1] in PROFILES:
            *words, profile = words
        parameters |= named_values(words)
    steps = (step.zfill(2) if step else None for step in (options.from_step, options.to_step))
    return Request(profile, parameters, options.run_id, *steps)
