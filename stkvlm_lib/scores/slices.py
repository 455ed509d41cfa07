"""Accuracy against what the picture is like: size and visibility of the kart asked for, karts in view, view, track.

A slice of hard questions may only hold more of a hard family. So each carries `expected`, what it would score if only
the families that it holds mattered; what the slice itself does is the difference.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise

import numpy as np

from stkvlm_lib.scores.metrics import Bootstrap, mean
from stkvlm_lib.scores.question_facts import Facts
from stkvlm_lib.scores.scoring import Prediction

SIZES = (5, 7, 10, 15, 25)
"""Lower ends of the slices by size, px of 150x100; the first two are the limits of the course's and the strict rule."""
SHARES = (0.0, 0.4, 0.7, 0.95)
"""Lower ends of the slices by visible share; under 0.4 the strict rule declines."""
MOST_KARTS = 6
"""Pictures with so many karts in view or more are one slice."""
SEEN, UNSEEN = "seen in train", "unseen in train"

Label = Callable[[Prediction, Facts], Hashable]


def by_size(_: Prediction, facts: Facts) -> str | None:
    if facts.size is None:
        return None
    start = max((low for low in SIZES if low <= facts.size), default=0)
    return _SIZE_NAMES[start]


_SIZE_NAMES = {0: f"under {SIZES[0]} px", SIZES[-1]: f"{SIZES[-1]} px or more"}
_SIZE_NAMES |= {low: f"{low} to {high - 1} px" for low, high in pairwise(SIZES)}


def by_visible(_: Prediction, facts: Facts) -> str | None:
    if facts.visible is None:
        return None
    return _SHARE_NAMES[max(low for low in SHARES if low <= facts.visible)]


_SHARE_NAMES = {low: f"{low:.0%} to {high:.0%}" for low, high in pairwise((*SHARES, 1.0))}
_SHARE_NAMES |= {SHARES[0]: f"under {SHARES[1]:.0%}"}


def by_karts(_: Prediction, facts: Facts) -> str:
    return f"{MOST_KARTS} or more" if facts.karts >= MOST_KARTS else str(facts.karts)


def by_line_up(_: Prediction, facts: Facts) -> str | None:
    return None if facts.known is None else SEEN if facts.known else UNSEEN


SLICES: dict[str, Label] = {
    "size": by_size,
    "visible": by_visible,
    "karts": by_karts,
    "line_up": by_line_up,
    "view": lambda _, facts: str(facts.view),
    "track": lambda p, _: p.track,
}
"""Kind of slice -> the slice of a question, None where it is in none."""
_ORDER = {
    "size": [_SIZE_NAMES[low] for low in (0, *SIZES)],
    "visible": [_SHARE_NAMES[low] for low in SHARES],
    "karts": [*map(str, range(MOST_KARTS)), f"{MOST_KARTS} or more"],
    "view": [*map(str, range(100))],
    "line_up": [SEEN, UNSEEN],
}


def slice_scores(predictions: Sequence[Prediction], facts: Sequence[Facts], *, resamples: int, seed: int) -> dict:
    """`slices`: {kind: {slice: n, exact, exact_ci95, expected}}; kinds of one slice are left out but for line-ups."""
    interval = Bootstrap(predictions, resamples, seed)
    right = np.array([p.correct for p in predictions], float)
    expected = family_rates(predictions)
    found = {}
    for kind, label in SLICES.items():
        labels = [label(p, f) for p, f in zip(predictions, facts, strict=True)]
        members = {name: np.array([x == name for x in labels]) for name in _in_order(kind, set(labels) - {None})}
        if len(members) > (kind != "line_up"):
            found[kind] = {
                name: {
                    "n": int(member.sum()),
                    "exact": mean(right[member]),
                    "exact_ci95": interval(right, member),
                    "expected": mean(expected[member]),
                }
                for name, member in members.items()
            }
    return {"slices": found} if found else {}


def family_rates(predictions: Sequence[Prediction], among: np.ndarray | None = None) -> np.ndarray:
    """For each question the share right of its family; among: counted over these rows, NaN where there are none."""
    right: dict[str, list[bool]] = defaultdict(list)
    for p, counts in zip(predictions, np.ones(len(predictions), bool) if among is None else among, strict=True):
        if counts:
            right[p.family].append(p.correct)
    rates = {family: float(np.mean(found)) for family, found in right.items()}
    return np.array([rates.get(p.family, np.nan) for p in predictions])


def _in_order(kind: str, names: set[str]) -> list[str]:
    """Slices in the order of what they measure, tracks by name."""
    return sorted(names) if kind not in _ORDER else [name for name in _ORDER[kind] if name in names]
