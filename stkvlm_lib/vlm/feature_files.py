"""Image tokens on disk: fixed rows in files that appear whole, found by key and read one by one.

    FOLDER/<time>-<process>-<number>.safetensors    keys (n, 16) uint8, tokens (n, tokens, D)

Processes add files of their own and never change one, so that any number of them may work in a folder; a picture that
two of them encode at once lies there twice, which does no harm. Rows are read with `pread`, not mapped: what is used
stays in the system's own cache, which counts for no process. In memory are 24 bytes a picture: its key and its place.
"""

import json
import os
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from stkvlm_lib.files import whole_file

KEY_BYTES = 16
FILE_SECONDS, FILE_BYTES = 20.0, 64 * 2**20
"""A file is written after so much time or so many bytes, whichever comes first: what a killed process loses at most."""
OPEN_FILES = 64
_ROWS = np.int64(1 << 32)
"""A place is the number of its file times this, plus its row."""
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_REMEDY = "remove the folder; its pictures are then encoded again"


@dataclass(frozen=True)
class _Tokens:
    """Where the tokens of a file lie in it: from byte `start` on, in rows of one shape."""

    path: Path
    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize


class FeatureFiles:
    """The image tokens that a folder holds. Keys are numpy arrays of `S16`, places int64.

    Raises ValueError naming a file that is broken, OSError where the disk is full or the folder was taken away.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._files: list[_Tokens] = []
        self._names: set[str] = set()
        self._keys, self._places = np.empty(0, f"S{KEY_BYTES}"), np.empty(0, np.int64)
        self._open: OrderedDict[int, int] = OrderedDict()
        self._new: list[tuple[bytes, torch.Tensor]] = []
        self._new_since = 0.0
        self.refresh()

    def count(self) -> int:
        """How many pictures' tokens there are."""
        return len(self._keys)

    def refresh(self) -> None:
        """Take in the files that have come since, also those of other processes."""
        names = sorted(path.name for path in self.folder.glob("*.safetensors"))
        new = [self._take(self.folder / name) for name in names if name not in self._names]
        if not new:
            return
        keys, places = (np.concatenate(arrays) for arrays in zip((self._keys, self._places), *new, strict=True))
        self._keys, first = np.unique(keys, return_index=True)
        self._places = places[first]

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
        data = bytearray(os.pread(self._descriptor(number), file.row_bytes, file.start + row * file.row_bytes))
        if len(data) < file.row_bytes:
            raise ValueError(f"{file.path}: ends within a picture's tokens; {_REMEDY}")
        return torch.frombuffer(data, dtype=file.dtype).view(file.shape)

    def add(self, keys: Sequence[bytes], tokens: torch.Tensor) -> None:
        """Keep tokens (N, tokens, D); they are found after `flush`, which comes by itself from time to time."""
        if not self._new:
            self._new_since = time.monotonic()
        self._new += zip(keys, tokens.cpu(), strict=True)
        size = len(self._new) * self._new[0][1].nbytes
        if size >= FILE_BYTES or time.monotonic() - self._new_since >= FILE_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was added as one file."""
        if not self._new:
            return
        keys, tokens = zip(*self._new, strict=True)
        numbers = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), KEY_BYTES)
        path = self.folder / f"{time.time_ns()}-{os.getpid()}-{len(self._files)}.safetensors"
        try:
            with whole_file(path) as part:
                save_file({"keys": torch.from_numpy(numbers.copy()), "tokens": torch.stack(tokens)}, part)
        except SafetensorError as error:  # how safetensors tells of a full disk
            raise OSError(f"{path}: could not be written ({error}); make room there") from error
        self._new = []

    def _take(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Keys of a file and their places."""
        number = len(self._files)
        file, keys = _read_head(path)
        self._files.append(file)
        self._names.add(path.name)
        return keys, number * _ROWS + np.arange(len(keys))

    def _descriptor(self, number: int) -> int:
        """Of an open file; those used last stay open."""
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        if len(self._open) >= OPEN_FILES:
            os.close(self._open.popitem(last=False)[1])
        self._open[number] = os.open(self._files[number].path, os.O_RDONLY)
        return self._open[number]

    def __del__(self):
        for descriptor in self._open.values():
            os.close(descriptor)


def _read_head(path: Path) -> tuple[_Tokens, np.ndarray]:
    """Where a file's tokens lie, and their keys. Raises ValueError for a file of another form or that is cut."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length < path.stat().st_size:
                raise ValueError("its header is cut")
            head = json.loads(file.read(length))
            keys, tokens = head["keys"], head["tokens"]
            begin, end = keys["data_offsets"]
            file.seek(8 + length + begin)
            found = np.frombuffer(file.read(end - begin), f"S{KEY_BYTES}")
        if path.stat().st_size < 8 + length + tokens["data_offsets"][1] or len(found) != tokens["shape"][0]:
            raise ValueError("it is shorter than its header says")
        shape, dtype = tuple(tokens["shape"][1:]), _DTYPES[tokens["dtype"]]
        return _Tokens(path, 8 + length + tokens["data_offsets"][0], shape, dtype), found
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: no image tokens ({error}); {_REMEDY}") from None
