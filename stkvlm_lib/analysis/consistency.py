"""Contrast pairs: whether the model has one question right about two pictures that answer it differently.

Guessing from the words gives both pictures the same answer; so does a model that always names one side.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import ClassVar, Self

import numpy as np
import pandas as pd

from stkvlm_lib.analysis.intervals import Bootstrap, by_family
from stkvlm_lib.analysis.measured import ByFamily, Interval
from stkvlm_lib.analysis.scored_run import Analysis, ScoredRun
from stkvlm_lib.analysis.sections import Section, Table, table_of
from stkvlm_lib.evaluation.predictions import PairPrediction
from stkvlm_lib.grouping import grouped
from stkvlm_lib.qa.contrast import KINDS

TEXT = (
    "One question about two pictures that answer it differently: a picture and its mirror image, and the same moment "
    "from behind another kart. A model that looks has both right; one that guesses from the words gives both the same "
    "answer. Were its errors on the two pictures independent, both would be right as often as the last column says."
)


@dataclass(frozen=True)
class PairScore(ByFamily):
    """Shares of pairs of one kind, whose answers differ, with both, the first and the second right. independent: what
    both right would be if a family's errors fell on the two pictures independently, the mean over the pairs. same: the
    controls, with one answer to both."""

    n: int
    both: float
    both_ci95: Interval | None = None
    first: float | None = None
    second: float | None = None
    independent: float | None = None
    same: "PairScore | None" = None
    families: dict[str, "PairScore"] | None = None


@dataclass(frozen=True)
class Consistency(Analysis):
    """kinds: by kind of pair."""

    KEY: ClassVar[str] = "consistency"
    NONE: ClassVar[str] = (
        "Not asked: notebook 02 makes such pairs of CONTRAST_PICTURES pictures of the splits that it draws."
    )
    WHOLE: ClassVar[str] = "kinds"

    kinds: dict[str, PairScore]

    @classmethod
    def measure(cls, run: ScoredRun) -> Self | None:
        kinds = grouped(run.answers("consistency", PairPrediction), attrgetter("kind"))
        there = {kind: kinds[kind] for kind in KINDS if any(row.differ for row in kinds.get(kind, ()))}
        return cls({kind: score_pairs(mine, run.interval_of(mine)) for kind, mine in there.items()}) if there else None

    def section(self, run: ScoredRun) -> Section:
        return Section("Consistency", TEXT, table=self.table(), details=map(self.family_table, self.kinds))

    def table(self) -> Table | None:
        """Pairs of each kind and their controls."""
        rows: list[tuple[str, PairScore]] = [(kind.replace("_", " "), row) for kind, row in self.kinds.items()]
        rows += [(f"{name}, same answer", row.same) for name, row in rows if row.same]
        return table_of("pairs", rows, _COLUMNS)

    def family_table(self, kind: str) -> Table | None:
        return table_of("family", self.kinds[kind].rows[1:], _COLUMNS, f"By family: {kind.replace('_', ' ')}")


_COLUMNS = {"n": "n", "both right": "both", "95% interval": "both_ci95"}
_COLUMNS |= {"first right": "first", "second right": "second", "both, if independent": "independent"}


def score_pairs(rows: Sequence[PairPrediction], interval_of: Bootstrap) -> PairScore:
    """Pairs of one kind, of which at least one has answers that differ."""
    right = np.array([row.correct for row in rows], float)
    both, differ = right.all(1).astype(float), np.array([row.differ for row in rows])
    groups = [[row.family for row in rows], differ]
    independent = pd.DataFrame(right).groupby(groups).transform("mean").prod(axis=1).to_numpy()

    def figures(member: np.ndarray) -> PairScore:
        first, second = right.T
        told = interval_of.means(member, "both", both=both, first=first, second=second, independent=independent)
        return PairScore(**told)

    families = by_family(rows, lambda member: figures(member & differ), others=False)
    same = None if differ.all() else figures(~differ)
    return replace(figures(differ), same=same, families={n: row for n, row in families.items() if row.n})
