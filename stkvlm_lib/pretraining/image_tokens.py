"""Pictures as a frozen tower sees them: drawn and encoded once, kept on disk, learnt from many times."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from stkvlm_lib.files import whole_file
from stkvlm_lib.grammar.scene import COURSE_RULES, RuleSet, Scene
from stkvlm_lib.pretraining.pictures import Batch, Pictures

CHUNK = 64
"""Pictures in a file."""
Encode = Callable[[torch.Tensor], torch.Tensor]
"""Pixels (B, 3, INPUT_SIZE, INPUT_SIZE) in 0..1 -> image tokens (B, tokens, D)."""


class EncodedPictures:
    """Pictures of a split, altered or not, with the image tokens that a frozen tower makes of each.

    To a training it is what `Pictures` is, with image tokens in place of pixels.
    """

    def __init__(self, pictures: Pictures, batches: list[Batch], tokens: torch.Tensor):
        self.pictures, self.tokens = pictures, tokens
        self._where = [(batch, i) for batch in batches for i in range(len(batch))]
        self._scenes: dict[tuple[int, str], Scene] = {}

    def __len__(self) -> int:
        return len(self._where)

    def draw(self, seed: int, step: int, size: int) -> Batch:
        """The batch of a step: the same for the same seed and step."""
        rng = np.random.default_rng((seed, step))
        return Batch(rng.choice(len(self), size, replace=False), int(rng.integers(1 << 62)))

    def in_order(self, size: int) -> Iterator[Batch]:
        """All of them in batches."""
        for start in range(0, len(self), size):
            yield Batch(np.arange(start, min(start + size, len(self))), start)

    def scenes(self, drawn: Batch, rules: RuleSet = COURSE_RULES) -> list[Scene]:
        """What the pictures of a batch show, in their order."""
        return [self._scene(int(i), rules) for i in drawn.indices]

    def _scene(self, index: int, rules: RuleSet) -> Scene:
        if (index, rules.name) not in self._scenes:
            batch, i = self._where[index]
            self._scenes[index, rules.name] = self.pictures.scene(batch, i, rules)
        return self._scenes[index, rules.name]

    def show(self, drawn: Batch) -> torch.Tensor:
        """(B, tokens, D) float."""
        return self.tokens[torch.from_numpy(drawn.indices)].float()


def encode_drawn(pictures: Pictures, encode: Encode, n: int, seed: int, folder: Path) -> EncodedPictures:
    """At least n augmented pictures, drawn by seed. What `folder` holds already is not encoded again."""
    batches = [pictures.draw(seed, chunk, CHUNK) for chunk in range(-(-n // CHUNK))]
    return EncodedPictures(pictures, batches, _encode(pictures, encode, batches, folder / f"seed-{seed}"))


def encode_all(pictures: Pictures, encode: Encode, folder: Path) -> EncodedPictures:
    """Every picture unaltered."""
    batches = list(pictures.in_order(CHUNK))
    return EncodedPictures(pictures, batches, _encode(pictures, encode, batches, folder / "unaltered"))


@torch.inference_mode()
def _encode(pictures: Pictures, encode: Encode, batches: list[Batch], folder: Path) -> torch.Tensor:
    """(pictures, tokens, D) in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    chunks = []
    for number, batch in enumerate(batches):
        path = folder / f"{number:05d}.safetensors"
        if not path.exists():
            with whole_file(path) as part:
                save_file({"tokens": encode(pictures.show(batch)).half().contiguous()}, part)
            if number % 20 == 0:
                print(f"encoded {number + 1:,} of {len(batches):,} batches of {CHUNK} pictures", flush=True)
        chunks.append(load_file(path)["tokens"])
    return torch.cat(chunks)
