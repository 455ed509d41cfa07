"""What fine-tuning SmolVLM-256M-Instruct costs: memory, time of a step, questions a second, size of the adapter.

    python benchmarks/large_base.py [--base FOLDER_OR_HUB_ID] [--pictures N] [--batch-size N] [--rank N] [--out DIR]

Without --base its published architecture with random weights stands in for it: the cost is the same but for answers,
which are noise that seldom stops, so that answering takes longer than it would. One pass over N bundled training
pictures, each with its questions in one sequence, goes through the functions of notebooks 03 and 04 with the settings
of the profile `gpu`; then as many test pictures are answered. Memory is the most that the GPU's tensors took, or that
this process took where there is no GPU.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from stkvlm_lib import markdown
from stkvlm_lib.config import PROFILES, ROOT, FinetuneConfig, make_config
from stkvlm_lib.data.frame_sets import FrameSet, read_frames
from stkvlm_lib.files import write_json
from stkvlm_lib.pretraining.random_smolvlm import write_random_smolvlm
from stkvlm_lib.qa.drawn import TrainingPicture
from stkvlm_lib.qa.qa_sets import by_picture, make_records
from stkvlm_lib.qa.training_draw import draw_training
from stkvlm_lib.runs import device_name, peak_memory_mb, set_seeds, set_up_torch
from stkvlm_lib.vlm.answering import AnswerModel
from stkvlm_lib.vlm.finetune import build_trainable, finetune, trainable_parameters


def main() -> None:
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="", help="default: the architecture with random weights")
    parser.add_argument("--pictures", type=int, default=512 if on_gpu else 4)
    parser.add_argument("--batch-size", type=int, default=16 if on_gpu else 1)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "benchmarks" / "large_base")
    options = parser.parse_args()
    set_up_torch()
    set_seeds(0)
    figures = measure(options, options.base or str(random_base(options.out / "base")))
    write_json(options.out / "large_base.json", figures)
    print(markdown.table([{"": name, "measured": value} for name, value in figures.items()], right=True))


def random_base(folder: Path) -> Path:
    return folder if (folder / "config.json").exists() else write_random_smolvlm(folder)


def measure(options: argparse.Namespace, base: str) -> dict[str, Any]:
    """Each line of the table."""
    given = {
        "BASE_MODEL": base,
        "RUN_DIR": str(options.out),
        "TRAIN_VIEWS": options.pictures,
        "BATCH_SIZE": options.batch_size,
        "LORA_RANK": options.rank,
        "EPOCHS": 1,
        "MIRROR": False,
    }
    config = make_config(PROFILES["gpu"] | given, FinetuneConfig)
    folder = read_frames(config.frames_paths)
    answerer, loading = timed(lambda: build_trainable(config))
    loaded = peak_memory_mb()
    facts = finetune(answerer, config, folder, training_pictures(folder, config), [])
    asked, encoding, answering = answer(answerer, folder, options.pictures)
    trainable, every = trainable_parameters(answerer)
    return {
        "device": device_name(),
        "base": "random weights" if not options.base else answerer.base.name,
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
    features, encoding = timed(lambda: answerer.encode(images))
    _, answering = timed(lambda: answerer.answer_encoded(features, questions))
    return sum(map(len, questions)), encoding, answering


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns and the seconds that it took, the GPU's work included."""
    begin = time.perf_counter()
    value = call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return value, time.perf_counter() - begin


if __name__ == "__main__":
    main()
