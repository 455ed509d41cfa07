"""The command line behind run_all.sh: `run` notebooks, `ask` about a picture; `check` and `pins` serve the set-up."""

import argparse
import os
import re
import shlex
import signal
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from stkvlm_lib import markdown
from stkvlm_lib.batch import command as batch_command
from stkvlm_lib.batch.plan import BATCH_FILE
from stkvlm_lib.config import EMBEDDED, PROFILES, ROOT, ConfigError
from stkvlm_lib.files import explain
from stkvlm_lib.model_files import read_adapter_record
from stkvlm_lib.pipeline import Request, StepFailed, check_request, run_pipeline
from stkvlm_lib.runs import OUTPUTS, find_run, set_up_hub

USAGE_ERROR, FAILED, INTERRUPTED = 2, 1, 130
COURSE_DATA = (
    "The course's data belong to UT Austin (homework 4 of Advances in Deep Learning) and may not be redistributed; "
    "they are no part of this project."
)


class Stopped(KeyboardInterrupt):
    """Asked by a signal to end (SIGTERM, or the terminal was closed), which is done as after Ctrl-C."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 a step or the system failed, 2 a wrong argument or file (one line says which), 130
    interrupted, 128 + N ended by signal N."""
    options = build_parser().parse_args(arguments)
    try:
        with stopping_in_order():
            status = options.call(options)
            sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except BrokenPipeError:  # who read the output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        own = error.errno is None  # raised by this project, with a message of its own
        print(f"error: {error if own else explain(error)}", file=sys.stderr)
        return USAGE_ERROR if isinstance(error, FileNotFoundError) else FAILED
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE_ERROR
    except StepFailed as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return FAILED
    except Stopped as stopped:
        return 128 + stopped.number
    except KeyboardInterrupt:
        return INTERRUPTED


