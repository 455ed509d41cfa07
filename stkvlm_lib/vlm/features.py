"""Image tokens of pictures. The vision tower stays frozen, so they are computed once, whatever is trained on them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.figures.display import progress
from stkvlm_lib.files import whole_file
from stkvlm_lib.vlm.answering import AnswerModel
from stkvlm_lib.vlm.base_vlm import compute_dtype

Picture = tuple[str, bool]
"""A picture's image_file, and whether it is mirrored."""


class FeatureStore:
    """Image tokens of the pictures of one set of frames, in the compute dtype on the CPU: 64 x 576 values, 74 KB in 16
    bit, a picture for SmolVLM-256M.

    folder: where they are kept for other fine-tunings, by the base and its dtype; None: in memory alone. Only one set
    of frames may use a folder, as pictures go by their names.
    """

    def __init__(self, answerer: AnswerModel, frames: FrameSet, batch_size: int, folder: Path | None = None):
        self.answerer, self.frames, self.batch_size = answerer, frames, batch_size
        dtype = str(compute_dtype(answerer.device)).removeprefix("torch.")
        self.folder = folder / f"{answerer.base.sha256[:16]}-{dtype}" if folder else None
        self._known: dict[Picture, torch.Tensor] = {}
        for file in sorted(self.folder.glob("*.safetensors")) if self.folder else ():
            self._known |= _read(file)

    def of(self, pictures: Iterable[Picture], label: str) -> Mapping[Picture, torch.Tensor]:
        """(tokens, D) of each picture; those that are not known yet are encoded, with progress, and kept."""
        pictures = list(dict.fromkeys(pictures))
        if missing := [picture for picture in pictures if picture not in self._known]:
            new = self._encode(missing, label)
            if self.folder:
                _write(new, self.folder / f"{len(self._known):06d}.safetensors")
            self._known |= new
        return {picture: self._known[picture] for picture in pictures}

    def _encode(self, pictures: list[Picture], label: str) -> dict[Picture, torch.Tensor]:
        new: dict[Picture, torch.Tensor] = {}
        for start in progress(range(0, len(pictures), self.batch_size), label):
            chunk = pictures[start : start + self.batch_size]
            images = [self.frames.by_image_file[name].image(mirrored) for name, mirrored in chunk]
            new.update(zip(chunk, self.answerer.encode(images).cpu(), strict=True))
        return new


def _write(features: Mapping[Picture, torch.Tensor], path: Path) -> None:
    """One tensor (N, tokens, D), and which pictures they are of as metadata."""
    with whole_file(path) as part:
        tensors = {"features": torch.stack(list(features.values()))}
        save_file(tensors, part, metadata={"pictures": json.dumps(list(features))})


def _read(path: Path) -> dict[Picture, torch.Tensor]:
    with safe_open(path, "pt") as file:
        pictures = [(name, mirrored) for name, mirrored in json.loads(file.metadata()["pictures"])]
        return dict(zip(pictures, file.get_tensor("features"), strict=True))
