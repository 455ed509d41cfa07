"""Accuracy against what the picture is like: size and visibility of the kart asked for, karts in view, view, track.

A slice of hard questions may only hold more of a hard family. So each carries `expected`, what it would score if only
the families that it holds mattered; what the slice itself does is the difference.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import floor
from typing import ClassVar, Self

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from stkvlm_lib.analysis.intervals import column
from stkvlm_lib.analysis.measured import Share
from stkvlm_lib.analysis.question_facts import Facts
from stkvlm_lib.analysis.scored_run import NO_PICTURES, Analysis, ScoredRun
from stkvlm_lib.analysis.sections import Section, Shown, Table, table_of
from stkvlm_lib.evaluation.predictions import Prediction
from stkvlm_lib.figures.style import BLACK, BLUE, HOLLOW, WIDTH, Chart, dot, hollow_marks, legend_above, plain, set_rows
from stkvlm_lib.number_text import points

SIZES = {"under 5 px": 0, "5 to 6 px": 5, "7 to 9 px": 7, "10 to 14 px": 10, "15 to 24 px": 15, "25 px or more": 25}
"""Slices by size with their lower ends, px of 150x100; 5 and 7 are the limits of the course's and the strict rule."""
SHARES = {"under 40%": 0.0, "40% to 70%": 0.4, "70% to 95%": 0.7, "95% to 100%": 0.95}
"""Slices by visible share with their lower ends; under 0.4 the strict rule declines."""
KARTS = ("0", "1", "2", "3", "4", "5", "6 or more")
SEEN, UNSEEN = "seen in train", "unseen in train"
FEWEST_RACES = 3
"""With fewer races (or pictures) behind it a slice gets no interval: what is resampled of two has three outcomes."""


def _place(value: float | None, ends: dict[str, float]) -> str | None:
    """The slice that a value falls into, of those with these lower ends."""
    return None if value is None else list(ends)[bisect_right([*ends.values()], value) - 1]


@dataclass(frozen=True)
class Kind:
    """A way to cut the questions. of: the slice of a question, None where it is in none; order: of its slices, by
    default by name."""

    title: str
    of: Callable[[Prediction, Facts], str | None]
    order: Sequence[str] = ()


KINDS = {
    "size": Kind("Size of the kart asked for", lambda _, f: _place(f.size, SIZES), [*SIZES]),
    "visible": Kind("Visible share of that kart", lambda _, f: _place(f.visible, SHARES), [*SHARES]),
    "karts": Kind("Karts in view", lambda _, f: KARTS[min(f.karts, len(KARTS) - 1)], KARTS),
    "line_up": Kind(
        "That kart on this track",
        lambda _, f: None if f.known is None else SEEN if f.known else UNSEEN,
        (SEEN, UNSEEN),
    ),
    "view": Kind("View (camera behind kart …)", lambda _, f: str(f.view), [*map(str, range(100))]),
    "track": Kind("Track", lambda p, _: p.track),
}
TEXT = (
    "Dots are the share answered exactly right, black bars what the slice would score if only the families of "
    "questions in it mattered. Where a dot stands away from its bar, the slice itself is easier or harder. Slices of "
    f"fewer than {FEWEST_RACES} races have no interval."
)


@dataclass(frozen=True)
class Slice(Share):
    """One slice. expected: None in runs of before it was measured."""

    expected: float | None = None

    @property
    def difference(self) -> float | None:
        return None if self.expected is None else self.exact - self.expected


