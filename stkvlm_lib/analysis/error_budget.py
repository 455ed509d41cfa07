"""Why answers are wrong: each wrong one has the one cause whose rule holds first (see causes), so they sum to all."""

import textwrap
from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
from matplotlib.figure import Figure

from stkvlm_lib.analysis.causes import CAUSES, error_causes, question_property
from stkvlm_lib.analysis.intervals import column, mean
from stkvlm_lib.analysis.measured import Measured
from stkvlm_lib.analysis.scored_run import Analysis, ScoredRun
from stkvlm_lib.analysis.sections import Section, Shown, Table, listed, table
from stkvlm_lib.analysis.slices import family_rates
from stkvlm_lib.figures import style
from stkvlm_lib.number_text import count, percent

NOTE = (
    "The rules are tried in the order of the table, so that no error counts twice; of all: of all questions. Causes "
    "with a number under asked are properties that so many questions have before they are answered. right: what is "
    "right of these; plain right: what would be if they were answered like the questions of the same families without "
    "any such property. The difference is what the property costs. The other causes are read off the answers."
)
GROUPS = {
    "ego kart": (style.ORANGE, ("ego",)),
    "places": (style.BLUE, ("left_right", "front_back", "where")),
    "relative counts": (style.SKY, ("count_left", "count_right", "count_front", "count_behind")),
    "total count": (style.VERMILLION, ("count",)),
    "track": (style.GREEN, ("track",)),
    "other": (style.PURPLE, ()),
}
"""Group of families -> its colour and its families; those of no other group are `other`."""


@dataclass(frozen=True)
class CauseCost(Measured):
    """One cause. n, share, cost: errors, their share of all errors, and of all questions. touched, exact, expected, of
    causes that are known before the answer: how many questions have it, what is right of these, and what would be if
    they were answered like the plain questions of their families."""

    n: int
    share: float
    cost: float
    touched: int | None = None
    exact: float | None = None
    expected: float | None = None
    families: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ErrorBudget(Analysis):
    """Errors by cause, in the order of their rules, summing to all."""

    KEY: ClassVar[str] = "error_budget"

    errors: int
    n: int
    causes: dict[str, CauseCost]

    @classmethod
    def measure(cls, run: ScoredRun) -> Self | None:
        if not run.facts:
            return None
        rows, causes = run.predictions, error_causes(run.predictions, run.facts)
        properties = [question_property(f) for f in run.facts]
        right = column(rows, "correct")
        plain_rates = family_rates(rows, np.array([found is None for found in properties]))
        errors, costs = sum(cause is not None for cause in causes), {}
        for name in CAUSES:
            families = Counter(p.family for p, cause in zip(rows, causes, strict=True) if cause == name)
            n, touched = families.total(), np.array([found == name for found in properties])
            if n or touched.any():
                costs[name] = CauseCost(
                    n=n,
                    share=n / errors if errors else 0.0,
                    cost=n / len(rows),
                    touched=int(touched.sum()) or None,
                    exact=mean(right[touched]),
                    expected=mean(plain_rates[touched]),
                    families=dict(families),
                )
        return cls(errors, len(rows), costs)

    def section(self, run: ScoredRun) -> Section:
        text = (
            f"{count(self.errors)} of {count(self.n)} answers are wrong. Each has the one cause whose rule holds "
            "first; together they are all errors."
        )
        caption = "Errors by cause, as shares of all questions; colours are the kinds of question."
        alt = listed("Bars of errors by cause", ((name, count(row.n)) for name, row in self.causes.items()))
        chart = Shown("score_budget", budget_chart(self), caption, alt)
        return Section("Why answers are wrong", text, [chart], self.table(), note=NOTE)

    def table(self) -> Table | None:
        """Errors by cause with their sum. of all: of all questions."""
        whole = CauseCost(self.errors, 1.0, self.errors / self.n)
        return table(
            {
                "cause": name,
                "when": CAUSES[name].what if name in CAUSES else "",
                "errors": count(row.n),
                "of errors": percent(row.share),
                "of all": percent(row.cost),
                "asked": count(row.touched),
                "right": percent(row.exact),
                "plain right": percent(row.expected),
                "what would lift it": CAUSES[name].lift if name in CAUSES else "",
            }
            for name, row in [*self.causes.items(), ("all errors", whole)]
        )


def budget_chart(budget: ErrorBudget) -> Figure:
    """One bar a cause, as long as it costs, cut by the kind of question that is answered wrong."""
    if not budget.errors:
        return style.message("No error budget: no answer is wrong.")
    rows = {name: row for name, row in budget.causes.items() if row.n}
    home = {family: group for group, (_, members) in GROUPS.items() for family in members}
    parts = {group: np.zeros(len(rows)) for group in GROUPS}
    for y, row in enumerate(rows.values()):
        for family, n in row.families.items():
            parts[home.get(family, "other")][y] += n / budget.n
    shown = {group: shares for group, shares in parts.items() if shares.any()}
    chart = style.Chart(figsize=(style.WIDTH, 1.3 + 0.4 * len(rows)), layout="constrained")
    axes = chart.subplots()
    ends = style.stacked_bars(axes, shown, [GROUPS[group][0] for group in shown])
    for y, row in enumerate(rows.values()):
        axes.text(ends[y], y, f" {row.n:,} ({row.share:.0%} of all errors)", va="center", fontsize=8.5)
    labels = [f"{name}: {CAUSES[name].what}" if name in CAUSES else name for name in rows]
    style.set_rows(axes, [textwrap.fill(label, 36) for label in labels], lines=False)
    axes.set_xlim(0, 1.9 * ends.max())
    together = f"together {percent(budget.errors / budget.n)}, {budget.errors:,}"
    style.plain(axes, None, f"of all {budget.n:,} questions answered wrong for this cause\n({together})", "")
    chart.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=8.5)
    return chart
