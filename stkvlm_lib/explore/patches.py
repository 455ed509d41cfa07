"""Patches of a picture, and what becomes of an answer when one after another is covered."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from math import exp
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import torch

    from stkvlm_lib.vlm.answering import AnswerModel

BATCH = 12
"""How many covered pictures are answered at once; between batches one can cancel, and others are answered."""


@dataclass(frozen=True)
class Grid:
    """How a picture is cut into patches, counted row after row: by default squares in a picture of 3 to 2."""

    rows: int = 8
    columns: int = 12

    def __len__(self) -> int:
        return self.rows * self.columns

    def box(self, row: int, column: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Corners of a patch in px of a picture of `size`; patches tile it without gaps."""
        width, height = size
        left, right = (round(width * x / self.columns) for x in (column, column + 1))
        top, bottom = (round(height * y / self.rows) for y in (row, row + 1))
        return left, top, right, bottom

    def covered(self, image: Image.Image, start: int) -> Iterator[Image.Image]:
        """The picture with one patch after the other in its mean colour, from the start-th on."""
        mean = tuple(np.asarray(image).mean((0, 1)).round().astype(int).tolist())
        for number in range(start, len(self)):
            copy = image.copy()
            copy.paste(mean, self.box(*divmod(number, self.columns), image.size))
            yield copy


GRID = Grid()


def whole_answer(model: "AnswerModel", features: "torch.Tensor", question: str) -> tuple[str, float]:
    """(answer, its probability) to an encoded picture, (1, tokens, D)."""
    answer = model.answer_encoded(features, [[question]])[0][0].text
    return answer, _probabilities(model, features, question, answer)[0]


def covered_answers(
    model: "AnswerModel", image: Image.Image, grid: Grid, start: int, question: str, first: str
) -> Iterable[tuple[str, float]]:
    """(answer, probability of the first answer) where one patch is covered, of a batch of patches from the start-th on.

    Where that probability is above a half no other answer can be written, so only the others are written out.
    """
    features = model.encode(list(islice(grid.covered(image, start), BATCH)))
    chances = _probabilities(model, features, question, first)
    unsure = [number for number, chance in enumerate(chances) if chance <= 0.5]
    answers = [first] * len(chances)
    for number, given in zip(unsure, model.answer_encoded(features[unsure], [[question]] * len(unsure)), strict=True):
        answers[number] = given[0].text
    return zip(answers, chances, strict=True)


def _probabilities(model: "AnswerModel", features: "torch.Tensor", question: str, answer: str) -> list[float]:
    """How likely an answer is to each encoded picture."""
    found = model.likelihoods(features, [[(question, (answer,))]] * len(features))
    return [exp(candidates[0][0].log_probability) for candidates in found]
