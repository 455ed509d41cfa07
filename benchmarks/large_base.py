"""What fine-tuning SmolVLM-256M-Instruct costs: memory, time of a step, questions a second, size of the adapter.

    python benchmarks/large_base.py [--base FOLDER_OR_HUB_ID | --size 256M|500M] [--pictures N] [--batch-size N]
        [--rank N] [--by-heart EPOCHS] [--out DIR]

Without --base the published architecture with random weights stands in for it: the cost is the same but for answers,
which are noise that seldom stops, so that answering takes longer than it would. One pass over N bundled training
pictures, each with its questions in one sequence, goes through the functions of notebooks 03 and 04 with the settings
of the profile `gpu`; then as many test pictures are answered. Memory is the most that the GPU's tensors took, or that
this process took where there is no GPU. The share of the matmul peak is the FLOPs of a step, counted by torch, over its
seconds, against the fastest large matrix product of the same run.

--by-heart EPOCHS instead trains that many passes over the same N pictures and says how far the loss falls; the exit
status is 1 where it does not halve.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from flops import counted_flops, matmul_peak, timed

from stkvlm_lib import markdown
from stkvlm_lib.config import PROFILES, ROOT, FinetuneConfig
from stkvlm_lib.data.frame_sets import FrameSet, read_frames
from stkvlm_lib.device import precision_of
from stkvlm_lib.files import write_json
from stkvlm_lib.parameters import make_config
from stkvlm_lib.pretraining.random_smolvlm import TEXT, TEXT_500M, VISION, write_random_smolvlm
from stkvlm_lib.qa.drawn import TrainingPicture
from stkvlm_lib.qa.qa_sets import by_picture, make_records
from stkvlm_lib.qa.training_draw import draw_training
from stkvlm_lib.runs import device_name, peak_memory_mb, set_seeds, set_up_torch
from stkvlm_lib.vlm.answering import AnswerModel
from stkvlm_lib.vlm.finetune import build_trainable, finetune, read_log, trainable_parameters

_FEW = {"num_hidden_layers": 2}
SIZES = {"256M": (TEXT, VISION), "500M": (TEXT_500M, VISION), "tiny": (TEXT | _FEW, VISION | _FEW)}
"""Text model and tower of the stand-ins. `tiny` shows on any machine that this script runs."""


def main() -> int:
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="", help="default: the architecture with random weights")
    parser.add_argument("--size", choices=SIZES, default="256M", help="which architecture, without --base")
    parser.add_argument("--pictures", type=int, default=512 if on_gpu else 4)
    parser.add_argument("--batch-size", type=int, default=16 if on_gpu else 1)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--by-heart", type=int, default=0, metavar="EPOCHS")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "benchmarks" / "large_base")
    options = parser.parse_args()
    set_up_torch()
    set_seeds(0)
    base = options.base or str(random_base(options.out / f"base-{options.size}", options.size))
    figures = by_heart(options, base) if options.by_heart else measure(options, base)
    write_json(options.out / ("by_heart.json" if options.by_heart else "large_base.json"), figures)
    print(markdown.table([{"": name, "measured": value} for name, value in figures.items()], right=True))
    return int(options.by_heart and not figures["halved"])


def random_base(folder: Path, size: str) -> Path:
    text, vision = SIZES[size]
    known = (folder / "config.json").exists()
    return folder if known else write_random_smolvlm(folder, text=text, vision=vision)


def configure(options: argparse.Namespace, base: str, **given: Any) -> FinetuneConfig:
    given |= {
        "BASE_MODEL": base,
        "RUN_DIR": str(options.out),
        "TRAIN_VIEWS": options.pictures,
        "BATCH_SIZE": options.batch_size,
        "LORA_RANK": options.rank,
        "MIRROR": False,
    }
    return make_config(PROFILES["gpu"] | given, FinetuneConfig)


def by_heart(options: argparse.Namespace, base: str) -> dict[str, Any]:
    """How the loss falls on the same few pictures, seen again and again at ten times the profile's rate."""
    config = configure(options, base, EPOCHS=options.by_heart, LEARNING_RATE=2e-3, LORA_DROPOUT=0.0)
    folder = read_frames(config.frames_paths)
    answerer = build_trainable(config)
    finetune(answerer, config, folder, training_pictures(folder, config), [])
    losses = [row["loss"] for row in read_log(options.out) if "loss" in row]
    part = max(1, len(losses) // 10)
    first, last = sum(losses[:part]) / part, sum(losses[-part:]) / part
    return {
        "device": device_name(),
        "base": f"random weights, {options.size}" if not options.base else answerer.base.name,
        "pictures learnt by heart": options.pictures,
        "passes": options.by_heart,
        "loss, first tenth": round(first, 4),
        "loss, last tenth": round(last, 4),
        "halved": last < first / 2,
    }


def measure(options: argparse.Namespace, base: str) -> dict[str, Any]:
    """Each line of the table."""
    config = configure(options, base, EPOCHS=1)
    folder = read_frames(config.frames_paths)
    pictures = training_pictures(folder, config)
    answerer, loading = timed(lambda: build_trainable(config))
    loaded = peak_memory_mb()
    few = pictures[: options.batch_size]
    flops = counted_flops(answerer, lambda: finetune(answerer, config, folder, few, []))
    flops *= sum(len(p.questions) for p in pictures) / sum(len(p.questions) for p in few)
    answerer = build_trainable(config)
    facts = finetune(answerer, config, folder, pictures, [])
    asked, encoding, answering = answer(answerer, folder, options.pictures)
    trainable, every = trainable_parameters(answerer)
    peak = matmul_peak(answerer.dtype)
    return {
        "device": device_name(),
        "computes in": precision_of(answerer.dtype),
        "base": f"random weights, {options.size}" if not options.base else answerer.base.name,
        "parameters, million": f"{(every - trainable) / 1e6:.1f}",
        "trainable parameters, million": f"{trainable / 1e6:.2f}",
        "adapter folder, MB": f"{facts.adapter_mb:.1f}",
        "loading, s": f"{loading:.1f}",
        "peak memory after loading, MB": f"{loaded:,.0f}",
        "peak memory after training, MB": f"{facts.peak_memory_mb:,.0f}",
        "pictures a step": options.batch_size,
        "questions a step": f"{facts.questions / facts.steps:.1f}",
        "training steps": facts.steps,
        "time of a step, s": f"{facts.train_seconds / facts.steps:.2f}",
        "questions a second, training": f"{facts.qa_per_second_train:.1f}",
        "encoding a picture, s": f"{encoding / options.pictures:.3f}",
        "questions a second, answering": f"{asked / (encoding + answering):.1f}",
        "matmul peak, TFLOP a second": f"{peak / 1e12:.3f}",
        "share of the matmul peak in training steps": f"{flops / facts.train_seconds / peak:.1%}",
    }


def training_pictures(folder: FrameSet, config: FinetuneConfig) -> list[TrainingPicture]:
    records = make_records(folder, "train")
    size = {"views": config.train_views, "per_view": config.questions_per_view}
    return list(draw_training(records, folder, **size, mirror=config.mirror, seed=config.seed))


def answer(answerer: AnswerModel, folder: FrameSet, n: int) -> tuple[int, float, float]:
    """Answer all questions about n test pictures together; -> their number, seconds of encoding and of answering."""
    groups = by_picture(make_records(folder, "test"))
    names = list(groups)[:n]
    images = [folder.by_image_file[name].image() for name in names]
    questions = [[record.question for record in groups[name]] for name in names]
    parts = [images[start : start + 32] for start in range(0, n, 32)]
    features, encoding = timed(lambda: torch.cat([answerer.encode(part) for part in parts if part]))
    _, answering = timed(lambda: answerer.answer_encoded(features, questions))
    return sum(map(len, questions)), encoding, answering


if __name__ == "__main__":
    sys.exit(main())
