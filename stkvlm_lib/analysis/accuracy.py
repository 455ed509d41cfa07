"""How many questions are answered right: over all and by family, beside what guessing, blindness and the base score."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from stkvlm_lib.analysis.intervals import Bootstrap, column, mean, with_families
from stkvlm_lib.analysis.measured import ByFamily, Interval, Share
from stkvlm_lib.analysis.scored_run import Analysis, ScoredRun
from stkvlm_lib.analysis.sections import Section, Shown, Table, listed, table_of
from stkvlm_lib.evaluation.predictions import Prediction
from stkvlm_lib.figures import style
from stkvlm_lib.grammar.questions import FAMILIES, normalise
from stkvlm_lib.number_text import count, percent
from stkvlm_lib.qa.blind import most_frequent


@dataclass(frozen=True)
class Rates(Share):
    """Shares right, of 0..1. prefix: with the answer cut to the truth's length, as the course grades. What the blind
    model and the closed answer sets have is None where these were not asked."""

    prefix: float | None = None
    majority: float | None = None
    blind: float | None = None
    closed_exact: float | None = None


@dataclass(frozen=True)
class FamilyScore(Rates):
    """One family. base: of the base alone, where it was asked."""

    base: float | None = None


@dataclass(frozen=True)
class Score(Rates, ByFamily):
    """A set of answers: shares right over all and by family, what fine-tuning and seeing gained."""

    macro_exact: float | None = None
    base_exact: float | None = None
    gain_over_base: float | None = None
    gain_over_base_ci95: Interval | None = None
    gain_over_blind: float | None = None
    gain_over_blind_ci95: Interval | None = None
    clusters: str | None = None
    n_clusters: int | None = None
    families: dict[str, FamilyScore] | None = None

    @property
    def base(self) -> float | None:
        """The same as of a family, which metrics.json has always called by another name."""
        return self.base_exact

    def table(self) -> Table | None:
        """Scores by family, all questions first."""
        question = {"question": lambda name: FAMILIES[name].template if name in FAMILIES else ""}
        return table_of("family", self.rows if self.families else [], question | _COLUMNS)

    def alt(self) -> str:
        """The numbers of their chart."""
        return listed("Dot plot of the share answered exactly right", ((n, percent(row.exact)) for n, row in self.rows))

    @property
    def races(self) -> str:
        """` of 42 races`, empty where no race is known."""
        if self.n_clusters is None:
            return ""
        return f" of {count(self.n_clusters)} races" if self.clusters == "race" else " of one race"


class Accuracy(Score, Analysis):
    """The headline. Its figures are those at the top of metrics.json."""

    @classmethod
    def measure(cls, run: ScoredRun) -> Self:
        return cls(**vars(score(run.predictions, run.interval)))

    @classmethod
    def read(cls, metrics: dict) -> Self | None:
        return cls.from_json(metrics, "the headline") if "exact" in metrics else None

    def into_metrics(self) -> dict[str, Any]:
        return self.as_json()

    def section(self, run: ScoredRun) -> Section:
        caption = "Questions answered exactly right, by family, with 95% intervals and the three baselines."
        chart = Shown("score_families", accuracy_chart(self), caption, self.alt())
        shown = self.table()
        told = [f"{name}: {text}." for name, text in NOTES.items() if shown and name in shown.columns]
        return Section("Scores by question family", figures=[chart], table=shown, note=" ".join(told))


def score(predictions: Sequence[Prediction], interval_of: Bootstrap) -> Score:
    """The figures that follow from a set of answers."""
    asked = {"exact": "", "prefix": "prefix_", "blind": "blind_", "base": "base_", "closed_exact": "closed_"}
    right = {name: column(predictions, f"{start}correct") for name, start in asked.items()}
    right["majority"] = _majority_correct(predictions)

    def family(member: np.ndarray) -> FamilyScore:
        return FamilyScore(**interval_of.means(member, "exact", **right))

    whole = with_families(predictions, family)
    gains = {name: right["exact"] - right[name] for name in ("base", "blind")}
    return Score(
        base_exact=whole.pop("base"),
        **whole,
        macro_exact=mean([row.exact for row in whole["families"].values()]),
        **{f"gain_over_{name}": mean(gain) for name, gain in gains.items()},
        **{f"gain_over_{name}_ci95": interval_of(gain, paired=True) for name, gain in gains.items()},
        clusters=interval_of.unit,
        n_clusters=interval_of.n,
    )


def _majority_correct(predictions: Sequence[Prediction]) -> np.ndarray:
    """Whether each family's most frequent answer in the scored set would be right, per row."""
    truths = pd.Series([normalise(p.answer) for p in predictions])
    best = truths.groupby([p.family for p in predictions]).transform(lambda mine: most_frequent(Counter(mine)))
    return (truths == best).to_numpy(float)


NOTES = {
    "exact": "the whole answer is right",
    "prefix": "the course's looser match",
    "closed": "the likeliest of the family's answers instead of a written one, never part of the score",
    "majority": "always the family's most frequent answer",
    "blind": "the same adapter without seeing the picture",
    "base": "the base model without the adapter",
}


_COLUMNS = {"n": "n", "exact": "exact", "95% interval": "exact_ci95", "prefix": "prefix", "closed": "closed_exact"}
_COLUMNS |= {"majority": "majority", "blind": "blind", "base": "base"}
_ADAPTER = {"color": style.BLUE, "marker": "o", "label": "with the adapter, 95% interval"}
_BASELINES = {
    "majority": {"marker": "|", "color": style.BLACK, "markersize": 12, "label": "most frequent answer"},
    "blind": {"marker": "s", "color": style.VERMILLION, "markersize": 6, "label": "without seeing the picture"},
    "base": {"marker": "D", "color": style.GREEN, "markersize": 6, "label": "base without adapter"},
}


def accuracy_chart(figures: Score) -> Figure:
    """Strict exact match per family and overall with 95% intervals, beside majority, blind and the base alone."""
    rows = figures.rows
    chart, axes = style.family_rows([(name, row.n) for name, row in rows])
    for y, (_, row) in enumerate(rows):
        style.hollow_marks(axes, y, row, _BASELINES)
        style.dot(axes, y, row.exact, row.exact_ci95, size=7 if y else 10)
        bold = "normal" if y else "bold"
        axes.text(1.04, y, percent(row.exact), va="center", fontweight=bold, fontsize=9)
    axes.set_xlim(0, 1)
    clusters = f"\n(95% intervals over {figures.n_clusters} {figures.clusters}s)" if figures.n_clusters else ""
    style.plain(axes, None, f"questions answered exactly right{clusters}", "")
    shown = [look for key, look in _BASELINES.items() if any(getattr(row, key) is not None for _, row in rows)]
    style.legend_above(chart, [_ADAPTER, *(style.HOLLOW | look for look in shown)], columns=2)
    return chart
