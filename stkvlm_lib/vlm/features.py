"""Image tokens of pictures. The vision tower stays frozen, so they are computed once, whatever is trained on them."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.files import whole_file
from stkvlm_lib.progress import progress
from stkvlm_lib.vlm.answering import AnswerModel
from stkvlm_lib.vlm.base_vlm import compute_dtype

Picture = tuple[str, bool]
"""A picture's image_file, and whether it is mirrored."""
LIMIT_MB = 1000
"""What a store keeps in memory of the pictures that pass through it: 13,000 pictures for SmolVLM-256M in 16 bit."""


class FeatureStore:
    """Image tokens of the pictures of one set of frames, in the compute dtype on the CPU: 64 x 576 values, 74 KB in 16
    bit, a picture for SmolVLM-256M.

    folder: where `of` keeps them for other fine-tunings, by the base and its dtype; None: in memory alone. Only one set
    of frames may use a folder, as pictures go by their names.
    limit_mb: how many MB (10^6 bytes) of what `batches` encodes stay in memory; what comes after is encoded each time.
    """

    def __init__(
        self,
        answerer: AnswerModel,
        frames: FrameSet,
        batch_size: int,
        folder: Path | None = None,
        limit_mb: float = LIMIT_MB,
    ):
        self.answerer, self.frames, self.batch_size = answerer, frames, batch_size
        self.folder = folder / _base_and_dtype(answerer) if folder else None
        self._room = int(limit_mb * 1e6)  # bytes
        self._known: dict[Picture, torch.Tensor] = {}
        for file in sorted(self.folder.glob("*.safetensors")) if self.folder else ():
            self._known |= _read(file)

    def of(self, pictures: Iterable[Picture], label: str) -> Mapping[Picture, torch.Tensor]:
        """(tokens, D) of each picture, all at once; those not known yet are encoded, with progress, and all kept."""
        pictures = list(dict.fromkeys(pictures))
        if missing := [picture for picture in pictures if picture not in self._known]:
            new: dict[Picture, torch.Tensor] = {}
            for chunk in self._chunks(missing, label):
                new |= self._encode(chunk)
            if self.folder:
                _write(new, self.folder / f"{len(self._known):06d}.safetensors")
            self._known |= new
        return {picture: self._known[picture] for picture in pictures}

    def batches(self, pictures: Iterable[Picture], label: str) -> Iterator[tuple[list[Picture], torch.Tensor]]:
        """Pictures, each once, in batches with their tokens (B, tokens, D) on the model's device, with progress."""
        for chunk in self._chunks(list(dict.fromkeys(pictures)), label):
            new = self._encode([picture for picture in chunk if picture not in self._known])
            features = [new[picture] if picture in new else self._known[picture] for picture in chunk]
            self._keep(new)
            yield chunk, torch.stack(features).to(self.answerer.device)

    def _chunks(self, pictures: Sequence[Picture], label: str) -> Iterator[list[Picture]]:
        for start in progress(range(0, len(pictures), self.batch_size), label):
            yield list(pictures[start : start + self.batch_size])

    def _encode(self, pictures: Sequence[Picture]) -> dict[Picture, torch.Tensor]:
        if not pictures:
            return {}
        images = [self.frames.by_image_file[name].image(mirrored) for name, mirrored in pictures]
        return dict(zip(pictures, self.answerer.encode(images).cpu(), strict=True))

    def _keep(self, new: Mapping[Picture, torch.Tensor]) -> None:
        """A batch stays whole, as its pictures share their memory, or not at all."""
        size = sum(tokens.nbytes for tokens in new.values())
        if size <= self._room:
            self._room -= size
            self._known |= new


def _base_and_dtype(answerer: AnswerModel) -> str:
    dtype = str(compute_dtype(answerer.device)).removeprefix("torch.")
    return f"{answerer.base.sha256[:16]}-{dtype}"


def _write(features: Mapping[Picture, torch.Tensor], path: Path) -> None:
    """One tensor (N, tokens, D), and which pictures they are of as metadata."""
    with whole_file(path) as part:
        tensors = {"features": torch.stack(list(features.values()))}
        save_file(tensors, part, metadata={"pictures": json.dumps(list(features))})


def _read(path: Path) -> dict[Picture, torch.Tensor]:
    with safe_open(path, "pt") as file:
        pictures = [(name, mirrored) for name, mirrored in json.loads(file.metadata()["pictures"])]
        return dict(zip(pictures, file.get_tensor("features"), strict=True))
