"""Training and answering against the straightforward loop, on the same base, pictures, questions, steps and machine.

    python benchmarks/straight_loop.py [--base NAME_OR_FOLDER] [--views N] [--batch-size N] [--rounds N] [--out FILE]

The straightforward loop is what Transformers and PEFT give by themselves: the Trainer on one question a sequence, whose
picture is processed and encoded each time it is asked about, with as many questions in an optimiser step as this
project has on average; and `generate`, a question at a time. Both sides train the same fresh adapter on the same
4-bit base and take turns, each round on pictures of its own. Ratios are of questions a second. "With encoding" is the
wall time of all that `finetune` does, saving included; a second pass of the straightforward loop costs what its first
does. On a machine that others use give it one thread (OMP_NUM_THREADS=1) and --cpu-time, which counts the seconds that
this process computes; our steps alone are then what two passes take over one.

The share of the matmul peak is the FLOPs that training computes (counted by torch in the warm-up, padding and masked
attention included) over its seconds, against the fastest large matrix product of the same run. `--base random` takes
SmolVLM-256M-Instruct's architecture with random weights. `--profile N` prints where our training and answering spend
their time, the N dearest operators.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from flops import counted_flops, matmul_peak, timed
from large_base import random_base
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainingArguments

from stkvlm_lib import markdown
from stkvlm_lib.config import ROOT, FinetuneConfig, make_config
from stkvlm_lib.data.frame_sets import FrameSet, read_frames
from stkvlm_lib.files import write_json
from stkvlm_lib.grammar.spelling import plain
from stkvlm_lib.grammar.wordings import UNKNOWN
from stkvlm_lib.qa.qa_sets import by_picture, make_records
from stkvlm_lib.qa.training_draw import TrainingPicture, draw_training
from stkvlm_lib.runs import device_name, set_seeds, set_up_torch
from stkvlm_lib.vlm.adapter import load_answerer
from stkvlm_lib.vlm.answering import MAX_ANSWER_TOKENS, AnswerModel
from stkvlm_lib.vlm.base_vlm import compute_dtype
from stkvlm_lib.vlm.finetune import build_trainable, finetune, read_log
from stkvlm_lib.vlm.packing import IGNORE

MICRO_BATCH = 8
"""About how many sequences the straightforward loop reads at once; an optimiser step gathers several of them."""


@dataclass
class Times:
    """Seconds of one side, summed over the rounds; losses: mean training loss of each round's first pass.

    cpu: whether they are those that this process computed, not those on the wall.
    """

    cpu: bool = False
    one_pass: float = 0.0
    two_passes: float = 0.0
    encoding: float = 0.0
    steps: float = 0.0
    answering: float = 0.0
    losses: list[float] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)


def main() -> None:
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="", help="default: the embedded one; `random`: see above")
    parser.add_argument("--views", type=int, default=64 if on_gpu else 24, help="pictures a round, for each part")
    parser.add_argument("--answer-views", type=int, default=16, help="pictures a round for answering, where fewer")
    parser.add_argument("--batch-size", type=int, default=16 if on_gpu else 8, help="pictures an optimiser step")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true", help="seconds of this process instead of those on the wall")
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
    flops = warm_up(config, frames, train[0], options.batch_size)
    peak = matmul_peak(cpu=options.cpu_time)
    ours, straight = Times(options.cpu_time), Times(options.cpu_time)
    for number in range(options.rounds):
        sides = [
            lambda i=number: train_ours(config, frames, train[i], ours),
            lambda i=number: train_straight(config, frames, train[i], straight),
        ]
        for side in sides[:: -1 if number % 2 else 1]:
            side()
    if options.cpu_time:  # the trainings' own clock is the wall's
        ours.steps = ours.two_passes - ours.one_pass
    answerer = answer_model(config)
    for number in range(options.rounds):
        sides = [
            lambda i=number: answer_ours(answerer, frames, test[i], ours),
            lambda i=number: answer_straight(answerer, frames, test[i], straight),
        ]
        for side in sides[:: -1 if number % 2 else 1]:
            side()
    if options.profile:
        print_profiles(config, frames, train[0], answerer, test[0], options.profile)
    trained = sum(len(picture.questions) for group in train for picture in group)
    counted = flops / sum(len(picture.questions) for picture in train[0][: options.batch_size]) * trained
    return report(options, answerer, ours, straight, trained, counted, peak)


def draw(frames: FrameSet, options: argparse.Namespace) -> tuple[list, list]:
    """Pictures with questions for each round: to train on, and (picture, questions) to answer."""
    n = options.rounds * options.views
    drawn = draw_training(
        make_records(frames, "train"), frames, views=n, per_view=12, mirror=False, seed=0, worded_per_view=4
    )
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
    return make_config(given | {"EVALUATIONS": 1}, FinetuneConfig)


def warm_up(config: FinetuneConfig, frames: FrameSet, pictures: Sequence[TrainingPicture], n: int) -> int:
    """One step of each side, so that nothing is loaded or compiled later; -> FLOPs of our step, encoding left out."""
    train_straight(config, frames, pictures[:1], Times())
    answerer = build_trainable(config)
    return counted_flops(answerer, lambda: finetune(answerer, config, frames, pictures[:n], []))


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


class Questions(Dataset):
    """One item a question: its picture, itself, its answer."""

    def __init__(self, frames: FrameSet, pictures: Sequence[TrainingPicture]):
        self.frames = frames
        self.items = [(p, q, a) for p in pictures for q, a in zip(p.questions, p.answers, strict=True)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Any, str, str]:
        picture, question, answer = self.items[index]
        return self.frames.by_image_file[picture.image_file].image(picture.mirrored), question, answer


class StraightCollator:
    """Pictures and texts through the processor, the loss on the answers and their stop tokens."""

    def __init__(self, processor):
        self.processor = processor
        processor.tokenizer.padding_side = "right"

    def __call__(self, items: Sequence[tuple[Any, str, str]]) -> dict[str, torch.Tensor]:
        answers = [f" {answer}<end_of_utterance>" for _, _, answer in items]
        texts = [chat(self.processor, item[1]) + answer for item, answer in zip(items, answers, strict=True)]
        batch = self.processor(text=texts, images=[[item[0]] for item in items], padding=True, return_tensors="pt")
        labels = torch.full_like(batch["input_ids"], IGNORE)
        for row, answer in enumerate(answers):
            end = int(batch["attention_mask"][row].sum())
            begin = end - len(self.processor.tokenizer.encode(answer, add_special_tokens=False))
            labels[row, begin:end] = batch["input_ids"][row, begin:end]
        return {**batch, "labels": labels}


def chat(processor, question: str) -> str:
    content = [{"type": "image"}, {"type": "text", "text": plain(question)}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


def train_straight(config: FinetuneConfig, frames: FrameSet, pictures: Sequence[TrainingPicture], times: Times) -> None:
    """One pass of the Trainer over the questions of the pictures, one a sequence."""
    answerer, data = build_trainable(config), Questions(frames, pictures)
    steps = -(-len(pictures) // config.batch_size)
    gathered = max(1, round(len(data) / steps / MICRO_BATCH))
    dtype = compute_dtype(answerer.device)
    arguments = TrainingArguments(
        output_dir=str(config.run_path / "straight"),
        num_train_epochs=1,
        per_device_train_batch_size=-(-len(data) // (steps * gathered)),
        gradient_accumulation_steps=gathered,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        bf16=dtype is torch.bfloat16,
        fp16=dtype is torch.float16,
        use_cpu=answerer.device.type == "cpu",
        logging_steps=1,
        save_strategy="no",
        seed=config.seed,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to=[],
    )
    collator = StraightCollator(answerer.processor)
    trainer = Trainer(answerer.model, arguments, data_collator=collator, train_dataset=data)
    trainer.remove_callback(PrinterCallback)
    _, seconds = timed(trainer.train, cpu=times.cpu)
    times.one_pass += seconds
    times.steps += seconds
    times.losses.append(mean(row["loss"] for row in trainer.state.log_history if "loss" in row))


def answer_model(config: FinetuneConfig) -> AnswerModel:
    """The adapter that the last of our trainings has saved."""
    return load_answerer(config.run_path / "adapter", config.base_model or None)


def answer_ours(answerer: AnswerModel, frames: FrameSet, asked: Sequence[tuple[str, list[str]]], times: Times) -> None:
    def answer() -> list[str]:
        features = answerer.encode([frames.by_image_file[name].image() for name, _ in asked])
        given = answerer.answer_encoded(features, [questions for _, questions in asked])
        return [answer.text for group in given for answer in group]

    answers, seconds = timed(answer, cpu=times.cpu)
    times.answering += seconds
    times.answers += answers


def answer_straight(answerer: AnswerModel, frames: FrameSet, asked: Sequence, times: Times) -> None:
    """Each question by itself through the processor and `generate`."""
    processor, model, written = answerer.processor, answerer.model, []

    def answer(image, question: str) -> str:
        inputs = processor(text=chat(processor, question), images=[image], return_tensors="pt").to(answerer.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(compute_dtype(answerer.device))
        new = model.generate(
            **inputs,
            max_new_tokens=MAX_ANSWER_TOKENS,
            do_sample=False,
            use_cache=True,
            eos_token_id=answerer.prompt.stop_id,
            pad_token_id=processor.tokenizer.pad_token_id,
        )[0, inputs["input_ids"].shape[1] :]
        return processor.tokenizer.decode(new, skip_special_tokens=True).strip()

    def answer_all() -> None:
        for name, questions in asked:
            written.extend(answer(frames.by_image_file[name].image(), question) for question in questions)

    with torch.inference_mode():
        _, seconds = timed(answer_all, cpu=times.cpu)
    times.answering += seconds
    times.answers += written


def report(options, answerer, ours: Times, straight: Times, trained: int, flops: float, peak: float) -> dict[str, Any]:
    answered = len(ours.answers)
    pairs = list(zip(ours.answers, straight.answers, strict=True))
    equal = sum(a == b for a, b in pairs)
    unknown = sum(a != b == UNKNOWN for a, b in pairs)
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
        "answers that differ as only `generate` may say unknown": unknown,
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
