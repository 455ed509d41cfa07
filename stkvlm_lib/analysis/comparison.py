"""Two runs on the questions that both answered: the paired difference, and which questions one won and lost."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from stkvlm_lib.analysis.intervals import Bootstrap, by_family, every, mean
from stkvlm_lib.analysis.measured import Interval, Measured
from stkvlm_lib.analysis.scored_run import Analysis, ScoredRun
from stkvlm_lib.analysis.sections import Section, Shown, Table, family_lines, listed, table, tables
from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.evaluation.predictions import HEADLINE, Prediction, read_answers
from stkvlm_lib.figures.style import BLACK, BLUE, GREY, VERMILLION, family_rows, message, plain
from stkvlm_lib.figures.tiles import question_tiles, wrapped
from stkvlm_lib.grammar.questions import is_exact
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
    if not pairs:
        raise ComparisonError(_nothing_shared(mine, theirs, len(both)))
    return Shared(pairs, len(mine) - len(both), len(theirs) - len(both), len(both) - len(pairs))


def _nothing_shared(mine: dict, theirs: dict, both: int) -> str:
    if both:
        return (
            f"the runs share {both:,} questions, but none has the same true answer in both; score both on the same "
            "frames and questions with notebook 04_evaluate"
        )
    names = [next(iter(rows), ("no question at all",))[0] for rows in (mine, theirs)]
    return (
        f"the runs share no question ({len(mine):,} and {len(theirs):,} answered; the first pictures are {names[0]} "
        f"and {names[1]}); score both on the same FRAMES_DIR or QA_FILE with notebook 04_evaluate"
    )


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
class Comparison(Difference, Analysis):
    """Over all shared questions and by family; what is left out is counted. run: the name of the other."""

    KEY: ClassVar[str] = "comparison"

    run: str = "another run"
    only_ours: int = 0
    only_other: int = 0
    other_truth: int = 0
    clusters: str = "race"
    n_clusters: int = 0
    families: dict[str, Difference] | None = None

    @property
    def rows(self) -> list[tuple[str, Difference]]:
        return family_lines(self, self.families)

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
        n, unit = count(self.n_clusters), self.clusters
        words = {
            "few": f"too few {unit}s to tell ({n}; an interval over fewer than {FEWEST_CLUSTERS} is too narrow)",
            "chance": "neither better nor worse beyond chance",
        }
        return words.get(self.decided, self.decided)

    @classmethod
    def read(cls, metrics: dict) -> Self | None:
        """Not those of metrics.json: they may be of another pair of runs."""
        return None

    @classmethod
    def measure(cls, run: ScoredRun) -> Self | None:
        """Raises ConfigError or ComparisonError for a run that cannot be compared with."""
        if not run.compare_run:
            return None
        shared = _shared(run)
        name = compared_run(run.compare_run).resolve().name
        return compare(shared, run.interval_of([pair.ours for pair in shared.pairs]), name)

    def section(self, run: ScoredRun) -> Section:
        pairs = _shared(run).pairs
        caption = "Difference to the other run on the same questions, by family, with 95% intervals."
        told = ((name, points(row.difference)) for name, row in self.rows)
        alt = listed("Dot plot of the difference to the other run in percentage points", told)
        figures, details = [Shown("score_comparison", difference_chart(self), caption, alt)], []
        for change, gain, words in (("won", 1, WON), ("lost", -1, LOST)):
            alt = f"{words} The tables below list them as text."
            few = changed(pairs, gain, GALLERY)
            figures += run.gallery(f"score_{change}", words, lambda frames, few=few: changed_gallery(few, frames), alt)
            details.append(changed_table(changed(pairs, gain, LISTED), f"Questions {change}, as text"))
        text = self.words("this run", self.run)
        return Section(f"Against {self.run}", text, figures, self.table(), tables(*details))

    def table(self, ours: str = "this run", other: str = "other run") -> Table | None:
        return table(
            {
                "family": name,
                "n": count(row.n),
                ours: percent(row.exact),
                other: percent(row.other_exact),
                "difference, points": points(row.difference),
                "95% interval": interval(row.difference_ci95, points),
                "won": count(row.won),
                "lost": count(row.lost),
            }
            for name, row in self.rows
        )

    def words(self, ours: str = "this run", other: str = "the other run") -> str:
        """The same in sentences, with what was left out."""
        text = (
            f"On the {count(self.n)} questions that both answered, {ours} is right in {percent(self.exact)} and "
            f"{other} in {percent(self.other_exact)}: {points(self.difference)} points (95% interval "
            f"{interval(self.difference_ci95, points)}, paired, over {count(self.n_clusters)} {self.clusters}s), "
            f"{self.verdict}. {count(self.won)} questions are won, {count(self.lost)} lost."
        )
        left_out = {
            f"that only {ours} answered": self.only_ours,
            f"that only {other} answered": self.only_other,
            "whose true answer differs between the two": self.other_truth,
        }
        parts = [f"{count(n)} {what}" for what, n in left_out.items() if n]
        return text + (f" Left out: {', '.join(parts)}." if parts else "")


def _shared(run: ScoredRun) -> Shared:
    """The questions that a run shares with the one it is compared with. Raises ConfigError or ComparisonError."""
    return share(run.predictions, read_answers(compared_run(run.compare_run) / HEADLINE))


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
            difference_ci95=interval_of(gain, member),
            won=int((gain[member] > 0).sum()),
            lost=int((gain[member] < 0).sum()),
        )

    return Comparison(
        **vars(figures(every(ours))),
        run=other,
        only_ours=shared.only_ours,
        only_other=shared.only_other,
        other_truth=shared.other_truth,
        clusters=interval_of.unit,
        n_clusters=interval_of.n,
        families=by_family(ours, figures),
    )


def changed(pairs: Sequence[Pair], gain: int, n: int) -> list[Pair]:
    """n questions won (gain 1) or lost (-1): each family in turn, the surest of the right answers first."""
    piles: dict[str, list[Pair]] = defaultdict(list)
    for pair in sorted((p for p in pairs if p.gain == gain), key=lambda p: _sureness(p, gain)):
        piles[pair.ours.family].append(pair)
    return list(_in_turn(sorted(piles.values(), key=len, reverse=True)))[:n]


def _sureness(pair: Pair, gain: int) -> tuple:
    """Sorts by the confidence of the run that is right, the highest first."""
    right = pair.ours if gain > 0 else pair.other
    return -right.confidence, right.image_file, right.question


def _in_turn(piles: Sequence[Sequence[Pair]]) -> Iterator[Pair]:
    for place in range(max(map(len, piles), default=0)):
        yield from (pile[place] for pile in piles if place < len(pile))


def changed_gallery(pairs: Sequence[Pair], folder: FrameSet) -> Figure:
    """Questions that one of two runs answered right and the other wrong, on their pictures."""
    if not pairs:
        return message("No question of this kind.")
    lines = "{}\ntruth: {}\nthis run: {}\nother run: {}".format
    given = [(p.ours, p.ours.prediction or "(nothing)", p.other.prediction or "(nothing)") for p in pairs]
    return question_tiles(folder, [(o, lines(wrapped(o.question), o.answer, mine, other)) for o, mine, other in given])


def changed_table(pairs: Sequence[Pair], title: str) -> Table | None:
    """The same as text."""
    rows = (
        {
            "question": pair.ours.question,
            "truth": pair.ours.answer,
            "this run": pair.ours.prediction,
            "other run": pair.other.prediction,
            "picture": pair.ours.image_file,
        }
        for pair in pairs
    )
    return table(rows, title)


def difference_chart(figures: Comparison) -> Figure:
    """Paired difference of two runs, overall and by family, with 95% intervals; questions won and lost at the right.

    Blue: better, vermillion: worse, grey: either may be, as the interval holds zero.
    """
    rows = figures.rows
    chart, axes = family_rows([(name, row.n) for name, row in rows], first="all questions")
    for y, (_, row) in enumerate(rows):
        _difference_row(axes, y, row, 1.4 if y == 0 else 1.0)
    reach = 1.08 * max(0.01, *(abs(value) for _, row in rows for value in row.difference_ci95))
    axes.set_xlim(-reach, reach)
    axes.axvline(0, color=BLACK, linewidth=0.9, zorder=1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:+.3g}" if value else "0"))
    clusters = f"95% intervals over {figures.n_clusters} {figures.clusters}s"
    plain(axes, None, f"difference in questions answered exactly right, percentage points ({clusters})", "")
    for x, text, side in ((0.0, "◀ other run better", "left"), (1.0, "this run better ▶", "right")):
        axes.text(x, 1.01, text, transform=axes.transAxes, ha=side, va="bottom", fontsize=8.5)
    axes.text(1.02, 1.01, "won / lost", transform=axes.transAxes, ha="left", va="bottom", fontsize=8.5)
    return chart


def _difference_row(axes: Axes, y: float, row: Difference, weight: float) -> None:
    low, high = row.difference_ci95
    colour = BLUE if low > 0 else VERMILLION if high < 0 else GREY
    axes.plot([low, high], [y, y], color=colour, linewidth=4 * weight, alpha=0.45, solid_capstyle="butt")
    axes.plot(row.difference, y, "o", color=colour, markersize=7 * weight)
    text = f"{row.won:,} / {row.lost:,}"
    bold = "bold" if weight > 1 else "normal"
    axes.text(1.02, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=9, fontweight=bold)
