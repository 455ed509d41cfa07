"""Training and answering against the straightforward loop, on the same base, pictures, questions, steps and machine.

    python benchmarks/straight_loop.py [--base NAME_OR_FOLDER] [--views N] [--batch-size N] [--rounds N] [--out FILE]

The straightforward loop is what Transformers and PEFT give by themselves: the Trainer on one question a sequence, whose
picture is processed and encoded each time it is asked about, with as many questions in an optimiser step as this
project has on average; and `generate`, a question at a time. Both sides train the same fresh adapter on the same 4-bit
base and take turns, each round on pictures of its own. Each computes as it would by itself: ours in PRECISION's
default, the straightforward loop on a CPU in fp32 (--precision, --straight-precision: otherwise), and the table names
both. Ratios are of questions a second. "With encoding" is the wall time of all that `finetune` does, saving included; a
second pass of the straightforward loop costs what its first does. On a machine that others use give it one thread
(OMP_NUM_THREADS=1) and --cpu-time, which counts the seconds that this process computes; our steps alone are then what
two passes take over one.

The share of the matmul peak is the FLOPs that training computes (counted by torch in the warm-up, padding and masked
attention included) over its seconds, against the fastest large matrix product of the same run. `--base random` takes
SmolVLM-256M-Instruct's architecture with random weights. `--profile N` prints where our training and answering spend
their time, the N dearest operators.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from flops import counted_flops, matmul_peak, timed
from large_base import random_base
from plain_loop import Times, answer_straight, train_straight

from stkvlm_lib import markdown
from stkvlm_lib.config import AUTO, PRECISIONS, ROOT, FinetuneConfig
from stkvlm_lib.data.frame_sets import FrameSet, read_frames
from stkvlm_lib.device import device_name, precision_of
from stkvlm_lib.files import write_json
from stkvlm_lib.grammar.questions import NEVER_OF_COURSE
from stkvlm_lib.parameters import make_config
from stkvlm_lib.qa.qa_sets import by_picture, make_records
from stkvlm_lib.qa.training_draw import TrainingPicture, draw_training
from stkvlm_lib.runs import set_seeds, set_up_torch
from stkvlm_lib.vlm.adapter import load_answerer
from stkvlm_lib.vlm.answering import AnswerModel
from stkvlm_lib.vlm.finetune import build_trainable, finetune, read_log


def main() -> None:
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="", help="default: the embedded one; `random`: see above")
    parser.add_argument("--views", type=int, default=64 if on_gpu else 24, help="pictures a round, for each part")
    parser.add_argument("--answer-views", type=int, default=16, help="pictures a round for answering, where fewer")
    parser.add_argument("--batch-size", type=int, default=16 if on_gpu else 8, help="pictures an optimiser step")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true", help="seconds of this process instead of those on the wall")
    known = (AUTO, *PRECISIONS)
    parser.add_argument("--precision", default=AUTO, choices=known, help="what ours computes in")
    plain = {"default": AUTO if on_gpu else "fp32", "choices": known}
    parser.add_argument("--straight-precision", **plain, help="what the straightforward loop computes in")
    parser.add_argument("--profile", type=int, default=0, metavar="N")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the figures as JSON")
    options = parser.parse_args()
    if min(options.views, options.answer_views, options.batch_size, options.rounds) < 1:
        parser.error("--views, --answer-views, --batch-size and --rounds are whole numbers from 1")
    if options.cpu_time and on_gpu:
        parser.error("--cpu-time says nothing where a GPU computes; leave it out")
    set_up_torch()
    set_seeds(0)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(options, Path(folder))
    if options.out:
        write_json(options.out, figures)
    print(markdown.table([{"": name, "measured": told(value)} for name, value in figures.items()], right=True))


def told(value: Any) -> str:
    return f"{value:,.3g}" if isinstance(value, float) else str(value)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Each line of the table."""
    frames = read_frames([ROOT / "frames"])
    train, test = draw(frames, options)
    config = configure(options, folder)
    plain = replace(config, precision=options.straight_precision)
    flops, dtype = warm_up(config, plain, frames, train[0], options.batch_size)
    peak = matmul_peak(dtype, cpu=options.cpu_time)
    ours, straight = Times(options.cpu_time), Times(options.cpu_time)
    for number in range(options.rounds):
        sides = [
            lambda i=number: train_ours(config, frames, train[i], ours),
            lambda i=number: train_straight(plain, frames, train[i], straight),
        ]
        for side in sides[:: -1 if number % 2 else 1]:
            side()
    if options.cpu_time:  # the trainings' own clock is the wall's
        ours.steps = ours.two_passes - ours.one_pass
    answerer, plain_answerer = map(answer_model, (config, plain))
    for number in range(options.rounds):
        sides = [
            lambda i=number: answer_ours(answerer, frames, test[i], ours),
            lambda i=number: answer_straight(plain_answerer, frames, test[i], straight),
        ]
        for side in sides[:: -1 if number % 2 else 1]:
            side()
    if options.profile:
        print_profiles(config, frames, train[0], answerer, test[0], options.profile)
    trained = sum(len(picture.questions) for group in train for picture in group)
    counted = flops / sum(len(picture.questions) for picture in train[0][: options.batch_size]) * trained
    computed = {"ours computes in": precision_of(dtype), "straightforward in": precision_of(plain_answerer.dtype)}
    return computed | report(options, answerer, ours, straight, trained, counted, peak)