@contextmanager
def stopping_in_order() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise Stopped, so that what was begun is ended and tidied; those ignored stay so."""

    def stop(number: int, frame: object) -> None:
        raise Stopped(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    changed = [number for number, handler in before.items() if handler is signal.SIG_DFL]
    for number in changed:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, before[number])


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """An argparse type for whole numbers in a range."""

    def read(text: str) -> int:
        wanted = f"a whole number from {least}" + (f" to {most}" if most else "")
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text) or not least <= int(text) <= (most or 10**18):
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not {wanted}")
        return int(text)

    return read


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
        command.add_argument("--to", dest="to_step", metavar="STEP")
        command.add_argument("--run-id", metavar="ID")
    batch = commands.add_parser("batch", help="runs of many settings and seeds, told apart on one page")
    batch_command.add_arguments(batch)
    batch.set_defaults(call=batch_command.call)
    ask = commands.add_parser("ask", help="answer a question about a picture")
    ask.add_argument("image", type=Path)
    ask.add_argument("question")
    ask.add_argument("--adapter", type=Path, help="default: outputs/latest/adapter")
    ask.add_argument("--base", help="base model, where the adapter's own is a local folder")
    ask.set_defaults(call=_ask)
    explorer = commands.add_parser("explore", help="serve the explorer of a run as a page on this machine")
    explorer.add_argument("run", nargs="?", metavar="RUN", help="a name in outputs/ or a folder; default: the newest")
    explorer.add_argument("--frames", default="", metavar="DIR", help="default: the frames that the run was made of")
    explorer.add_argument("--adapter", default="", metavar="DIR", help="default: the run's own")
    explorer.add_argument("--picture", default="", metavar="FILE", help="open at it, e.g. test/800000_00_im.jpg")
    explorer.add_argument("--question", default="", help="with this question about it")
    explorer.add_argument(
        "--port", type=whole_number(1, 65535), default=8866, help="default: 8866, or another where that is in use"
    )
    explorer.set_defaults(call=_explore)
    _add_looking_back(commands)
    fetch = commands.add_parser("fetch", help="download and unpack the course's data", description=COURSE_DATA)
    fetch.add_argument("source", nargs="?", metavar="PATH_OR_URL", help="default: the address that the course gives")
    fetch.add_argument("--to", type=Path, metavar="DIR", help="default: data/course in the repository (git ignores it)")
    fetch.set_defaults(call=_fetch)
    card = commands.add_parser("card", help="write the dataset card of a data folder")
    card.add_argument("folder", type=Path, metavar="DIR")
    card.add_argument("--out", type=Path, metavar="FILE", help="default: README.md in the folder")
    card.add_argument("--title", default="", help="default: the folder's name")
    card.set_defaults(call=_card)
    _add_render(commands)
    assets = commands.add_parser("assets", help="prepare the game's data for rendering")
    assets.set_defaults(call=_assets)
    pins = commands.add_parser("pins", help="list pinned packages; status 1 when --unmet ones exist")
    pins.add_argument("--unmet", action="store_true", help="only those that this interpreter does not have")
    pins.add_argument("--test", action="store_true", help="also those of the tests")
    pins.set_defaults(call=_pins)
    return parser


def _add_looking_back(commands: argparse._SubParsersAction) -> None:
    report = commands.add_parser("report", help="write the report of a run again, from its artefacts alone")
    report.add_argument("run", nargs="?", metavar="RUN", help="a name in outputs/ or a folder; default: the newest")
    report.set_defaults(call=_report)
    compare = commands.add_parser("compare", help="two runs on the questions that both answered; more, as a table")
    compare.add_argument("runs", nargs="+", metavar="RUN", help="a name in outputs/ or a folder; also of a batch")
    compare.add_argument("--out", default="", metavar="DIR", help="where the table's page goes: outputs/comparison")
    compare.add_argument(
        "--bootstrap", type=whole_number(1), default=1000, metavar="N", help="resamples behind each interval"
    )
    compare.add_argument("--seed", type=whole_number(0), default=0)
    compare.set_defaults(call=_compare)
    push = commands.add_parser("push", help="upload an adapter with its card to the Hugging Face hub")
    push.add_argument("folder", type=Path, metavar="ADAPTER_DIR")
    push.add_argument("name", metavar="OWNER/NAME")
    push.add_argument("--private", action="store_true", help="where the repository has to be made: not public")
    push.set_defaults(call=_push)


def _add_render(commands: argparse._SubParsersAction) -> None:
    render = commands.add_parser("render", help="render frames from the game into a new folder, or go on with one")
    render.add_argument("out", type=Path)
    render.add_argument(
        "--images", type=whole_number(1), help="how many pictures at least (default 200), in at least ten races"
    )
    render.add_argument("--tracks", nargs="+", metavar="TRACK", help="default: all 21")
    render.add_argument("--seed", type=whole_number(0), help="draws tracks, line-ups and races (default 0)")
    render.add_argument("--recipe", type=Path, metavar="FILE", help="JSON: settings of a set, or of each of its splits")
    render.add_argument(
        "--workers", type=whole_number(0), default=0, metavar="N", help="processes; default: one a core"
    )
    render.add_argument("--cluster", metavar="ADDRESS", help="render on a Dask cluster, tcp://host:port")
    render.add_argument("--replay", type=Path, metavar="MANIFEST", help="render what another run has rendered")
    render.add_argument("--retry", action="store_true", help="try again what was skipped")
    render.set_defaults(call=_render)


def _request(options: argparse.Namespace) -> Request:
    """`-p A 1 -p B 2` and `-p A 1 B 2` alike; a profile may also stand after them."""
    profile, parameters = options.profile, {}
    for words in options.parameters:
        if len(words) % 2 and profile is None and words[-1] in PROFILES:
            profile = words.pop()
        if len(words) % 2:
            raise ConfigError(f"-p takes a NAME and a VALUE; {words[-1]!r} stands alone")
        parameters |= dict(zip(words[::2], words[1::2], strict=True))
    steps = (step.zfill(2) if step else None for step in (options.from_step, options.to_step))
    return Request(profile, parameters, options.run_id, *steps)


def _ask(options: argparse.Namespace) -> None:
    adapter = options.adapter or OUTPUTS / "latest" / "adapter"
    if not adapter.is_dir():
        raise FileNotFoundError(f"{adapter}: no adapter there; run ./run_all.sh first, or name one with --adapter DIR")
    read_adapter_record(adapter)
    if not options.question.strip():
        raise ValueError("the question is empty; give one in quotes")
    set_up_hub(options.base or EMBEDDED)  # a base that only the adapter names is not fetched

    from stkvlm_lib.data.frames import load_image
    from stkvlm_lib.explore.asking import in_lines, put
    from stkvlm_lib.runs import set_up_torch
    from stkvlm_lib.vlm.adapter import load_answerer  # only now: these imports take seconds

    image = load_image(options.image)
    set_up_torch()
    model = load_answerer(adapter, options.base)
    print("\n".join(in_lines(*put(model, model.encode([image]), options.question))))


def _explore(options: argparse.Namespace) -> None:
    from stkvlm_lib.explore.explorer_page import serve
    from stkvlm_lib.explore.links import Place

    given = {"FRAMES_DIR": options.frames, "ADAPTER_DIR": options.adapter}
    parameters = {name: str(Path(folder).absolute()) for name, folder in given.items() if folder}
    for name, folder in parameters.items():
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"{folder}: no such folder for {name}; give one that is there")
    serve(find_run(options.run, OUTPUTS), parameters, options.port, Place(options.picture, options.question))


def _report(options: argparse.Namespace) -> None:
    from stkvlm_lib.reports.report import write_report

    print(write_report(find_run(options.run, OUTPUTS)))


def _compare(options: argparse.Namespace) -> None:
    from stkvlm_lib.scores import comparison, score_tables

    folders = [find_run(name, OUTPUTS) for name in options.runs]
    if len(folders) != 2 or options.out or any((folder / BATCH_FILE).is_file() for folder in folders):
        return batch_command.compare_many(options.runs, resamples=options.bootstrap, seed=options.seed, out=options.out)
    if folders[0].resolve() == folders[1].resolve():
        raise ValueError(f"{' and '.join(options.runs)} are the same run; name two")
    shared = comparison.share(*map(comparison.read_answers, folders))
    figures = comparison.compare(shared, resamples=options.bootstrap, seed=options.seed)
    ours, other = (folder.resolve().name for folder in folders)
    print(score_tables.comparison_text(figures, ours, other))
    print(f"\n{markdown.table(score_tables.comparison_rows(figures, ours, other), right=True)}")


def _push(options: argparse.Namespace) -> None:
    from stkvlm_lib.vlm.hub import push_adapter

    print(push_adapter(options.folder, options.name, private=options.private))


def _fetch(options: argparse.Namespace) -> None:
    from stkvlm_lib.data.course_zip import COURSE_URL, FOLDER, fetch

    print(COURSE_DATA)
    got = fetch(options.source or COURSE_URL, options.to or ROOT / FOLDER)
    counts = ", ".join(f"{split} {number:,}" for split, number in sorted(got.frames.items()))
    print(f"{got.folder}: frames: {counts}; {got.written:,} files written, {got.kept:,} were there")
    folder = got.folder.resolve()
    name = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder
    print(f"next: ./run_all.sh -p FRAMES_DIR {shlex.quote(str(name))}")


def _card(options: argparse.Namespace) -> None:
    from stkvlm_lib.cards.cards import write_card
    from stkvlm_lib.data.frame_sets import read_frames

    print(write_card(read_frames(options.folder), options.out or options.folder / "README.md", options.title))


def _render(options: argparse.Namespace) -> int:
    from stkvlm_lib import parallel
    from stkvlm_lib.cards import cards
    from stkvlm_lib.data.frame_sets import read_frames
    from stkvlm_lib.game import simulate

    recipes = _recipes(options)
    where = parallel.cluster(options.cluster) if options.cluster else nullcontext()
    try:
        with where:
            made = simulate.collect(
                recipes,
                options.out,
                workers=options.workers,
                replay=options.replay,
                retry=options.retry,
                report=simulate.printed(),
            )
    except simulate.FAILURES as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on with what is missing", file=sys.stderr)
        return INTERRUPTED
    print(f"{made['images']:,} pictures in {len(made['races'])} races, {made['skipped_frames']} frames skipped")
    card = cards.write_card(read_frames(options.out), options.out / "README.md")
    print(f"truth   {made['truth_sha256']}\ncard    {card}")
    print(f"next    ./run_all.sh -p FRAMES_DIR {shlex.quote(str(options.out.resolve()))}")
    return 0


def _recipes(options: argparse.Namespace) -> dict:
    from stkvlm_lib.game.simulate import choose_recipes

    file = options.recipe or options.replay
    given = [name for name in ("images", "tracks", "seed") if getattr(options, name) is not None]
    if file and given:
        raise ConfigError(f"{file} says what is rendered; leave out {', '.join('--' + name for name in given)}")
    images = 200 if options.images is None else options.images
    return choose_recipes(file, images, options.tracks or [], options.seed or 0)


def _assets(options: argparse.Namespace) -> int:
    from stkvlm_lib.game import game_assets

    try:
        print(game_assets.prepare_assets(game_assets.default_folder()))
    except game_assets.RenderError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    return 0


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
