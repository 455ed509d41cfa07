"""Image tokens of pictures: computed once where no training changes how pictures are seen, and shared between runs.

They are kept in outputs/.features, or where STKVLM_FEATURES says (0: nowhere), by base, dtype, the way pictures are
prepared, and the bytes of each picture's file. The folder may be removed at any time while nothing runs; what is
missing is encoded again.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import PIL
import torch

from stkvlm_lib import runs
from stkvlm_lib.config import resolve
from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.progress import progress
from stkvlm_lib.vlm.answering import AnswerModel
from stkvlm_lib.vlm.base_vlm import compute_dtype
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
    in memory alone. limit_mb: how many MB (10^6 bytes) of what `batches` encodes stay there; what comes after is
    encoded each time.
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
        self.files = FeatureFiles(folder / _way_of(answerer)) if folder and not answerer.adapter_sees else None
        self._room = int(limit_mb * 1e6)  # bytes
        self._known: dict[Picture, torch.Tensor] = {}

    def of(self, pictures: Iterable[Picture], label: str) -> Mapping[Picture, torch.Tensor]:
        """(tokens, D) of each picture; those not known yet are encoded, with progress, and all kept."""
        pictures = list(dict.fromkeys(pictures))
        return _ByPicture(pictures, self.in_order(pictures, label))

    def in_order(self, pictures: Sequence[Picture], label: str) -> Sequence[torch.Tensor]:
        """The same for a sequence of any length, which need not lie in memory: its tokens are read as they are asked
        for."""
        if not self.files:
            self.encode(pictures, label)
            return _InMemory(pictures, self._known)
        keys = self.encode(pictures, label)
        return _OnDisk(self.files, self.files.find(keys))

    def encode(self, pictures: Sequence[Picture], label: str) -> np.ndarray:
        """Encode those not known yet; -> the keys of all, by which files know them (empty without files)."""
        if not self.files:
            missing = dict.fromkeys(picture for picture in pictures if picture not in self._known)
            for chunk in self._chunks(list(missing), label):
                self._known |= self._encode(chunk)
            return np.empty(0)
        keys = np.fromiter((self._key(picture) for picture in pictures), f"S{KEY_BYTES}", len(pictures))
        self._encode_missing(keys, pictures, label)
        return keys

    def batches(self, pictures: Iterable[Picture], label: str = "") -> Iterator[tuple[list[Picture], torch.Tensor]]:
        """Pictures, each once, in batches with their tokens (B, tokens, D) on the model's device; with progress where
        there is a label."""
        for chunk in self._chunks(list(dict.fromkeys(pictures)), label):
            features = self._of_batch(chunk) if self.files else self._of_batch_in_memory(chunk)
            yield chunk, torch.stack(features).to(self.answerer.device)
        if self.files:
            self._flush()

    def base_features(self, pictures: Sequence[Picture], features: torch.Tensor) -> torch.Tensor:
        """The tokens that the base alone has of a batch: `features`, where the adapter takes no part in them."""
        if not self.answerer.adapter_sees:
            return features
        with self.answerer.without_adapter():
            return torch.stack(list(self._encode(pictures).values())).to(features.device)

    def _of_batch(self, chunk: Sequence[Picture]) -> list[torch.Tensor]:
        keys = np.array([self._key(picture) for picture in chunk], f"S{KEY_BYTES}")
        places = self.files.find(keys)
        new = self._encode([picture for picture, place in zip(chunk, places, strict=True) if place < 0])
        if new:
            self.files.add([self._key(picture) for picture in new], torch.stack(list(new.values())))
        return [
            new[picture] if place < 0 else self.files.read(place) for picture, place in zip(chunk, places, strict=True)
        ]

    def _of_batch_in_memory(self, chunk: Sequence[Picture]) -> list[torch.Tensor]:
        new = self._encode([picture for picture in chunk if picture not in self._known])
        features = [new[picture] if picture in new else self._known[picture] for picture in chunk]
        self._keep(new)
        return features

    def _encode_missing(self, keys: np.ndarray, pictures: Sequence[Picture], label: str) -> None:
        """What is encoded stays, also where an error or interrupt comes in between."""
        _, first = np.unique(keys, return_index=True)
        missing = np.sort(first)[self.files.find(keys[np.sort(first)]) < 0]
        try:
            for chunk in self._chunks(missing, label):
                tokens = self._encode([pictures[i] for i in chunk])
                self.files.add([_padded(keys[i]) for i in chunk], torch.stack(list(tokens.values())))
        finally:
            self._flush()

    def _flush(self) -> None:
        self.files.flush()
        self.files.refresh()

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


class _OnDisk(Sequence):
    """Tokens by number, read from files."""

    def __init__(self, files: FeatureFiles, places: np.ndarray):
        self.files, self.places = files, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.files.read(self.places[index])


class _InMemory(Sequence):
    """Tokens by number, of pictures that are known."""

    def __init__(self, pictures: Sequence[Picture], known: Mapping[Picture, torch.Tensor]):
        self.pictures, self.known = pictures, known

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.known[self.pictures[index]]


class _ByPicture(Mapping):
    """Tokens by picture."""

    def __init__(self, pictures: Sequence[Picture], tokens: Sequence[torch.Tensor]):
        self.places = {picture: place for place, picture in enumerate(pictures)}
        self.tokens = tokens

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[Picture]:
        return iter(self.places)

    def __getitem__(self, picture: Picture) -> torch.Tensor:
        return self.tokens[self.places[picture]]


def _padded(key: np.bytes_) -> bytes:
    """A key as numpy gives it, which leaves out zeros at its end."""
    return bytes(key).ljust(KEY_BYTES, b"\0")


def _way_of(answerer: AnswerModel) -> str:
    """Names what decides the tokens of a picture: the base, its dtype, and how pictures are prepared and decoded."""
    dtype = str(compute_dtype(answerer.device)).removeprefix("torch.")
    prepared = {"pillow": PIL.__version__, **answerer.processor.image_processor.to_dict()}
    way = hashlib.sha256(json.dumps(prepared, sort_keys=True, default=str).encode()).hexdigest()
    return f"{answerer.base.sha256[:16]}-{dtype}-{way[:8]}"
