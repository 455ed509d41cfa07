"""The error budget: every wrong answer gets the one cause whose rule holds first (see causes), so it sums to all."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from stkvlm_lib.grammar.questions import FAMILIES, normalise, read_question
from stkvlm_lib.scores.causes import CAUSES, OF_QUESTION
from stkvlm_lib.scores.entailed import Key, by_picture, is_tally, is_valid
from stkvlm_lib.scores.metrics import mean
from stkvlm_lib.scores.question_facts import COUNTED, SEES_ALL, Facts
from stkvlm_lib.scores.scoring import Prediction
from stkvlm_lib.scores.slices import family_rates

Picture = dict[Key, Prediction]


def error_causes(predictions: Sequence[Prediction], facts: Sequence[Facts]) -> list[str | None]:
    """The cause of every wrong answer, None where the answer is right."""
    pictures = by_picture(predictions)
    return [
        None if p.correct else _cause(p, f, pictures[p.image_file]) for p, f in zip(predictions, facts, strict=True)
    ]


def budget(predictions: Sequence[Prediction], facts: Sequence[Facts]) -> dict:
    """`error_budget`: errors by cause (n, their share, what each costs of all questions, by family), summing to all.

    For causes that are known before the answer: touched, how many questions have them; exact, the share of these that
    is right; expected, the share if they were answered like the plain questions of their families.
    """
    causes, properties = error_causes(predictions, facts), [question_property(f) for f in facts]
    right = np.array([p.correct for p in predictions], float)
    plain = family_rates(predictions, np.array([found is None for found in properties]))
    total, rows = sum(cause is not None for cause in causes), {}
    for name in CAUSES:
        families: dict[str, int] = defaultdict(int)
        for p, cause in zip(predictions, causes, strict=True):
            if cause == name:
                families[p.family] += 1
        n = sum(families.values())
        touched = np.array([found == name for found in properties])
        if n or touched.any():
            rows[name] = {"n": n, "share": n / total if total else 0.0, "cost": n / len(predictions)}
            rows[name] |= _touched(touched, right, plain) | {"families": dict(families)}
    return {"error_budget": {"errors": total, "n": len(predictions), "causes": rows}}


def _touched(touched: np.ndarray, right: np.ndarray, plain: np.ndarray) -> dict:
    if not touched.any():
        return {}
    known = touched & ~np.isnan(plain)
    expected = {"expected": mean(plain[known])} if known.sum() == touched.sum() else {}
    return {"touched": int(touched.sum()), "exact": mean(right[touched]), **expected}


def question_property(facts: Facts) -> str | None:
    """The first property, in the order of the causes, that makes a question hard; None for a plain one."""
    return next((name for name in OF_QUESTION if _HAS[name](facts)), None)


_HAS = {
    "pixel": lambda facts: facts.pixel > 0,
    "small": lambda facts: facts.small > 0,
    "hidden": lambda facts: facts.hidden > 0,
    "near level": lambda facts: facts.level > 0,
    "unseen line-up": lambda facts: facts.known is False,
}


def _cause(p: Prediction, facts: Facts, picture: Picture) -> str:
    if p.family not in FAMILIES:
        return "unknown question"
    if not is_valid(p):
        return "no answer"
    if p.family == "track":
        return "track"
    found = question_property(facts)
    if found and _is_explained(p, facts):
        return found
    if p.family in SEES_ALL:
        return "relation" if _follows_from_places(p, picture) else "counting"
    return "identity" if _is_identity(p, facts, picture) else "relation"


def _is_explained(p: Prediction, facts: Facts) -> bool:
    """Whether the karts that are hard to tell are enough to make this answer of the truth."""
    said, truth = p.prediction.strip(), p.answer.strip()
    if p.family not in SEES_ALL or not (said.isdecimal() and truth.isdecimal()):
        return True
    return abs(int(said) - int(truth)) <= facts.hard


def _follows_from_places(p: Prediction, picture: Picture) -> bool:
    """Whether a wrong relative count is what the wrong answers about each kart's place add up to."""
    if p.family not in COUNTED:
        return False
    keys = (p.family, ""), *(key for key in picture if key[0] == COUNTED[p.family][0])
    truth = {key: normalise(picture[key].answer) for key in keys}
    said = {key: normalise(picture[key].prediction) for key in keys}
    return is_tally(truth, keys) and is_tally(said, keys)


def _is_identity(p: Prediction, facts: Facts, picture: Picture) -> bool:
    _, _, names = read_question(p.question)
    if p.family not in _PLACES:
        return len(names) < 2  # the families that name a kart, or say how it looks; those of two karts compare places
    ego = picture.get(("ego", ""))
    if ego and normalise(ego.prediction) == names[0]:
        return True
    said = [normalise(picture[family, names[0]].prediction) for family in _PLACES if (family, names[0]) in picture]
    return any(all(answer in (zone, *zone.split(" and ")) for answer in said) for zone in facts.elsewhere)


_PLACES = ("front_back", "left_right", "where")
