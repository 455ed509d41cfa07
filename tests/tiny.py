"""A small random base of the embedded class in the Hugging Face layout, and a few bundled frames."""

import shutil
from pathlib import Path

import torch

from stkvlm_lib.config import ROOT
from stkvlm_lib.embedded import build_model, build_processor


def make_base(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    processor = build_processor()
    build_model(processor).half().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def copy_frames(folder: Path, split: str, n: int, into: str | None = None) -> Path:
    """The first n frames of a bundled split, `into` a split of their own or flat (into="")."""
    target = folder / (split if into is None else into)
    target.mkdir(parents=True, exist_ok=True)
    for info in sorted((ROOT / "frames" / split).glob("*_info.json"))[:n]:
        for file in info.parent.glob(info.name.removesuffix("_info.json") + "_*"):
            shutil.copy(file, target)
    return folder
