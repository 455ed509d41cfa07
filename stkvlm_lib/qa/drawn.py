"""The questions drawn for training, on disk: one picture a line, of which only the places are kept in memory."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from stkvlm_lib.files import write_jsonl
from stkvlm_lib.qa.qa_sets import QaError
from stkvlm_lib.typed import TypedError, read_typed

DRAWN = "train_drawn.jsonl"
"""Where a run's `qa/` holds them."""


@dataclass(frozen=True)
class TrainingPicture:
    """A picture drawn for training with its questions; `mirrored` flips it and its answers left to right.

    families: of the questions; `unknown` for those that no picture answers, `task_of` for those that ask for the task
    of another.
    """

    image_file: str
    mirrored: bool
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    families: tuple[str, ...]


class DrawnPictures(Sequence):
    """The training pictures of a file, read as they are asked for: 8 bytes a picture in memory.

    Raises QaError for a file that is not there or a line that is none.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            with path.open("rb") as file:
                ends = np.cumsum(np.fromiter(map(len, file), np.int64))
        except FileNotFoundError:
            raise QaError(f"{path}: not there; draw the training questions with notebook 03") from None
        self._ends = np.concatenate([[0], ends])
        self._file = path.open("rb", buffering=0)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> TrainingPicture:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        start, end = self._ends[index % len(self) :][:2]
        line = os.pread(self._file.fileno(), int(end - start), int(start))
        try:
            return read_typed(line, TrainingPicture)
        except TypedError as error:
            raise QaError(f"{error.within(f'{self.path}: line {index + 1}', ', ')}; draw them again") from None


class PicturesOf(Sequence):
    """(image_file, mirrored) of each training picture."""

    def __init__(self, drawn: Sequence[TrainingPicture]):
        self.drawn = drawn

    def __len__(self) -> int:
        return len(self.drawn)

    def __getitem__(self, index: int) -> tuple[str, bool]:
        picture = self.drawn[index]
        return picture.image_file, picture.mirrored


def count_questions(drawn: Iterable[TrainingPicture]) -> int:
    return sum(len(picture.questions) for picture in drawn)


def write_drawn(pictures: Iterable[TrainingPicture], path: Path) -> DrawnPictures:
    """Write what was drawn for training, and open it for reading."""
    write_jsonl(path, map(asdict, pictures))
    return DrawnPictures(path)
