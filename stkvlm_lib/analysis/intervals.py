"""Means and their 95 % intervals, clustered by race: questions about one race are not independent.

Resampling cannot show what did not occur: where all races have the same mean, as where every answer is right, each draw
is like the last. There the interval of a share is Wilson's over so many races, each counted as one observation. It is
wide, as it allows for a race in which everything is otherwise.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from stkvlm_lib.analysis.measured import Interval, Measured
from stkvlm_lib.grammar.questions import FAMILIES, OTHER
from stkvlm_lib.qa.label_check import wilson

T = TypeVar("T")


class Bootstrap:
    """95 % percentile intervals of means, resampling whole races; Wilson's where all races have the same mean.

    rows: anything with `race` and `image_file`. With a single race the pictures are resampled instead, and `unit` says
    so.
    """

    def __init__(self, rows: Sequence, resamples: int, seed: int):
        race = [row.race for row in rows]
        self.unit = "race" if len(set(race)) > 1 else "picture"
        keys = race if self.unit == "race" else [row.image_file for row in rows]
        names, self._cluster = np.unique(keys, return_inverse=True)
        self.n = len(names)
        chances = np.full(self.n, 1 / self.n)
        self._weights = np.random.default_rng(seed).multinomial(self.n, chances, resamples).astype(float)

    def __call__(
        self, values: np.ndarray, member: np.ndarray | None = None, *, paired: bool = False
    ) -> Interval | None:
        """Interval of the mean of `values` over the rows in `member` (all by default); None where `mean` is None.

        paired: the values are differences and no shares, and are resampled alone: of two runs that answer all alike the
        difference is nothing.
        """
        member = np.ones(len(values), bool) if member is None else member
        middle = mean(values[member])
        if middle is None:
            return None
        sums = np.bincount(self._cluster[member], values[member], self.n)
        sizes = np.bincount(self._cluster[member], minlength=self.n)
        drawn = self._weights @ sizes
        # a draw may hold none of these rows' races: it says nothing of their mean, and zero would be wrong
        means = (self._weights @ sums)[drawn > 0] / drawn[drawn > 0]
        low, high = np.percentile(means, [2.5, 97.5])
        if low == high and not paired:
            n = self.clusters(member)
            low, high = wilson(middle * n, n)
        return round(float(low), 6), round(float(high), 6)

    def means(self, member: np.ndarray, of: str, **values: np.ndarray) -> dict[str, Any]:
        """Fields of figures over the rows in `member`: n, the mean of each of the values, and the interval of `of`."""
        found = {name: mean(each[member]) for name, each in values.items()}
        return {"n": int(member.sum()), **found, f"{of}_ci95": self(values[of], member)}

    def clusters(self, member: np.ndarray) -> int:
        """Over how many races (or pictures) the rows in `member` spread."""
        return len(np.unique(self._cluster[member]))


def mean(values: Iterable[float]) -> float | None:
    """To six places; None of no values at all, and where one of them is not known (NaN)."""
    values = np.asarray(values, float)
    return round(float(values.mean()), 6) if len(values) and not np.isnan(values).any() else None


def column(rows: Sequence, name: str) -> np.ndarray:
    """(N,) a field as float, with truths as 0 and 1; NaN where it is None."""
    return np.array([getattr(row, name) for row in rows], float)


def every(rows: Sequence) -> np.ndarray:
    """(N,) bool: all rows."""
    return np.ones(len(rows), bool)


def with_families(rows: Sequence, measure: Callable[[np.ndarray], Measured], others: bool = True) -> dict[str, Any]:
    """Fields of figures by family: what `measure` says of all rows, and of those of each family."""
    return vars(measure(every(rows))) | {"families": by_family(rows, measure, others)}


def by_family(rows: Sequence, measure: Callable[[np.ndarray], T], others: bool = True) -> dict[str, T]:
    """What `measure` says of the rows of each family, given as an (N,) bool; families in their fixed order.

    others: also of the rows of no family.
    """
    families = np.array([row.family for row in rows])
    members = {name: families == name for name in (*FAMILIES, *((OTHER,) if others else ()))}
    return {name: measure(member) for name, member in members.items() if member.any()}
