"""Why answers are wrong: each wrong one has the one cause whose rule holds first (see causes), so they sum to all."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from stkvlm_lib.analysis.causes import CAUSES, OF_QUESTION
from stkvlm_lib.analysis.entailed import Key, by_picture, is_tally, is_valid
from stkvlm_lib.analysis.intervals import column, mean
from stkvlm_lib.analysis.measured import Measured
from stkvlm_lib.analysis.question_facts import COUNTED, SEES_ALL, Facts
from stkvlm_lib.analysis.scored_run import Analysis, ScoredRun
from stkvlm_lib.analysis.sections import Section, Shown, Table, listed, table
from stkvlm_lib.analysis.slices import family_rates
from stkvlm_lib.evaluation.predictions import Prediction
from stkvlm_lib.figures.style import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION, Chart, message, plain
from stkvlm_lib.grammar.questions import FAMILIES, normalise, read_question
from stkvlm_lib.number_text import count, percent

Picture = dict[Key, Prediction]
NOTE = (
    "The rules are tried in the order of the table, so that no error counts twice; of all: of all questions. Causes "
    "with a number under asked are properties that so many questions have before they are answered. right: what is "
    "right of these; plain right: what would be if they were answered like the questions of the same families without "
    "any such property. The difference is what the property costs. The other causes are read off the answers."
)
GROUPS = {
    "ego kart": (ORANGE, ("ego",)),
    "places": (BLUE, ("left_right", "front_back", "where")),
    "relative counts": (SKY, ("count_left", "count_right", "count_front", "count_behind")),
    "total count": (VERMILLION, ("count",)),
    "track": (GREEN, ("track",)),
}
"""Families that one colour stands for; those of no group are `other`."""
OTHER_GROUP = "other"


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
            families = _counted(p.family for p, cause in zip(rows, causes, strict=True) if cause == name)
            n, touched = sum(families.values()), np.array([found == name for found in properties])
            if n or touched.any():
                shares = {"share": n / errors if errors else 0.0, "cost": n / len(rows)}
                costs[name] = CauseCost(n, **shares, **_touched(touched, right, plain_rates), families=families)
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


def error_causes(predictions: Sequence[Prediction], facts: Sequence[Facts]) -> list[str | None]:
    """The cause of every wrong answer, None where the answer is right."""
    pictures = by_picture(predictions)
    return [
        None if p.correct else _cause(p, f, pictures[p.image_file]) for p, f in zip(predictions, facts, strict=True)
    ]


def _counted(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for name in names:
        counts[name] += 1
    return dict(counts)


def _touched(touched: np.ndarray, right: np.ndarray, plain_rates: np.ndarray) -> dict[str, Any]:
    if not touched.any():
        return {}
    known = touched & ~np.isnan(plain_rates)
    expected = {"expected": mean(plain_rates[known])} if known.sum() == touched.sum() else {}
    return {"touched": int(touched.sum()), "exact": mean(right[touched]), **expected}


def question_property(facts: Facts) -> str | None:
    """The first property, in the order of the causes, that makes a question hard; None for a plain one."""
    return next((name for name in OF_QUESTION if _HAS[name](facts)), None)


_HAS = {
    "pixel": lambda facts: facts.pixel > 0,
    "small": lambda facts: facts.small > 0,
    "hidden": lambda facts: facts.hidden > 0,
    "near level": lambda facts: facts.level > 0,
    "unseen line-up": lambda facts: facts.known is False,
}


def _cause(p: Prediction, facts: Facts, picture: Picture) -> str:
    if p.family not in FAMILIES:
        return "unknown question"
    if not is_valid(p):
        return "no answer"
    if p.family == "track":
        return "track"
    found = question_property(facts)
    if found and _is_explained(p, facts):
        return found
    if p.family in SEES_ALL:
        return "relation" if _follows_from_places(p, picture) else "counting"
    return "identity" if _is_identity(p, facts, picture) else "relation"


def _is_explained(p: Prediction, facts: Facts) -> bool:
    """Whether the karts that are hard to tell are enough to make this answer of the truth."""
    said, truth = p.prediction.strip(), p.answer.strip()
    if p.family not in SEES_ALL or not (said.isdecimal() and truth.isdecimal()):
        return True
    return abs(int(said) - int(truth)) <= facts.hard


def _follows_from_places(p: Prediction, picture: Picture) -> bool:
    """Whether a wrong relative count is what the wrong answers about each kart's place add up to."""
    if p.family not in COUNTED:
        return False
    keys = (p.family, ""), *(key for key in picture if key[0] == COUNTED[p.family][0])
    truth = {key: normalise(picture[key].answer) for key in keys}
    said = {key: normalise(picture[key].prediction) for key in keys}
    return is_tally(truth, keys) and is_tally(said, keys)


def _is_identity(p: Prediction, facts: Facts, picture: Picture) -> bool:
    _, _, names = read_question(p.question)
    if p.family not in _PLACES:
        return len(names) < 2  # the families that name a kart, or say how it looks; those of two karts compare places
    ego = picture.get(("ego", ""))
    if ego and normalise(ego.prediction) == names[0]:
        return True
    said = [normalise(picture[family, names[0]].prediction) for family in _PLACES if (family, names[0]) in picture]
    return any(all(answer in (zone, *zone.split(" and ")) for answer in said) for zone in facts.elsewhere)


_PLACES = ("front_back", "left_right", "where")


def budget_chart(budget: ErrorBudget) -> Figure:
    """One bar a cause, as long as it costs, cut by the kind of question that is answered wrong."""
    if not budget.errors:
        return message("No error budget: no answer is wrong.")
    rows = budget.causes
    names = [name for name, row in rows.items() if row.n]
    chart = Chart(figsize=(9.6, 1.3 + 0.34 * len(names)), layout="constrained")
    axes, widest = chart.subplots(), max(rows[name].cost for name in names)
    shown = set()
    for y, name in enumerate(names):
        left = 0.0
        for group, n in _by_group(rows[name].families).items():
            part = n / budget.n
            axes.barh(y, part, left=left, height=0.7, color=_colour(group), edgecolor="white", linewidth=0.7)
            left += part
            shown.add(group)
        text = f" {rows[name].n:,} ({rows[name].share:.0%} of all errors)"
        axes.text(left, y, text, va="center", fontsize=8.5)
    labels = [f"{name}: {CAUSES[name].what}" if name in CAUSES else name for name in names]
    axes.set(yticks=range(len(names)), yticklabels=labels, ylim=(len(names) - 0.4, -0.6), xlim=(0, widest * 1.5))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    wrong = budget.errors / budget.n
    label = (
        f"of all {budget.n:,} questions answered wrong for this cause (together {percent(wrong)}, {budget.errors:,})"
    )
    plain(axes, None, label, "")
    handles = [Patch(facecolor=_colour(group), label=group) for group in (*GROUPS, OTHER_GROUP) if group in shown]
    chart.legend(handles=handles, loc="outside upper left", ncols=6, frameon=False, fontsize=8.5)
    return chart


def _by_group(families: dict[str, int]) -> dict[str, int]:
    """Errors by group of families, in the order of the groups."""
    home = {family: group for group, (_, members) in GROUPS.items() for family in members}
    counts = dict.fromkeys((*GROUPS, OTHER_GROUP), 0)
    for family, n in families.items():
        counts[home.get(family, OTHER_GROUP)] += n
    return {group: n for group, n in counts.items() if n}


def _colour(group: str) -> str:
    return GROUPS[group][0] if group in GROUPS else PURPLE
