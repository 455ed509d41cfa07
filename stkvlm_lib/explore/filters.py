"""The explorer's filters, without a widget: what questions are sorted by, and how many each choice would leave."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from stkvlm_lib.grammar.questions import in_order, is_exact
from stkvlm_lib.grammar.scene import Kart, Scene, box_size
from stkvlm_lib.qa.qa_sets import Record

RIGHT, WRONG = "right", "wrong"
SAME, DIFFERENT = "same answer", "different answers"
ONLY_FIRST, ONLY_SECOND = "only the first right", "only the second right"
COMPARED = (SAME, DIFFERENT, ONLY_FIRST, ONLY_SECOND)
CONFIDENCES = {"under 50 %": 0.0, "50 to 80 %": 0.5, "80 to 95 %": 0.8, "95 % and more": 0.95}
"""Ranges of confidence -> where each begins (0..1)."""
SIZES = {"under 10 px": 0, "10 to 19 px": 10, "20 to 39 px": 20, "40 px and more": 40}
"""Ranges of box size -> where each begins: shorter side of the box in px of the 150x100 frame."""


@dataclass(frozen=True)
class Given:
    """What the explorer needs of a `evaluation.predictions.Prediction`; by itself it is read in a moment."""

    image_file: str
    question: str
    prediction: str
    correct: bool
    confidence: float
    base_prediction: str | None = None
    base_correct: bool | None = None


FILTERS = {
    "split": "Split",
    "track": "Track",
    "kart": "Kart in view",
    "family": "Kind of question",
    "outcome": "Answer",
    "confidence": "Confidence",
    "size": "Box size",
    "beside": "Both answers",
}
"""What questions are filtered by, with its name for readers. kart: one that counts as visible in the picture; outcome:
`right` or `wrong`, of answered questions; size: of the box that matters, see `subject`; beside: how the answer compares
with the one beside it."""
IN_FILE_ORDER, SUREST_MISTAKES, LEAST_SURE = "in file order", "surest mistakes first", "least sure first"
ORDERS = (IN_FILE_ORDER, SUREST_MISTAKES, LEAST_SURE)
"""In which order the views come: the mistakes of which the model was surest tell most about what it learnt."""


class Facet:
    """The options of one filter, and which record matches which."""

    def __init__(self, options: list[str], values: Sequence[Iterable[str]]):
        self.options = options
        column = {option: number for number, option in enumerate(options)}
        cells = [(row, column[option]) for row, found in enumerate(values) for option in found]
        rows, columns = np.array(cells, dtype=int).reshape(-1, 2).T
        self._member = np.zeros((len(values), len(options)), bool)
        self._member[rows, columns] = True

    def matches(self, option: str) -> np.ndarray:
        """(records,) bool."""
        return self._member[:, self.options.index(option)]

    def counts(self, passing: np.ndarray) -> list[int]:
        """How many of the records in `passing` (bool) match each option."""
        return self._member[passing].sum(0).tolist()


Asked = tuple[Record, Scene, Given | None, Given | None]
"""A question with its scene and, where it was answered, its prediction and the one beside it."""


def make_facets(asked: Iterable[Asked]) -> dict[str, Facet]:
    """A facet for each filter, over every question."""
    values = [_values(*question) for question in asked]
    options = {name: sorted({option for found in values for option in found[name]}) for name in FILTERS}
    options["family"] = in_order(options["family"])
    ranges = {"outcome": (RIGHT, WRONG), "confidence": CONFIDENCES, "size": SIZES, "beside": COMPARED}
    for name, ordered in ranges.items():
        options[name] = list(ordered) if options[name] else []
    return {name: Facet(options[name], [found[name] for found in values]) for name in FILTERS}


def _values(record: Record, scene: Scene, prediction: Given | None, other: Given | None) -> dict[str, Iterable[str]]:
    """Filter -> the options that a question matches."""
    kart = subject(record.question, scene)
    return {
        "split": [record.split],
        "track": [record.track],
        "kart": [kart.name for kart in scene.karts],
        "family": [record.family],
        "outcome": [RIGHT if prediction.correct else WRONG] if prediction else [],
        "confidence": [_range(prediction.confidence, CONFIDENCES)] if prediction else [],
        "size": [_range(min(box_size(kart.box)), SIZES)] if kart else [],
        "beside": compared(prediction, other),
    }


def compared(first: Given | None, second: Given | None) -> list[str]:
    """What can be said of two answers to one question, of COMPARED; nothing where one of them was not given."""
    if not first or not second:
        return []
    said = [SAME if is_exact(first.prediction, second.prediction) else DIFFERENT]
    if first.correct != second.correct:
        said.append(ONLY_FIRST if first.correct else ONLY_SECOND)
    return said


def urgency(order: str, prediction: Given | None) -> float:
    """What an order sorts by, the smallest first; infinite where it has nothing to say."""
    if not prediction or order == IN_FILE_ORDER or (order == SUREST_MISTAKES and prediction.correct):
        return float("inf")
    return -prediction.confidence if order == SUREST_MISTAKES else prediction.confidence


def _range(value: float, ranges: dict[str, float]) -> str:
    """The name of the range that a value is in."""
    return list(ranges)[bisect_right(list(ranges.values()), value) - 1]


def subject(question: str, scene: Scene) -> Kart | None:
    """The kart on whose visibility a question hangs: the smallest of those it names, else the ego kart."""
    words = set(re.findall(r"\w+", question))
    named = [kart for kart in scene.karts if kart.name in words]
    return min(named, key=lambda kart: min(box_size(kart.box)), default=scene.ego)
