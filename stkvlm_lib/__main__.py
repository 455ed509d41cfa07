"""The command line behind run_all.sh: `run` notebooks, `ask` about a picture; `check` and `pins` serve the set-up."""

import argparse
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from stkvlm_lib.config import EMBEDDED, PROFILES, ROOT, ConfigError
from stkvlm_lib.files import read_json
from stkvlm_lib.pipeline import Request, StepFailed, check_request, run_pipeline
from stkvlm_lib.runs import OUTPUTS, set_up_hub

USAGE_ERROR, FAILED, INTERRUPTED = 2, 1, 130


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 a step failed, 2 a wrong argument or file (one line says which), 130 interrupted."""
    options = build_parser().parse_args(arguments)
    try:
        status = options.call(options)
        return status if isinstance(status, int) else 0
    except (ConfigError, FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE_ERROR
    except StepFailed as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str):
        self.exit(USAGE_ERROR, f"error: {message}; ./run_all.sh --help shows what there is\n")


def build_parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(prog="stkvlm", description="Fine-tune on questions about SuperTuxKart frames, and ask.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="execute the notebooks that are not done yet")
    run.set_defaults(call=lambda options: run_pipeline(_request(options)))
    check = commands.add_parser("check", help="check the arguments of `run` and stop")
    check.set_defaults(call=lambda options: check_request(_request(options)))
    for command in (run, check):
        command.add_argument("profile", nargs="?", help=", ".join(PROFILES))
        command.add_argument("-p", dest="parameters", nargs="+", action="append", default=[], metavar="NAME VALUE")
        command.add_argument("--from", dest="from_step", metavar="STEP")
        command.add_argument("--run-id", metavar="ID")
    ask = commands.add_parser("ask", help="answer a question about a picture")
    ask.add_argument("image", type=Path)
    ask.add_argument("question")
    ask.add_argument("--adapter", type=Path, help="default: outputs/latest/adapter")
    ask.add_argument("--base", help="base model, where the adapter's own is a local folder")
    ask.set_defaults(call=_ask)
    pins = commands.add_parser("pins", help="list pinned packages; status 1 when --unmet ones exist")
    pins.add_argument("--unmet", action="store_true", help="only those that this interpreter does not have")
    pins.add_argument("--test", action="store_true", help="also those of the tests")
    pins.set_defaults(call=_pins)
    return parser


def _request(options: argparse.Namespace) -> Request:
    """`-p A 1 -p B 2` and `-p A 1 B 2` alike; a profile may also stand after them."""
    profile, parameters = options.profile, {}
    for words in options.parameters:
        if len(words) % 2 and profile is None and words[-1] in PROFILES:
            profile = words.pop()
        if len(words) % 2:
            raise ConfigError(f"-p takes a NAME and a VALUE; {words[-1]!r} stands alone")
        parameters |= dict(zip(words[::2], words[1::2], strict=True))
    step = options.from_step
    return Request(profile, parameters, options.run_id, step.zfill(2) if step else None)


def _ask(options: argparse.Namespace) -> None:
    adapter = options.adapter or OUTPUTS / "latest" / "adapter"
    if not adapter.is_dir():
        raise FileNotFoundError(f"{adapter}: no adapter there; run ./run_all.sh first, or name one with --adapter DIR")
    record = read_json(adapter / "adapter_config.json", "give a folder that PEFT has written")
    base = options.base or record.get("base_model_name_or_path") or EMBEDDED
    if not options.question.strip():
        raise ValueError("the question is empty; give one in quotes")
    set_up_hub(base)

    from stkvlm_lib.base_vlm import load_answerer  # only now: these imports take seconds
    from stkvlm_lib.frames import load_image
    from stkvlm_lib.runs import set_up_torch

    image = load_image(options.image)
    set_up_torch()
    answer = load_answerer(adapter, options.base).answer(image, options.question)
    print(f"{answer.text}  (confidence {answer.confidence:.2f})")


def pins(test: bool = True) -> dict[str, str]:
    """Package -> version as pinned in pyproject.toml, torch first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = project["dependencies"] + (project["optional-dependencies"]["test"] if test else [])
    return dict(line.split("==") for line in lines)


def unmet(wanted: dict[str, str]) -> dict[str, str]:
    """Those that this interpreter lacks or has in another version (2.13.0+cpu counts as 2.13.0)."""
    return {name: pinned for name, pinned in wanted.items() if _installed(name) != pinned}


def _installed(name: str) -> str | None:
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return None
    return re.sub(r"\+.*", "", found.version or "")


def _pins(options: argparse.Namespace) -> int:
    listed = unmet(pins(options.test)) if options.unmet else pins(options.test)
    print("\n".join(f"{name}=={pinned}" for name, pinned in listed.items()))
    return int(options.unmet and bool(listed))


if __name__ == "__main__":
    sys.exit(main())