@dataclass(frozen=True)
class Slices(Analysis):
    """kinds: {kind: {slice: its figures}}; kinds of one slice are left out but for line-ups."""

    KEY: ClassVar[str] = "slices"
    NONE: ClassVar[str] = NO_PICTURES
    WHOLE: ClassVar[str] = "kinds"

    kinds: dict[str, dict[str, Slice]]

    @classmethod
    def measure(cls, run: ScoredRun) -> Self | None:
        if not run.facts:
            return None
        right, expected = column(run.predictions, "correct"), family_rates(run.predictions)

        def figures(member: np.ndarray) -> Slice:
            found = Slice(**run.interval.means(member, "exact", exact=right, expected=expected))
            few = run.interval.clusters(member) < FEWEST_RACES
            return replace(found, exact_ci95=None) if few else found

        found = {}
        for name, kind in KINDS.items():
            labels = np.array([kind.of(p, f) or "" for p, f in zip(run.predictions, run.facts, strict=True)])
            there = [label for label in kind.order or np.unique(labels).tolist() if label and label in labels]
            if len(there) > 1 or (there and name == "line_up"):  # that all line-ups are known does say something
                found[name] = {label: figures(labels == label) for label in there}
        return cls(found) if found else None

    def section(self, run: ScoredRun) -> Section:
        caption = "Accuracy by what the picture is like, with 95% intervals, and what its families alone would give."
        alt = "Dot plots of accuracy by slice; the tables below list them as text."
        chart = Shown("score_slices", slice_chart(self), caption, alt)
        return Section("Where answers are wrong", TEXT, [chart], details=map(self.table, KINDS))

    def table(self, kind: str) -> Table | None:
        """The slices of one kind; None where there is no other to compare one with."""
        rows = self.kinds.get(kind, {})
        if len(rows) < 2:
            return None
        columns = {"n": "n", "exact": "exact", "95% interval": "exact_ci95", "expected": "expected"}
        columns |= {"points": ("difference", points)}
        return table_of(KINDS[kind].title.lower(), rows.items(), columns, f"{KINDS[kind].title}, as text")


def family_rates(predictions: Sequence[Prediction], among: np.ndarray | None = None) -> np.ndarray:
    """(N,) for each question the share right of its family; among: counted over these, NaN where there are none."""
    right = pd.Series(column(predictions, "correct"))
    counted = right if among is None else right.where(among)
    return counted.groupby([p.family for p in predictions]).transform("mean").to_numpy()


def slice_chart(slices: Slices) -> Figure:
    """A panel a kind: accuracy in every slice with its interval, and what the mix of families alone would give."""
    kinds = [kind for kind in KINDS if slices.kinds.get(kind)]
    rows = [len(slices.kinds[kind]) for kind in kinds]
    chart = Chart(figsize=(WIDTH, 0.205 * (sum(rows) + 2.2 * len(rows)) + 0.6), layout="constrained")
    low = _lower_end(row for kind in kinds for row in slices.kinds[kind].values())
    panels = chart.subplots(len(kinds), 1, squeeze=False, height_ratios=[n + 0.6 for n in rows])
    for kind, axes in zip(kinds, panels.flat, strict=True):
        axes.set_xlim(low, 1)
        axes.xaxis.set_major_locator(MultipleLocator(0.1 if low >= 0.4 else 0.2))
        _slice_panel(axes, kind, slices.kinds[kind], last=kind == kinds[-1])
    legend_above(chart, (_EXACT, HOLLOW | _EXPECTED))
    return chart


_EXACT = {"color": BLUE, "marker": "o", "label": "answered exactly right, 95% interval"}
_EXPECTED = {"color": BLACK, "marker": "|", "markersize": 10, "label": "expected of its mix of families"}


def _lower_end(rows: Iterable[Slice]) -> float:
    """Where the axis of all panels begins: a whole tenth under all that is shown."""
    least = min(min(row.exact, 1.0 if row.expected is None else row.expected, *(row.exact_ci95 or ())) for row in rows)
    return max(0.0, floor(10 * least - 0.5) / 10)


def _slice_panel(axes: Axes, kind: str, rows: dict[str, Slice], last: bool) -> None:
    names = sorted(rows, key=lambda name: -rows[name].exact) if kind == "track" else list(rows)
    set_rows(axes, [f"{name}  (n = {rows[name].n:,})" for name in names])
    for y, row in enumerate(rows[name] for name in names):
        hollow_marks(axes, y, row, {"expected": _EXPECTED})
        dot(axes, y, row.exact, row.exact_ci95, size=5.5)
        axes.text(1.04, y, f"{row.exact:.0%}", va="center", fontsize=8, transform=axes.get_yaxis_transform())
    plain(axes, KINDS[kind].title, "questions answered exactly right" if last else "", "")
    axes.tick_params(labelsize=8, labelbottom=last)
