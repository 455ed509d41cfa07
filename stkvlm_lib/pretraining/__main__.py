"""Train the embedded base from scratch: `python -m stkvlm_lib.pretraining --frames frames GAME COURSE --out FOLDER`.

Two stages on train races only: the vision tower on dense labels of parts of pictures, then the whole model on short
prompts (the questions in words stay for QLoRA). Interrupt it at any time; the same command goes on from its last
checkpoint.
"""

import argparse
from pathlib import Path

import torch
from torch import nn

from stkvlm_lib.pretraining.embedded import build_model, build_processor
from stkvlm_lib.pretraining.language_stage import LanguageStage
from stkvlm_lib.pretraining.pictures import Pictures
from stkvlm_lib.pretraining.training import CheckpointError, StageConfig, StageTraining
from stkvlm_lib.pretraining.vision_stage import VisionStage
from stkvlm_lib.runs import set_up_hub, set_up_torch
from stkvlm_lib.vlm.base_vlm import pick_device

VISION_STEPS, LANGUAGE_STEPS = 2900, 2900
VISION_BATCH, LANGUAGE_BATCH = 512, 256
LANGUAGE_FALLING = 0.6
"""The learning rates fall over this share of the second stage; the first hands over at full rate."""


def pretrain(
    folders: list[str],
    shares: list[float] | None,
    work: Path,
    vision: StageConfig,
    language: StageConfig,
    *,
    fast: bool = False,
    workers: int = 0,
) -> tuple[nn.Module, object]:
    """Both stages, each from its checkpoint in `work` if there is one -> (model, processor).

    folders: data folders with train/, the first with valid/ too; shares: of each in a batch; fast: compile the tower;
    workers: processes that prepare batches.
    """
    device = pick_device()
    torch.manual_seed(vision.seed)
    processor = build_processor()
    model = build_model(processor).to(device)
    train, valid = Pictures(folders, shares).to(device), Pictures(folders[:1], split="valid").to(device)
    print(f"{len(train):,} train pictures", flush=True)
    tower = model.model.vision_model
    if fast:
        for layer in tower.encoder.layers:
            layer.compile()
    eyes = VisionStage(tower)
    eyes.heads.to(device)
    StageTraining(eyes, vision).run(train, valid, work, "vision", workers=workers)
    stage = LanguageStage(model, processor, eyes.heads)
    StageTraining(stage, language).run(train, valid, work, "language", workers=workers)
    return model, processor


def export(model: nn.Module, processor, folder: Path) -> None:
    """Model (fp16 safetensors), tokenizer, processor and chat template in the Hugging Face layout."""
    processor.save_pretrained(folder)
    half = build_model(processor)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", nargs="+", default=["frames"], help="data folders; the first has valid/ too")
    parser.add_argument("--shares", nargs="+", type=float, help="of each folder in a batch (default: the same of all)")
    parser.add_argument("--out", type=Path, default=Path("models/embedded"), help="where the finished model goes")
    parser.add_argument("--work", type=Path, default=Path("outputs/pretrain"), help="checkpoints and log")
    parser.add_argument("--vision-steps", type=int, default=VISION_STEPS)
    parser.add_argument("--language-steps", type=int, default=LANGUAGE_STEPS)
    parser.add_argument("--vision-batch", type=int, default=VISION_BATCH)
    parser.add_argument("--language-batch", type=int, default=LANGUAGE_BATCH)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="faster after a minute; needs a C++ compiler")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare batches; worth it with a GPU")
    args = parser.parse_args()
    set_up_torch()
    set_up_hub("")
    vision = StageConfig(args.vision_steps, args.vision_batch, seed=args.seed)
    language = StageConfig(args.language_steps, args.language_batch, falling=LANGUAGE_FALLING, seed=args.seed)
    try:
        given = (args.frames, args.shares, args.work, vision, language)
        model, processor = pretrain(*given, fast=args.compile, workers=args.workers)
    except (CheckpointError, ValueError) as error:
        parser.exit(1, f"error: {error}\n")
    export(model, processor, args.out)


if __name__ == "__main__":
    main()
