"""Answers as a run keeps them: a line a question, with its truth."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import FiniteFloat

from stkvlm_lib.files import write_jsonl
from stkvlm_lib.grammar.questions import normalise
from stkvlm_lib.typed import read_rows

HEADLINE = "predictions.jsonl"
"""The answers to the scored questions."""
FURTHER = "predictions_{}.jsonl"
"""The answers to a further set of questions, by its name."""
REMEDY = "answer again with notebook 04_evaluate"

T = TypeVar("T")


@dataclass(frozen=True)
class Prediction:
    """One scored question. confidence: probability of the generated answer with its stop token.

    blind_: with the mean image instead of the picture. base_: of the base without the adapter. closed_: the likeliest
    of the family's answers, generated or not; its second, and by how much probability that one is behind. These are
    None where they were not asked for.
    """

    image_file: str
    question: str
    answer: str
    prediction: str
    family: str
    correct: bool
    prefix_correct: bool
    confidence: FiniteFloat
    race: str
    track: str
    base_prediction: str | None = None
    base_correct: bool | None = None
    blind_prediction: str | None = None
    blind_correct: bool | None = None
    closed_prediction: str | None = None
    closed_correct: bool | None = None
    closed_second: str | None = None
    closed_margin: FiniteFloat | None = None
    wording: int = 0


@dataclass(frozen=True)
class PairPrediction:
    """One contrast pair answered. differ: whether its two true answers do; image_file: the first picture, other_file
    the second."""

    pair: str
    kind: str
    family: str
    question: str
    image_file: str
    other_file: str
    answers: tuple[str, str]
    predictions: tuple[str, str]
    correct: tuple[bool, bool]
    differ: bool
    race: str
    track: str


@dataclass(frozen=True)
class Choice:
    """Five sentences about a picture, of which the one at `correct_index` is true. family: what that one states."""

    image_file: str
    candidates: tuple[str, ...]
    correct_index: int
    family: str
    race: str
    track: str


@dataclass(frozen=True)
class ChoicePrediction(Choice):
    """A choice made. scores: of the candidates, as they were compared; blind_: with the mean image."""

    chosen: int
    correct: bool
    scores: tuple[FiniteFloat, ...]
    blind_chosen: int
    blind_correct: bool


def is_prefix(prediction: str, answer: str) -> bool:
    """The course grader's match: the prediction is cut to the answer's length first ("12" passes for "1")."""
    return normalise(prediction)[: len(normalise(answer))] == normalise(answer)


def further_file(run: Path, name: str) -> Path:
    """Where a run keeps the answers to a further set of questions."""
    return run / FURTHER.format(name)


def write_answers(rows: Iterable, path: Path) -> None:
    """Predictions of one kind, a line each."""
    write_jsonl(path, map(asdict, rows))


def read_answers(path: Path, kind: type[T] = Prediction) -> list[T]:
    """Raises FileNotFoundError or ValueError for rows of another form, naming file, line and remedy."""
    return read_rows(path, kind, REMEDY)
