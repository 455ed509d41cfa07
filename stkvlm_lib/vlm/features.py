"""Image tokens of pictures: computed once where no training changes how pictures are seen, and shared between runs.

They are kept in outputs/.features, or where STKVLM_FEATURES says (0: nowhere), by base, dtype, the way pictures are
prepared, and the bytes of each picture's file. The folder may be removed at any time while nothing runs; what is
missing is encoded again.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import PIL
import torch

from stkvlm_lib import runs
from stkvlm_lib.config import resolve
from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.progress import progress
from stkvlm_lib.vlm.answering import AnswerModel
from stkvlm_lib.vlm.feature_files import KEY_BYTES, FeatureFiles

Picture = tuple[str, bool]
"""A picture's image_file, and whether it is mirrored."""
LIMIT_MB = 1000
"""What a store without a folder keeps in memory of the pictures that pass through it."""
_NOWHERE = ("0", "off", "false", "no")


def shared_folder() -> Path | None:
    """Where runs share image tokens; None where the environment does without."""
    given = os.environ.get("STKVLM_FEATURES", "")
    if given.lower() in _NOWHERE:
        return None
    return resolve(given) if given else runs.OUTPUTS / ".features"


class FeatureStore:
    """Image tokens of the pictures of one set of frames, in the compute dtype on the CPU: 64 x 576 values, 74 KB in 16
    bit, a picture for SmolVLM-256M.

    folder: where they are kept for other runs, see `shared_folder`; None, or a model whose adapter takes part in them:
    in memory alone. limit_mb: how many MB (10^6 bytes) stay there; what `batches` encodes beyond is encoded each time,
    while what `in_order` and `encode` are asked for stays whatever it takes.
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
        self.on_disk = folder is not None and not answerer.adapter_sees
        self._kept = FeatureFiles(folder / _way_of(answerer)) if self.on_disk else FeatureMemory()
        self._room = math.inf if self.on_disk else limit_mb * 1e6  # bytes

    def in_order(self, pictures: Sequence[Picture], label: str) -> "TokensInOrder":
        """(tokens, D) of each picture, of which there may be more than fit into memory where there is a folder; those
        not known yet are encoded, with progress."""
        return TokensInOrder(self._kept, self._kept.find(self.encode(pictures, label)))

    def encode(self, pictures: Sequence[Picture], label: str) -> np.ndarray:
        """Encode those not known yet, and keep all of them; -> the keys of all."""
        keys = self._keys(pictures)
        self._kept.flush()
        _, first = np.unique(keys, return_index=True)
        first.sort()
        missing = first[self._kept.find(keys[first]) < 0]
        try:
            for chunk in self._chunks(missing, label):
                self._keep(keys[chunk], self._encode([pictures[i] for i in chunk]))
        finally:  # what was encoded stays, also where an error or interrupt comes in between
            self._kept.flush()
        return keys

    def batches(self, pictures: Iterable[Picture], label: str = "") -> Iterator[tuple[list[Picture], torch.Tensor]]:
        """Pictures, each once, in batches with their tokens (B, tokens, D) on the model's device; with progress where
        there is a label."""
        for chunk in self._chunks(list(dict.fromkeys(pictures)), label):
            yield chunk, self._of_batch(chunk).to(self.answerer.device)
        self._kept.flush()

    def base_features(self, pictures: Sequence[Picture], features: torch.Tensor) -> torch.Tensor:
        """The tokens that the base alone has of a batch: `features`, where the adapter takes no part in them."""
        if not self.answerer.adapter_sees:
            return features
        with self.answerer.without_adapter():
            return self._encode(pictures).to(features.device)

    def _of_batch(self, chunk: Sequence[Picture]) -> torch.Tensor:
        keys = self._keys(chunk)
        places = self._kept.find(keys)
        tokens = {i: self._kept.read(place) for i, place in enumerate(places) if place >= 0}
        missing = np.flatnonzero(places < 0)
        if len(missing):
            new = self._encode([chunk[i] for i in missing])
            if new.nbytes <= self._room:  # a batch stays whole, as its pictures share their memory, or not at all
                self._keep(keys[missing], new)
            tokens.update(zip(missing, new, strict=True))
        return torch.stack([tokens[i] for i in range(len(chunk))])

    def _keep(self, keys: np.ndarray, tokens: torch.Tensor) -> None:
        self._room -= tokens.nbytes
        self._kept.add(keys, tokens)

    def _encode(self, pictures: Sequence[Picture]) -> torch.Tensor:
        images = [self.frames.by_image_file[name].image(mirrored) for name, mirrored in pictures]
        return self.answerer.encode(images).cpu()

    def _keys(self, pictures: Sequence[Picture]) -> np.ndarray:
        return np.fromiter(map(self._key, pictures), f"S{KEY_BYTES}", len(pictures))

    def _key(self, picture: Picture) -> bytes:
        """Of the bytes of a picture's file, and whether it is mirrored."""
        name, mirrored = picture
        view = self.frames.by_image_file[name]
        try:
            data = view.image_path.read_bytes()
        except OSError:
            view.image()  # raises with what to do
            raise
        return hashlib.blake2b(data, digest_size=KEY_BYTES, person=b"mirrored" if mirrored else b"").digest()

    def _chunks(self, items: Sequence, label: str) -> Iterator[Sequence]:
        starts = range(0, len(items), self.batch_size)
        for start in progress(starts, label) if label and starts else starts:
            yield items[start : start + self.batch_size]


class FeatureMemory:
    """What FeatureFiles does, in memory alone."""

    def __init__(self):
        self._places: dict[bytes, int] = {}
        self._tokens: list[torch.Tensor] = []

    def find(self, keys: np.ndarray) -> np.ndarray:
        return np.array([self._places.get(key, -1) for key in keys.tolist()], np.int64)

    def read(self, place: int) -> torch.Tensor:
        return self._tokens[place]

    def add(self, keys: np.ndarray, tokens: torch.Tensor) -> None:
        self._places |= {key: len(self._tokens) + i for i, key in enumerate(keys.tolist())}
        self._tokens += tokens

    def flush(self) -> None:
        """Nothing waits to be written."""


class TokensInOrder(Sequence):
    """Tokens (tokens, D) of pictures by number, read as they are asked for."""

    def __init__(self, kept: FeatureFiles | FeatureMemory, places: np.ndarray):
        self._kept, self._places = kept, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self._kept.read(self._places[index])


def _way_of(answerer: AnswerModel) -> str:
    """Names what decides the tokens of a picture: the base, its dtype, and how pictures are prepared and decoded."""
    dtype = str(answerer.dtype).removeprefix("torch.")
    prepared = {"pillow": PIL.__version__, **answerer.processor.image_processor.to_dict()}
    way = hashlib.sha256(json.dumps(prepared, sort_keys=True, default=str).encode()).hexdigest()
    return f"{answerer.base.sha256[:16]}-{dtype}-{way[:8]}"
