"""Accuracy against what the picture is like: size and visibility of the kart asked for, karts in view, view, track.

A slice of hard questions may only hold more of a hard family. So each carries `expected`, what it would score if only
the families that it holds mattered; what the slice itself does is the difference.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import floor
from typing import ClassVar, Self

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator, PercentFormatter

from stkvlm_lib.analysis.intervals import column, mean
from stkvlm_lib.analysis.measured import Share
from stkvlm_lib.analysis.question_facts import Facts
from stkvlm_lib.analysis.scored_run import Analysis, ScoredRun
from stkvlm_lib.analysis.sections import Section, Shown, Table, table, tables
from stkvlm_lib.evaluation.predictions import Prediction
from stkvlm_lib.figures.style import BLACK, BLUE, PALE_LINE, Chart, plain
from stkvlm_lib.number_text import count, interval, percent, points

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
TITLES = {
    "size": "Size of the kart asked for",
    "visible": "Visible share of that kart",
    "karts": "Karts in view",
    "line_up": "That kart on this track",
    "view": "View (camera behind kart …)",
    "track": "Track",
}
"""Kind of slice -> the title of its panel."""
TEXT = (
    "Dots are the share answered exactly right, black bars what the slice would score if only the families of "
    "questions in it mattered. Where a dot stands away from its bar, the slice itself is easier or harder."
)
_ORDER = {
    "size": [_SIZE_NAMES[low] for low in (0, *SIZES)],
    "visible": [_SHARE_NAMES[low] for low in SHARES],
    "karts": [*map(str, range(MOST_KARTS)), f"{MOST_KARTS} or more"],
    "view": [*map(str, range(100))],
    "line_up": [SEEN, UNSEEN],
}


@dataclass(frozen=True)
class Slice(Share):
    """One slice. expected: None in runs of before it was measured."""

    expected: float | None = None


@dataclass(frozen=True)
class Slices(Analysis):
    """kinds: {kind: {slice: its figures}}; kinds of one slice are left out but for line-ups."""

    KEY: ClassVar[str] = "slices"
    WHOLE: ClassVar[str] = "kinds"

    kinds: dict[str, dict[str, Slice]]

    @classmethod
    def measure(cls, run: ScoredRun) -> Self | None:
        if not run.facts:
            return None
        right, expected = column(run.predictions, "correct"), family_rates(run.predictions)

        def figures(member: np.ndarray) -> Slice:
            exact, ends = mean(right[member]), run.interval(right, member)
            return Slice(int(member.sum()), exact, ends, mean(expected[member]))

        found = {}
        for kind, label in SLICES.items():
            labels = [label(p, f) for p, f in zip(run.predictions, run.facts, strict=True)]
            members = {name: np.array([x == name for x in labels]) for name in _in_order(kind, set(labels) - {None})}
            if len(members) > (kind != "line_up"):
                found[kind] = {name: figures(member) for name, member in members.items()}
        return cls(found) if found else None

    def section(self, run: ScoredRun) -> Section:
        caption = "Accuracy by what the picture is like, with 95% intervals, and what its families alone would give."
        alt = "Dot plots of accuracy by slice; the tables below list them as text."
        chart = Shown("score_slices", slice_chart(self), caption, alt)
        details = tables(*(self.table(kind) for kind in TITLES))
        return Section("Where answers are wrong", TEXT, [chart], details=details)

    def table(self, kind: str) -> Table | None:
        """The slices of one kind."""
        return table(
            (
                {
                    TITLES[kind].lower(): name,
                    "n": count(row.n),
                    "exact": percent(row.exact),
                    "95% interval": interval(row.exact_ci95),
                    "expected": percent(row.expected),
                    "points": points(None if row.expected is None else row.exact - row.expected),
                }
                for name, row in self.kinds.get(kind, {}).items()
            ),
            f"{TITLES[kind]}, as text",
        )


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


def slice_chart(slices: Slices) -> Figure:
    """Accuracy in every slice with its interval, and what the mix of families alone would give; tracks at the right."""
    kinds = [kind for kind in TITLES if slices.kinds.get(kind)]
    tall, small = [k for k in kinds if k == "track"], [k for k in kinds if k != "track"]
    rows = sum(len(slices.kinds[kind]) + 2.2 for kind in small)
    height = max(rows, *(len(slices.kinds[kind]) + 2.2 for kind in tall), 6) * 0.205 + 0.6
    chart = Chart(figsize=(9.6, height), layout="constrained")
    widths = [1.25] * bool(small) + [1] * bool(tall)
    columns = chart.add_gridspec(1, len(widths), width_ratios=widths, wspace=0.04)
    places = []
    if small:
        heights = [len(slices.kinds[kind]) + 0.6 for kind in small]
        grid = columns[0].subgridspec(len(small), 1, height_ratios=heights)
        places += [(kind, chart.add_subplot(grid[i])) for i, kind in enumerate(small)]
    if tall:
        places.append(("track", chart.add_subplot(columns[-1])))
    low = _lower_end(row for kind in kinds for row in slices.kinds[kind].values())
    for kind, axes in places:
        axes.set_xlim(low, 1)
        axes.xaxis.set_major_locator(MultipleLocator(0.1 if low >= 0.4 else 0.2))
        _slice_panel(axes, kind, slices.kinds[kind], last=kind in (kinds[-1], small[-1] if small else None))
    handles = [
        Line2D([], [], color=BLUE, marker="o", label="answered exactly right, 95% interval"),
        Line2D([], [], color=BLACK, marker="|", markersize=11, linestyle="", markeredgewidth=1.6,
               label="expected of its mix of families"),
    ]  # fmt: skip
    chart.legend(handles=handles, loc="outside upper left", ncols=2, frameon=False, fontsize=8.5)
    return chart


def _lower_end(rows: Iterable[Slice]) -> float:
    """Where the axis of all panels begins: a whole tenth under all that is shown."""
    least = min(min(row.exact, 1.0 if row.expected is None else row.expected, *(row.exact_ci95 or ())) for row in rows)
    return max(0.0, floor(10 * least - 0.5) / 10)


def _slice_panel(axes: Axes, kind: str, rows: dict[str, Slice], last: bool) -> None:
    names = sorted(rows, key=lambda name: -rows[name].exact) if kind == "track" else list(rows)
    for y, name in enumerate(names):
        row = rows[name]
        axes.axhline(y, color=PALE_LINE, linewidth=0.8, zorder=0)
        if row.exact_ci95:
            axes.plot(row.exact_ci95, [y, y], color=BLUE, linewidth=4, alpha=0.4, solid_capstyle="butt")
        if row.expected is not None:
            axes.plot(row.expected, y, "|", color=BLACK, markersize=10, markeredgewidth=1.6, zorder=3)
        axes.plot(row.exact, y, "o", color=BLUE, markersize=5.5, zorder=4, clip_on=False)
        axes.text(1.04, y, f"{row.exact:.0%}", va="center", fontsize=8, transform=axes.get_yaxis_transform())
    labels = [f"{name}  (n = {rows[name].n:,})" for name in names]
    axes.set(yticks=range(len(names)), yticklabels=labels, ylim=(len(names) - 0.4, -0.6))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    plain(axes, TITLES[kind], "questions answered exactly right" if last else "", "")
    axes.tick_params(labelsize=8, labelbottom=last)
