"""The same questions in two wordings: one that training draws from, and one that no training has seen.

The new wording is that of each family which training leaves out; or own words, as people put their questions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from stkvlm_lib.analysis.calibration import reliability
from stkvlm_lib.analysis.intervals import Bootstrap, column, mean, with_families
from stkvlm_lib.analysis.measured import ByFamily, Interval, Measured, Share
from stkvlm_lib.analysis.scored_run import Analysis, ScoredRun
from stkvlm_lib.analysis.sections import Section, Table, table_of
from stkvlm_lib.evaluation.predictions import Prediction
from stkvlm_lib.grammar.questions import FAMILIES, is_exact, normalise
from stkvlm_lib.grammar.wordings import UNKNOWN
from stkvlm_lib.number_text import count, interval, percent, points


@dataclass(frozen=True)
class WordingPair(Share, ByFamily):
    """exact: in the new wording, trained_exact: in the known one; difference: new less known, paired by question;
    same_answer: how often both get the same answer."""

    trained_exact: float | None = None
    difference: float | None = None
    difference_ci95: Interval | None = None
    same_answer: float | None = None
    families: dict[str, "WordingPair"] | None = None


class HeldOutWordings(WordingPair, Analysis):
    """The wording of each family that training leaves out, beside one that it draws from."""

    KEY: ClassVar[str] = "held_out_wordings"
    NONE: ClassVar[str] = (
        "Not asked: notebook 02 writes the questions, and notebook 04 asks EXTENDED_SCORED of each family."
    )

    @classmethod
    def measure(cls, run: ScoredRun) -> Self | None:
        trained, held_out = run.answers("extended"), run.answers("held_out_wordings")
        if not held_out or len(trained) != len(held_out):
            return None
        return cls(**compare_wordings(trained, held_out, run.interval_of(held_out)))

    def section(self, run: ScoredRun) -> Section:
        text = (
            f"Each of {count(self.n)} questions was asked twice: in a wording that training draws from, and in the one "
            f"that it never has. The difference is {points(self.difference)} points (95% interval "
            f"{interval(self.difference_ci95, points)}); {percent(self.same_answer)} get the same answer in both "
            "wordings."
        )
        return Section("Wordings that training never saw", text, table=self.table())

    def table(self) -> Table | None:
        wording = {"held-out wording": lambda name: FAMILIES[name].wordings[-1] if name in FAMILIES else ""}
        shares = {"n": "n", "trained": "trained_exact", "held out": "exact"}
        return table_of("family", self.rows if self.families else [], wording | shares | _DIFFERENCE)


_DIFFERENCE = {
    "difference, points": ("difference", points),
    "95% interval": ("difference_ci95", points),
    "same answer": "same_answer",
}


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
    NONE: ClassVar[str] = "Not asked: notebook 04 asks them of OWN_WORDS_PICTURES pictures of a run's own races."

    unknown: float | None = None
    unknown_ci95: Interval | None = None
    clusters: str | None = None
    n_clusters: int | None = None
    base_exact: float | None = None
    ece: float | None = None
    unanswerable: SaidUnknown | None = None

    @classmethod
    def measure(cls, run: ScoredRun) -> Self | None:
        rows = run.answers("own_words")
        asked, unanswerable = ([p for p in rows if (p.family in FAMILIES) == known] for known in (True, False))
        # own words are numbered behind their family's own wordings (evaluation.own_words)
        own = [p for p in asked if p.wording >= len(FAMILIES[p.family].wordings)]
        template = [p for p in asked if p.wording < len(FAMILIES[p.family].wordings)]
        if not own:
            return None
        interval_of = run.interval_of(own)
        return cls(
            **compare_wordings(template, own, interval_of) | vars(said_unknown(own, interval_of)),
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
        rows = [*self.rows, *([("unanswerable", self.unanswerable)] if self.unanswerable else [])]
        shares = {"n": "n", "own words": "exact", "95% interval": "exact_ci95", "template": "trained_exact"}
        difference = {name.replace("95%", "its"): column for name, column in _DIFFERENCE.items()}
        return table_of("family", rows, shares | difference | {"answered unknown": "unknown"})


def compare_wordings(known: Sequence[Prediction], new: Sequence[Prediction], interval_of: Bootstrap) -> dict[str, Any]:
    """The fields of a WordingPair over the same questions in two wordings, and `families`.

    interval_of: over the rows of the new wording.
    """
    now, before = column(new, "correct"), column(known, "correct")
    same = np.array([is_exact(a.prediction, b.prediction) for a, b in zip(known, new, strict=True)], float)

    def figures(member: np.ndarray) -> WordingPair:
        return WordingPair(
            **interval_of.means(member, "exact", exact=now, trained_exact=before, same_answer=same),
            difference=mean((now - before)[member]),
            difference_ci95=interval_of(now - before, member, paired=True),
        )

    return with_families(new, figures, others=False)


def said_unknown(rows: Sequence[Prediction], interval_of: Bootstrap) -> SaidUnknown:
    """Share answered `unknown`."""
    said = np.array([normalise(row.prediction) == UNKNOWN for row in rows], float)
    return SaidUnknown(len(rows), mean(said), interval_of(said), interval_of.unit, interval_of.n)
