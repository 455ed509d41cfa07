"""Two runs on the questions that both answered: the paired difference, and which questions one won and lost."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Self

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from stkvlm_lib.analysis.intervals import Bootstrap, mean, with_families
from stkvlm_lib.analysis.measured import ByFamily, Interval, Measured
from stkvlm_lib.analysis.scored_run import Analysis, ScoredRun
from stkvlm_lib.analysis.sections import Section, Shown, Table, listed, table_of
from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.evaluation.predictions import Prediction
from stkvlm_lib.figures.style import BLACK, BLUE, GREY, VERMILLION, dot, family_rows, message, plain
from stkvlm_lib.figures.tiles import question_tiles, wrapped
from stkvlm_lib.grammar.questions import is_exact
from stkvlm_lib.grouping import by_turns
from stkvlm_lib.number_text import count, interval, percent, points
from stkvlm_lib.runs import compared_run

GALLERY, LISTED = 6, 12
"""Questions won and lost in a gallery, rows in a table."""
FEWEST_CLUSTERS = 10
"""With fewer races (or pictures) to resample, intervals come out too narrow to decide anything."""


class ComparisonError(ValueError):
    """Two runs that cannot be compared; the message says why and what to do."""


@dataclass(frozen=True)
class Pair:
    """One question with the answers of both runs."""

    ours: Prediction
    other: Prediction

    @property
    def gain(self) -> int:
        """1: only we are right (won); -1: only the other is (lost); 0: both or none."""
        return self.ours.correct - self.other.correct


@dataclass(frozen=True)
class Shared:
    """The questions that both runs answered, and how many are left out: asked of one alone, or with another truth."""

    pairs: list[Pair]
    only_ours: int
    only_other: int
    other_truth: int


def share(ours: Iterable[Prediction], other: Iterable[Prediction]) -> Shared:
    """Pair the answers to the same question about the same picture. Raises ComparisonError where there is none."""
    mine, theirs = ({(p.image_file, p.question): p for p in rows} for rows in (ours, other))
    both = [Pair(mine[key], theirs[key]) for key in mine if key in theirs]
    pairs = [pair for pair in both if is_exact(pair.ours.answer, pair.other.answer)]
    if both and not pairs:
        raise ComparisonError(
            f"the runs share {len(both):,} questions, but none has the same true answer in both; score both on the "
            "same frames and questions with notebook 04_evaluate"
        )
    if not both:
        names = [next(iter(rows), ("no question at all",))[0] for rows in (mine, theirs)]
        raise ComparisonError(
            f"the runs share no question ({len(mine):,} and {len(theirs):,} answered; the first pictures are "
            f"{names[0]} and {names[1]}); score both on the same FRAMES_DIR or QA_FILE with notebook 04_evaluate"
        )
    return Shared(pairs, len(mine) - len(both), len(theirs) - len(both), len(both) - len(pairs))


@dataclass(frozen=True)
class Difference(Measured):
    """Some questions: shares right of both, the paired difference (ours less the other), questions won and lost."""

    n: int
    exact: float
    other_exact: float
    difference: float
    difference_ci95: Interval
    won: int
    lost: int


@dataclass(frozen=True)
class Comparison(Difference, ByFamily, Analysis):
    """Over all shared questions and by family; what is left out is counted. run: the name of the other."""

    KEY: ClassVar[str] = "comparison"
    NONE: ClassVar[str] = "Nothing to compare with: name another run in COMPARE_RUN."

    run: str = "another run"
    only_ours: int = 0
    only_other: int = 0
    other_truth: int = 0
    clusters: str = "race"
    n_clusters: int = 0
    families: dict[str, Difference] | None = None

    @property
    def decided(self) -> str:
        """What the difference decides: `better`, `worse`, `chance`, or `few` where too few clusters were resampled."""
        if self.n_clusters < FEWEST_CLUSTERS:
            return "few"
        low, high = self.difference_ci95
        return "better" if low > 0 else "worse" if high < 0 else "chance"

    @property
    def verdict(self) -> str:
        """The same in words."""
        if self.decided == "few":
            n, unit = count(self.n_clusters), self.clusters
            return f"too few {unit}s to tell ({n}; an interval over fewer than {FEWEST_CLUSTERS} is too narrow)"
        return "neither better nor worse beyond chance" if self.decided == "chance" else self.decided

    @classmethod
    def read(cls, metrics: dict) -> Self | None:
        """Not those of metrics.json: they may be of another pair of runs."""
        return None

    @classmethod
    def measure(cls, run: ScoredRun) -> Self | None:
        """Raises ConfigError or ComparisonError for a run that cannot be compared with."""
        if not run.compare_run:
            return None
        shared, name = _shared(run), compared_run(run.compare_run).resolve().name
        return compare(shared, run.interval_of([pair.ours for pair in shared.pairs]), name)

    def section(self, run: ScoredRun) -> Section:
        pairs = _shared(run).pairs
        caption = "Difference to the other run on the same questions, by family, with 95% intervals."
        told = ((name, points(row.difference)) for name, row in self.rows)
        alt = listed("Dot plot of the difference to the other run in percentage points", told)
        figures, details = [Shown("score_comparison", difference_chart(self), caption, alt)], []
        for change, gain, words in (("won", 1, WON), ("lost", -1, LOST)):
            alt, found = f"{words} The tables below list them as text.", changed(pairs, gain)
            figures += run.gallery(f"score_{change}", words, partial(changed_gallery, found), alt)
            rows = ((pair.ours.question, pair) for pair in found[:LISTED])
            details.append(table_of("question", rows, _CHANGED, f"Questions {change}, as text"))
        text = self.words("this run", self.run)
        return Section(f"Against {self.run}", text, figures, self.table(), details)

    def table(self, ours: str = "this run", other: str = "other run") -> Table | None:
        difference = {"difference, points": ("difference", points), "95% interval": ("difference_ci95", points)}
        columns = {"n": "n", ours: "exact", other: "other_exact"} | difference | {"won": "won", "lost": "lost"}
        return table_of("family", self.rows, columns)

    def words(self, ours: str = "this run", other: str = "the other run") -> str:
        """The same in sentences, with what was left out."""
        text = (
            f"On the {count(self.n)} questions that both answered, {ours} is right in {percent(self.exact)} and "
            f"{other} in {percent(self.other_exact)}: {points(self.difference)} points (95% interval "
            f"{interval(self.difference_ci95, points)}, paired, over {count(self.n_clusters)} {self.clusters}s), "
            f"{self.verdict}. {count(self.won)} questions are won, {count(self.lost)} lost."
        )
        left_out = (
            (self.only_ours, f"that only {ours} answered"),
            (self.only_other, f"that only {other} answered"),
            (self.other_truth, "whose true answer differs between the two"),
        )
        parts = [f"{count(n)} {what}" for n, what in left_out if n]
        return text + (f" Left out: {', '.join(parts)}." if parts else "")


def _shared(run: ScoredRun) -> Shared:
    """The questions that a run shares with the one it is compared with. Raises ConfigError or ComparisonError."""
    return share(run.predictions, run.compared_answers)


_CHANGED = {"truth": "ours.answer", "this run": "ours.prediction", "other run": "other.prediction"}
_CHANGED |= {"picture": "ours.image_file"}
WON = "Questions that the other run answered wrong and this one right; the ego kart is yellow."
LOST = "Questions that the other run answered right and this one wrong; the ego kart is yellow."


def compare(shared: Shared, interval_of: Bootstrap, other: str = "another run") -> Comparison:
    """The paired figures. interval_of: over our answers to the shared questions, in their order."""
    ours, theirs = [pair.ours for pair in shared.pairs], [pair.other for pair in shared.pairs]
    right, other_right = (np.array([p.correct for p in rows], float) for rows in (ours, theirs))
    gain = right - other_right

    def figures(member: np.ndarray) -> Difference:
        return Difference(
            n=int(member.sum()),
            exact=mean(right[member]),
            other_exact=mean(other_right[member]),
            difference=mean(gain[member]),
            difference_ci95=interval_of(gain, member, paired=True),
            won=int((gain[member] > 0).sum()),
            lost=int((gain[member] < 0).sum()),
        )

    return Comparison(
        **with_families(ours, figures),
        run=other,
        only_ours=shared.only_ours,
        only_other=shared.only_other,
        other_truth=shared.other_truth,
        clusters=interval_of.unit,
        n_clusters=interval_of.n,
    )


def changed(pairs: Sequence[Pair], gain: int) -> list[Pair]:
    """The questions won (gain 1) or lost (-1): each family in turn, that of most first, and of a family the surest of
    the right answers first."""
    found = [pair for pair in pairs if pair.gain == gain]
    sizes = Counter(pair.ours.family for pair in found)

    def place(pair: Pair) -> tuple:
        right = pair.ours if pair.ours.correct else pair.other
        return -sizes[right.family], -right.confidence, right.image_file, right.question

    return by_turns(sorted(found, key=place), lambda pair: pair.ours.family)


def changed_gallery(pairs: Sequence[Pair], folder: FrameSet) -> Figure:
    """The first of such questions about each picture."""
    first: dict[str, Pair] = {}
    for pair in pairs:
        first.setdefault(pair.ours.image_file, pair)
    captioned = []
    for pair in list(first.values())[:GALLERY]:
        ours, other = (p.prediction or "(nothing)" for p in (pair.ours, pair.other))
        told = f"truth: {pair.ours.answer}\nthis run: {ours}\nother run: {other}"
        captioned.append((pair.ours, f"{wrapped(pair.ours.question)}\n{told}"))
    return question_tiles(folder, captioned) if captioned else message("No question of this kind.")


def difference_chart(figures: Comparison) -> Figure:
    """Paired difference of two runs, overall and by family, with 95% intervals; questions won and lost at the right.

    Blue: better, vermillion: worse, grey: either may be, as the interval holds zero.
    """
    rows = figures.rows
    chart, axes = family_rows([(name, row.n) for name, row in rows])
    for y, (_, row) in enumerate(rows):
        low, high = row.difference_ci95
        colour = BLUE if low > 0 else VERMILLION if high < 0 else GREY
        dot(axes, y, row.difference, row.difference_ci95, colour, 7 if y else 10)
        look = {"transform": axes.get_yaxis_transform(), "fontsize": 9, "fontweight": "normal" if y else "bold"}
        axes.text(1.02, y, f"{row.won:,} / {row.lost:,}", va="center", **look)
    reach = 1.08 * max(0.01, *(abs(value) for _, row in rows for value in row.difference_ci95))
    axes.set_xlim(-reach, reach)
    axes.axvline(0, color=BLACK, linewidth=0.9, zorder=1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:+.3g}" if value else "0"))
    clusters = f"95% intervals over {figures.n_clusters} {figures.clusters}s"
    plain(axes, None, f"difference in questions answered exactly right, percentage points\n({clusters})", "")
    sides = ((0, "◀ other run better", "left"), (1, "this run better ▶", "right"), (1.02, "won / lost", "left"))
    for x, text, side in sides:
        axes.text(x, 1.01, text, transform=axes.transAxes, ha=side, va="bottom", fontsize=8.5)
    return chart
