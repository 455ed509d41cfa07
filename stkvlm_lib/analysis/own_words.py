"""Questions as people put them, in words that no training has seen, beside the same ones in their template."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from stkvlm_lib.analysis.calibration import reliability
from stkvlm_lib.analysis.intervals import Bootstrap, column, mean
from stkvlm_lib.analysis.measured import Interval, Measured
from stkvlm_lib.analysis.scored_run import Analysis, ScoredRun
from stkvlm_lib.analysis.sections import Section, Table, family_lines, table
from stkvlm_lib.analysis.wordings import WordingPair, compare_wordings
from stkvlm_lib.evaluation.predictions import Prediction
from stkvlm_lib.grammar.questions import FAMILIES, normalise
from stkvlm_lib.grammar.wordings import UNKNOWN
from stkvlm_lib.number_text import NOTHING, count, interval, percent, points


@dataclass(frozen=True)
class SaidUnknown(Measured):
    """Share of some questions that were answered `unknown`."""

    n: int
    unknown: float
    unknown_ci95: Interval | None = None
    clusters: str | None = None
    n_clusters: int | None = None


@dataclass(frozen=True)
class OwnWords(WordingPair, Analysis):
    """Own words for the new wording, the template for the known one; unknown: share answered `unknown`; base_exact: of
    the base alone; ece: expected calibration error. unanswerable: questions that no picture answers, which should be
    `unknown`."""

    KEY: ClassVar[str] = "own_words"

    families: dict[str, WordingPair] | None = None
    unknown: float | None = None
    unknown_ci95: Interval | None = None
    clusters: str | None = None
    n_clusters: int | None = None
    base_exact: float | None = None
    ece: float | None = None
    unanswerable: SaidUnknown | None = None

    @classmethod
    def measure(cls, run: ScoredRun) -> Self | None:
        own, unanswerable, template = parts(run.answers("own_words"))
        if not own:
            return None
        interval_of = run.interval_of(own)
        whole, families = compare_wordings(template, own, interval_of)
        return cls(
            **vars(whole) | vars(said_unknown(own, interval_of)),
            families=families,
            base_exact=mean(column(own, "base_correct")),
            ece=reliability(own, interval_of).ece,
            unanswerable=said_unknown(unanswerable, run.interval_of(unanswerable)) if unanswerable else None,
        )

    def section(self, run: ScoredRun) -> Section:
        return Section("Own words", self.words(), table=self.table())

    def words(self) -> str:
        text = (
            f"Each of {count(self.n)} questions was asked in words that no training has seen and in its family's "
            f"template: {percent(self.exact)} (95% interval {interval(self.exact_ci95)}) and "
            f"{percent(self.trained_exact)} are answered exactly right. In own words, {percent(self.unknown)} "
            f"({interval(self.unknown_ci95)}) are answered unknown. The base without the adapter has "
            f"{percent(self.base_exact)} of them right."
        )
        nothing = self.unanswerable
        if not nothing:
            return text
        return (
            f"{text} Of {count(nothing.n)} questions that nothing in a picture answers, {percent(nothing.unknown)} "
            f"({interval(nothing.unknown_ci95)}) are, as they should be."
        )

    def table(self) -> Table | None:
        """By family; last, what no picture answers."""
        columns = [
            {
                "family": name,
                "n": count(row.n),
                "own words": percent(row.exact),
                "95% interval": interval(row.exact_ci95),
                "template": percent(row.trained_exact),
                "difference, points": points(row.difference),
                "its interval": interval(row.difference_ci95, points),
                "same answer": percent(row.same_answer),
                "answered unknown": percent(self.unknown) if row is self else NOTHING,
            }
            for name, row in family_lines(self, self.families)
        ]
        if nothing := self.unanswerable:
            blank = dict.fromkeys(columns[0], NOTHING)
            shown = {"family": "unanswerable", "n": count(nothing.n), "answered unknown": percent(nothing.unknown)}
            columns.append(blank | shown)
        return table(columns)


def parts(rows: Sequence[Prediction]) -> tuple[list[Prediction], list[Prediction], list[Prediction]]:
    """What `evaluation.own_words` asks: in own words, unanswerable, and in the template; own words are numbered behind
    their family's wordings."""
    asked = [p for p in rows if p.family in FAMILIES]
    own = [p for p in asked if p.wording >= len(FAMILIES[p.family].wordings)]
    template = [p for p in asked if p.wording < len(FAMILIES[p.family].wordings)]
    return own, [p for p in rows if p.family not in FAMILIES], template


def said_unknown(rows: Sequence[Prediction], interval_of: Bootstrap) -> SaidUnknown:
    """Share answered `unknown`."""
    said = np.array([normalise(row.prediction) == UNKNOWN for row in rows], float)
    return SaidUnknown(len(rows), mean(said), interval_of(said), interval_of.unit, interval_of.n)
