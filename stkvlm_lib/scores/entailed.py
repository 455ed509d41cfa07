"""Answers about one picture that must agree whatever the truth is, and answers that are none: without asking anew.

A check is made only where the truths agree too, so that an incomplete question file is not taken for a contradiction.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stkvlm_lib.config import ScoreConfig
from stkvlm_lib.grammar.questions import FAMILIES, normalise, read_question
from stkvlm_lib.scores.metrics import Bootstrap, mean
from stkvlm_lib.scores.question_facts import COUNTED
from stkvlm_lib.scores.scoring import Prediction

Key = tuple[str, str]
"""What is asked of a picture: family, and the kart asked about or ``."""
Keys = tuple[Key, ...]
Answers = dict[Key, str]


@dataclass(frozen=True)
class Check:
    """One set of answers that must agree. agrees: whether they do; correct: whether all of them are right."""

    kind: str
    image_file: str
    race: str
    agrees: bool
    correct: bool


def score_entailed(predictions: Sequence[Prediction], config: ScoreConfig) -> dict:
    """`entailed`: by kind of check, n, share that agrees with its interval, share all right; `validity`: share of
    answers that are in their family's answer set, over all and by family. Empty parts are left out."""
    checks = list(make_checks(predictions))
    found = {}
    for kind in KINDS:
        mine = [check for check in checks if check.kind == kind]
        if mine:
            agrees = np.array([check.agrees for check in mine], float)
            found[kind] = {
                "n": len(mine),
                "agree": mean(agrees),
                "agree_ci95": Bootstrap(mine, config.bootstrap, config.seed)(agrees),
                "correct": mean([check.correct for check in mine]),
            }
    return ({"entailed": found} if found else {}) | validity(predictions)


def validity(predictions: Sequence[Prediction]) -> dict:
    """`validity`: share of the answers that are in their family's answer set; {} without a question of a family."""
    known = [p for p in predictions if p.family in FAMILIES]
    if not known:
        return {}
    families = {name: [is_valid(p) for p in known if p.family == name] for name in FAMILIES}
    by_family = {name: {"n": len(told), "valid": mean(told)} for name, told in families.items() if told}
    return {"validity": {"n": len(known), "valid": mean([is_valid(p) for p in known]), "families": by_family}}


def is_valid(prediction: Prediction) -> bool:
    """Whether an answer is one that its family may give."""
    return normalise(prediction.prediction) in map(normalise, FAMILIES[prediction.family].answers)


def make_checks(predictions: Sequence[Prediction]) -> Iterator[Check]:
    """Every check that the questions allow."""
    for image_file, rows in by_picture(predictions).items():
        truth = {key: normalise(p.answer) for key, p in rows.items()}
        said = {key: normalise(p.prediction) for key, p in rows.items()}
        for kind, (groups, agree) in KINDS.items():
            for keys in groups(rows):
                if agree(truth, keys):
                    asked = [rows[key] for key in keys if key in rows]
                    right = all(p.correct for p in asked)
                    yield Check(kind, image_file, asked[0].race, agree(said, keys), right)


def by_picture(predictions: Iterable[Prediction]) -> dict[str, dict[Key, Prediction]]:
    """The answers about each picture by what was asked."""
    pictures: dict[str, dict[Key, Prediction]] = defaultdict(dict)
    for p in predictions:
        _, _, names = read_question(p.question)
        pictures[p.image_file][p.family, names[0] if names else ""] = p
    return dict(pictures)


def _places(asked: dict) -> Iterator[Keys]:
    """The three questions about the place of each kart."""
    for family, kart in asked:
        keys = tuple((name, kart) for name in ("front_back", "left_right", "where"))
        if family == "where" and all(key in asked for key in keys):
            yield keys


def _same_place(told: Answers, keys: Keys) -> bool:
    along, across, place = (told[key] for key in keys)
    return place == f"{along} and {across}"


def _totals(one: str, other: str) -> Callable[[dict], Iterator[Keys]]:
    """The total with the two counts that make it up; one of these is not asked where it is zero."""

    def groups(asked: dict) -> Iterator[Keys]:
        parts = ((one, ""), (other, ""))
        if ("count", "") in asked and any(key in asked for key in parts):
            yield ("count", ""), *parts

    return groups


def _adds_up(told: Answers, keys: Keys) -> bool:
    total, *parts = (told.get(key, "0") for key in keys)
    numbers = [_number(text) for text in (total, *parts)]
    return None not in numbers and numbers[0] == sum(numbers[1:]) + 1


def _tallies(count: str) -> Callable[[dict], Iterator[Keys]]:
    """A relative count with the places of all karts."""

    def groups(asked: dict) -> Iterator[Keys]:
        karts = sorted(key for key in asked if key[0] == COUNTED[count][0])
        if (count, "") in asked and karts:
            yield (count, ""), *karts

    return groups


def is_tally(told: Answers, keys: Keys) -> bool:
    """Whether a relative count, the first of the keys, is the number of karts that the others place there."""
    value = COUNTED[keys[0][0]][1]
    return _number(told[keys[0]]) == sum(told[key] == value for key in keys[1:])


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


KINDS: dict[str, tuple[Callable[[dict], Iterator[Keys]], Callable[[Answers, Keys], bool]]] = {
    "place": (_places, _same_place),
    "left_and_right": (_totals("count_left", "count_right"), _adds_up),
    "front_and_behind": (_totals("count_front", "count_behind"), _adds_up),
    **{name.replace("count", "tally"): (_tallies(name), is_tally) for name in COUNTED},
}
"""Kind of check -> which questions of a picture take part, and whether answers to them agree."""
