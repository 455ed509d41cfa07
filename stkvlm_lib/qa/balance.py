"""How many questions of each answer stay, and which: the same whatever the order in which they were made.

A family's most frequent answers are cut down to a common number; rarer ones stay whole. Which questions stay follows
from each one's own rank, a hash of the seed, the picture and the question.
"""

from array import array
from bisect import bisect_right
from collections.abc import Callable

import numpy as np

from stkvlm_lib.grammar.families import pick
from stkvlm_lib.qa.qa_sets import Composition, ordered

RARE = 0.01
"""Answers with a smaller share of a family do not count as ones it could be even over."""
_RANKS = 1 << 64


def rank(seed: int, image_file: str, question: str) -> int:
    """64 bits by which a question comes before or after others of its kind."""
    return pick(_RANKS, "balance", seed, image_file, question)


def kept_counts(counts: dict[str, int], ratio: float, most: int = 0) -> dict[str, int]:
    """{answer: how many questions stay} of one family.

    ratio: the most frequent answer stays at most this many times as often as if all answers were equally frequent, and
    at most in half of the questions; 0 keeps all. most: questions that stay at most, 0 for any number.
    A family with a single answer cannot be balanced and stays as it is.
    """
    limit = max(counts.values(), default=0)
    if ratio and len(counts) > 1:
        total = sum(counts.values())
        share = min(0.5, ratio / sum(count >= RARE * total for count in counts.values()))
        limit = _highest(limit, share, lambda limit: limit / _stay(counts, limit))
    if most:
        limit = _highest(limit, most, lambda limit: _stay(counts, limit))
    return {answer: min(count, limit) for answer, count in counts.items()}


def _highest(limit: int, bound: float, grows: Callable[[int], float]) -> int:
    """The highest number up to `limit`, at least 1, for which what grows with it stays within `bound`."""
    return max(1, bisect_right(range(1, limit + 1), bound, key=grows))


def _stay(counts: dict[str, int], limit: int) -> int:
    return sum(min(count, limit) for count in counts.values())


class Candidates:
    """All questions that may stay, in the order in which they come: ten bytes a question."""

    def __init__(self):
        self._keys: dict[tuple[str, str], int] = {}
        self._key_of, self._ranks = array("H"), array("Q")

    def add(self, family: str, answer: str, rank: int) -> None:
        self._key_of.append(self._keys.setdefault((family, answer), len(self._keys)))
        self._ranks.append(rank)

    def composition(self, kept: np.ndarray | None = None) -> Composition:
        """What they are, or those of them that `kept`, (N,) bool, marks."""
        keys = np.array(self._key_of, int)
        counts = np.bincount(keys if kept is None else keys[kept], minlength=len(self._keys))
        return ordered({key: int(counts[number]) for key, number in self._keys.items()})

    def stay(self, ratio: float, most: int = 0) -> np.ndarray:
        """(N,) bool: which stay, those of the lowest ranks of each answer; ratio and most as for kept_counts."""
        keys, ranks = np.array(self._key_of, int), np.array(self._ranks, np.uint64)
        stay = np.zeros(len(keys), bool)
        for family, counts in self.composition().items():
            for answer, n in kept_counts(counts, ratio, most).items():
                members = np.flatnonzero(keys == self._keys[family, answer])
                stay[members[np.argsort(ranks[members], kind="stable")[:n]]] = True
        return stay
