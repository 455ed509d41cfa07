"""Answers about one picture that must agree whatever the truth is, and answers that are none: without asking anew.

A check is made only where the truths agree too, so that an incomplete question file is not taken for a contradiction.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from stkvlm_lib.analysis.intervals import column, every, mean, with_families
from stkvlm_lib.analysis.measured import ByFamily, Interval, Measured
from stkvlm_lib.analysis.question_facts import COUNTED
from stkvlm_lib.analysis.scored_run import Analysis, ScoredRun
from stkvlm_lib.analysis.sections import Section, Table, table_of
from stkvlm_lib.evaluation.predictions import Prediction
from stkvlm_lib.grammar.questions import FAMILIES, normalise, read_question

Key = tuple[str, str]
"""What is asked of a picture: family, and the kart asked about or ``."""
Keys = tuple[Key, ...]
Answers = dict[Key, str]


TEXT = (
    "What the answers about one picture say of each other, whatever the truth is. A count of zero is never asked, so a "
    "relative count that was not asked is zero. Answers can agree and be wrong; the last column has those all right."
)
SAYS = {
    "place": "left/right and front/back agree with where",
    "left_and_right": "left + right + 1 = total count",
    "front_and_behind": "in front + behind + 1 = total count",
    "tally_left": "count left = karts placed left",
    "tally_right": "count right = karts placed right",
    "tally_front": "count in front = karts placed in front",
    "tally_behind": "count behind = karts placed behind",
}
"""Kind of check -> what it says."""


@dataclass(frozen=True)
class Check:
    """One set of answers that must agree. agrees: whether they do; correct: whether all of them are right."""

    kind: str
    race: str
    image_file: str
    agrees: bool
    correct: bool


@dataclass(frozen=True)
class Agreement(Measured):
    """One kind of check: share that agrees, share of them all right."""

    n: int
    agree: float
    agree_ci95: Interval | None = None
    correct: float | None = None


@dataclass(frozen=True)
class Validity(ByFamily):
    """Share of answers that are in their family's answer set."""

    n: int
    valid: float
    families: dict[str, "Validity"] | None = None


@dataclass(frozen=True)
class Entailed(Analysis):
    """Both parts of metrics.json, `entailed` by kind of check and `validity`; what has nothing to say is left out."""

    kinds: dict[str, Agreement] = field(default_factory=dict)
    validity: Validity | None = None

    @classmethod
    def measure(cls, run: ScoredRun) -> Self:
        checks, kinds = list(make_checks(run.predictions)), {}
        for kind in SAYS:
            if mine := [check for check in checks if check.kind == kind]:
                shares = {"agree": column(mine, "agrees"), "correct": column(mine, "correct")}
                kinds[kind] = Agreement(**run.interval_of(mine).means(every(mine), "agree", **shares))
        return cls(kinds, measure_validity(run.predictions))

    @classmethod
    def read(cls, metrics: dict) -> Self | None:
        if not {"entailed", "validity"} & metrics.keys():
            return None
        return cls.from_json({"kinds": metrics.get("entailed", {}), "validity": metrics.get("validity")}, "entailed")

    def into_metrics(self) -> dict[str, Any]:
        written = self.as_json()
        kinds = {"entailed": written["kinds"]} if self.kinds else {}
        return kinds | ({"validity": written["validity"]} if self.validity else {})

    def section(self, run: ScoredRun) -> Section | None:
        title, valid = "Answers of the family's set, by family", {"n": "n", "valid": "valid"}
        details = [table_of("family", self.validity.rows if self.validity else [], valid, title)]
        shown = self.table()
        return Section("Answers that must agree", TEXT, table=shown, details=details) if shown else None

    def table(self) -> Table | None:
        """Answers that must agree, and last the share of answers that are one of their family's."""
        rows = [(SAYS.get(kind, kind), row) for kind, row in self.kinds.items()]
        if self.validity:
            rows.append(("the answer is one of the family's", Agreement(self.validity.n, self.validity.valid)))
        columns = {"n": "n", "holds": "agree", "95% interval": "agree_ci95", "all right": "correct"}
        return table_of("must hold of the answers", rows, columns)


def measure_validity(predictions: Sequence[Prediction]) -> Validity | None:
    """None without a question of a family."""
    known = [p for p in predictions if p.family in FAMILIES]
    valid = np.array([is_valid(p) for p in known])
    figures = with_families(known, lambda member: Validity(int(member.sum()), mean(valid[member])))
    return Validity(**figures) if known else None


def is_valid(prediction: Prediction) -> bool:
    """Whether an answer is one that its family may give; a right one is, also of a kart that the game does not have."""
    return prediction.correct or normalise(prediction.prediction) in map(normalise, FAMILIES[prediction.family].answers)


def make_checks(predictions: Sequence[Prediction]) -> Iterator[Check]:
    """Every check that the questions allow."""
    for image_file, rows in by_picture(predictions).items():
        truth = {key: normalise(p.answer) for key, p in rows.items()}
        said = {key: normalise(p.prediction) for key, p in rows.items()}
        for kind, keys, agree in _checks(rows):
            if agree(truth, keys):
                asked = [rows[key] for key in keys if key in rows]
                right = all(p.correct for p in asked)
                yield Check(kind, asked[0].race, image_file, agree(said, keys), right)


def by_picture(predictions: Iterable[Prediction]) -> dict[str, dict[Key, Prediction]]:
    """The answers about each picture by what was asked."""
    pictures: dict[str, dict[Key, Prediction]] = defaultdict(dict)
    for p in predictions:
        _, _, names = read_question(p.question)
        pictures[p.image_file][p.family, names[0] if names else ""] = p
    return dict(pictures)


def _checks(asked: dict[Key, Prediction]) -> Iterator[tuple[str, Keys, Callable[[Answers, Keys], bool]]]:
    """Kind, the questions about a picture that take part in it, and whether answers to them agree."""
    for family, kart in asked:
        keys = tuple((name, kart) for name in ("front_back", "left_right", "where"))
        if family == "where" and all(key in asked for key in keys):
            yield "place", keys, _same_place
    total = "count", ""
    for kind, *sides in (("left_and_right", "left", "right"), ("front_and_behind", "front", "behind")):
        parts = [(f"count_{side}", "") for side in sides]
        if total in asked and any(part in asked for part in parts):
            yield kind, (total, *parts), _adds_up
    for count_side, (place, _) in COUNTED.items():
        karts = sorted(key for key in asked if key[0] == place)
        if (count_side, "") in asked and karts:
            yield count_side.replace("count", "tally"), ((count_side, ""), *karts), is_tally


def _same_place(told: Answers, keys: Keys) -> bool:
    along, across, place = (told[key] for key in keys)
    return place == f"{along} and {across}"


def _adds_up(told: Answers, keys: Keys) -> bool:
    """Whether the first count is that of the others and the ego kart; one that is zero is not asked."""
    total, *parts = (_number(told.get(key, "0")) for key in keys)
    return total is not None and None not in parts and total == sum(parts) + 1


def is_tally(told: Answers, keys: Keys) -> bool:
    """Whether a relative count, the first of the keys, is the number of karts that the others place there."""
    value = COUNTED[keys[0][0]][1]
    return _number(told[keys[0]]) == sum(told[key] == value for key in keys[1:])


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None