def draw(frames: FrameSet, options: argparse.Namespace) -> tuple[list, list]:
    """Pictures with questions for each round: to train on, and (picture, questions) to answer."""
    n = options.rounds * options.views
    size = {"views": n, "per_view": 12, "worded_per_view": 4}
    drawn = list(draw_training(make_records(frames, "train"), frames, **size, mirror=False, seed=0))
    groups = by_picture(make_records(frames, "test"))
    n = options.rounds * min(options.views, options.answer_views)
    step = max(1, len(groups) // n)
    asked = [(name, [record.question for record in groups[name]]) for name in list(groups)[::step][:n]]
    return [drawn[i :: options.rounds] for i in range(options.rounds)], [
        asked[i :: options.rounds] for i in range(options.rounds)
    ]


def configure(options: argparse.Namespace, folder: Path) -> FinetuneConfig:
    base = str(random_base(folder / "base", "256M")) if options.base == "random" else options.base
    given = {"BASE_MODEL": base, "RUN_DIR": str(folder / "run"), "BATCH_SIZE": options.batch_size, "MIRROR": False}
    return make_config(given | {"EVALUATIONS": 1, "PRECISION": options.precision}, FinetuneConfig)


def warm_up(
    config: FinetuneConfig, plain: FinetuneConfig, frames: FrameSet, pictures: Sequence[TrainingPicture], n: int
) -> tuple[int, torch.dtype]:
    """One step of each side, so that nothing is loaded or compiled later; -> FLOPs of our step, encoding left out, and
    what it computes in."""
    train_straight(plain, frames, pictures[:1], Times())
    answerer = build_trainable(config)
    return counted_flops(answerer, lambda: finetune(answerer, config, frames, pictures[:n], [])), answerer.dtype


def train_ours(config: FinetuneConfig, frames: FrameSet, pictures: Sequence[TrainingPicture], times: Times) -> None:
    """One fine-tuning of one pass and one of two, from the same fresh adapter."""
    for epochs in (1, 2):
        settings = {name.upper(): value for name, value in vars(config).items()} | {"EPOCHS": epochs}
        once = make_config(settings, FinetuneConfig)
        answerer = build_trainable(once)
        encode, spent = answerer.encode, []

        def clocked(images, encode=encode, spent=spent):
            tokens, seconds = timed(lambda: encode(images), cpu=times.cpu)
            spent.append(seconds)
            return tokens

        answerer.encode = clocked
        facts, seconds = timed(lambda a=answerer, c=once: finetune(a, c, frames, pictures, []), cpu=times.cpu)
        if epochs == 2:
            times.two_passes += seconds
            continue
        times.one_pass += seconds
        times.encoding += sum(spent)
        times.steps += facts.train_seconds
        times.losses.append(mean(row["loss"] for row in read_log(config.run_path) if "loss" in row))


def answer_model(config: FinetuneConfig) -> AnswerModel:
    """The adapter that the last of our trainings has saved."""
    return load_answerer(config.run_path / "adapter", config.base_model or None, precision=config.precision)


def answer_ours(answerer: AnswerModel, frames: FrameSet, asked: Sequence[tuple[str, list[str]]], times: Times) -> None:
    def answer() -> list[str]:
        features = answerer.encode([frames.by_image_file[name].image() for name, _ in asked])
        given = answerer.answer_encoded(features, [questions for _, questions in asked])
        return [answer.text for group in given for answer in group]

    answers, seconds = timed(answer, cpu=times.cpu)
    times.answering += seconds
    times.answers += answers


def report(options, answerer, ours: Times, straight: Times, trained: int, flops: float, peak: float) -> dict[str, Any]:
    answered = len(ours.answers)
    pairs = list(zip(ours.answers, straight.answers, strict=True))
    equal = sum(a == b for a, b in pairs)
    barred = sum(a != b and b in NEVER_OF_COURSE for a, b in pairs)
    return {
        "device": device_name(),
        "seconds": "of this process" if options.cpu_time else "on the wall",
        "base": "random weights" if options.base == "random" else answerer.base.name,
        "pictures, questions trained on": f"{options.rounds * options.views}, {trained:,}",
        "questions an optimiser step": round(trained / (options.rounds * -(-options.views // options.batch_size)), 1),
        "training, one pass with encoding: ratio": straight.one_pass / ours.one_pass,
        "training, two passes with encoding: ratio": 2 * straight.one_pass / ours.two_passes,
        "training, steps alone: ratio": straight.steps / ours.steps,
        "answering: ratio": straight.answering / ours.answering,
        "answers equal": f"{equal:,} of {answered:,}",
        "answers that differ as only `generate` may say unknown or 0": barred,
        "straightforward training, questions a second": trained / straight.one_pass,
        "our training, one pass with encoding, questions a second": trained / ours.one_pass,
        "our training, steps alone, questions a second": trained / ours.steps,
        "our encoding in one pass, s": ours.encoding,
        "our one pass, s": ours.one_pass,
        "our two passes, s": ours.two_passes,
        "straightforward answering, questions a second": answered / straight.answering,
        "our answering, questions a second": answered / ours.answering,
        "mean loss, straightforward": mean(straight.losses),
        "mean loss, ours": mean(ours.losses),
        "GFLOP a trained question, ours": flops / trained / 1e9,
        "GFLOP a second in our steps": flops / ours.steps / 1e9,
        "matmul peak, GFLOP a second": peak / 1e9,
        "share of the matmul peak in our steps": flops / ours.steps / peak,
    }


def print_profiles(config, frames, pictures, answerer, asked, rows: int) -> None:
    print(profiled("training, one step's pictures", lambda: _one_step(config, frames, pictures), rows))
    print(profiled("answering", lambda: answer_ours(answerer, frames, asked, Times()), rows))


def _one_step(config: FinetuneConfig, frames: FrameSet, pictures: Sequence[TrainingPicture]) -> None:
    finetune(build_trainable(config), config, frames, pictures[: config.batch_size], [])


def profiled(what: str, call: Callable[[], Any], rows: int) -> str:
    kinds = [torch.profiler.ProfilerActivity.CPU]
    key = "self_cpu_time_total"
    if torch.cuda.is_available():
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
        key = "self_cuda_time_total"
    begin = time.perf_counter()
    with torch.profiler.profile(activities=kinds) as profile:
        call()
    table = profile.key_averages().table(sort_by=key, row_limit=rows, max_name_column_width=50)
    return f"\n{what}: {time.perf_counter() - begin:.1f} s under the profiler\n{table}"


if __name__ == "__main__":
    main()
