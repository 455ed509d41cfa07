"""Image tokens on disk: fixed rows in files that appear whole, found by key and read one by one.

    FOLDER/<time>-<process>-<number>.safetensors    keys (n, 16) uint8, tokens (n, tokens, D)

Processes add files of their own and never change one, so that any number of them may work in a folder; a picture that
two of them encode at once lies there twice, which does no harm. In memory are 24 bytes a picture: its key and its
place.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from stkvlm_lib.files import whole_file

KEY_BYTES = 16
FILE_SECONDS, FILE_BYTES = 20.0, 64 * 2**20
"""A file is written after so much time or so many bytes, whichever comes first: what a killed process loses at most."""
_ROWS = np.int64(1 << 32)
"""A place is the number of its file times this, plus its row."""
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class _Tokens:
    """Where the tokens of a file lie in it: from byte `start` on, in rows of one shape."""

    path: Path
    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype


class FeatureFiles:
    """The image tokens that a folder holds. Keys are numpy arrays of `S16`, places int64.

    Raises ValueError naming a file that is broken, OSError where the disk is full or the folder was taken away.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._files: list[_Tokens] = []
        self._keys, self._places = np.empty(0, f"S{KEY_BYTES}"), np.empty(0, np.int64)
        self._new: list[tuple[np.ndarray, torch.Tensor]] = []
        self._new_since = 0.0
        self._take_in()

    def count(self) -> int:
        """How many pictures' tokens there are."""
        return len(self._keys)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """(N,) places; -1 for a key that is not there."""
        if not len(self._keys):
            return np.full(len(keys), -1)
        at = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        return np.where(self._keys[at] == keys, self._places[at], -1)

    def read(self, place: int) -> torch.Tensor:
        """(tokens, D), a copy of one's own."""
        number, row = divmod(int(place), int(_ROWS))
        file = self._files[number]
        size = int(np.prod(file.shape)) * file.dtype.itemsize
        # read, not mapped: what is mapped counts as memory of this process; and safe_open takes milliseconds
        with file.path.open("rb", buffering=0) as opened:
            opened.seek(file.start + row * size)
            return torch.frombuffer(bytearray(opened.read(size)), dtype=file.dtype).view(file.shape)

    def add(self, keys: np.ndarray, tokens: torch.Tensor) -> None:
        """Keep tokens (N, tokens, D); they are found after `flush`, which comes by itself from time to time."""
        if not self._new:
            self._new_since = time.monotonic()
        self._new.append((keys, tokens.cpu()))
        size = sum(added.nbytes for _, added in self._new)
        if size >= FILE_BYTES or time.monotonic() - self._new_since >= FILE_SECONDS:
            self._write()

    def flush(self) -> None:
        """Write what was added as one file, and find what other processes have written since."""
        if self._new:
            self._write()
        self._take_in()

    def _write(self) -> None:
        keys, tokens = zip(*self._new, strict=True)
        numbers = np.concatenate(keys).view(np.uint8).reshape(-1, KEY_BYTES)
        path = self.folder / f"{time.time_ns()}-{os.getpid()}-{len(self._files)}.safetensors"
        try:
            with whole_file(path) as part:
                save_file({"keys": torch.from_numpy(numbers), "tokens": torch.cat(tokens)}, part)
        except SafetensorError as error:  # how safetensors tells of a full disk
            raise OSError(f"{path}: could not be written ({error}); make room there") from error
        self._new = []

    def _take_in(self) -> None:
        """The files that are not known yet."""
        new = sorted(set(self.folder.glob("*.safetensors")) - {file.path for file in self._files})
        if not new:
            return
        keys, places = [self._keys], [self._places]
        for path in new:
            file, found = _read_head(path)
            keys.append(found)
            places.append(len(self._files) * _ROWS + np.arange(len(found)))
            self._files.append(file)
        self._keys, first = np.unique(np.concatenate(keys), return_index=True)
        self._places = np.concatenate(places)[first]


def _read_head(path: Path) -> tuple[_Tokens, np.ndarray]:
    """Where a file's tokens lie, and its keys. Raises ValueError for a file of another form or that is cut."""
    try:
        with safe_open(path, "np") as file:
            if file.offset_keys() != ["tokens", "keys"]:  # safetensors puts the wider type first
                raise ValueError("it holds something else")
            keys, tokens = file.get_tensor("keys"), file.get_slice("tokens")
            shape, dtype = tokens.get_shape(), _DTYPES[tokens.get_dtype()]
        values = int(np.prod(shape)) * dtype.itemsize + keys.nbytes
        return _Tokens(path, path.stat().st_size - values, tuple(shape[1:]), dtype), keys.view(f"S{KEY_BYTES}")[:, 0]
    except (SafetensorError, ValueError, KeyError) as error:
        remedy = "remove the folder; its pictures are then encoded again"
        raise ValueError(f"{path}: no image tokens ({error}); {remedy}") from None
