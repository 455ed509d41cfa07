"""Why answers are wrong: the causes in the order of their rules, each with what it costs and what would lift it.

Every wrong answer gets exactly one cause, the first whose rule holds, so that the budget sums to all errors.

The first rules need no picture: an answer outside the family's set, a question of no family, a wrong track. The next
look at the question alone, before the answer, because what is hard to see is hard for any model: a truth that a pixel
decides, a kart that is small, hidden, near level, or never met on this track in training. Such a property takes the
error only if it can explain it: a count must be off by no more karts than are hard to tell; all others are explained.
For each of these the budget gives all questions that have it as their first property, how many of them are right and
how many would be if they were answered like the plain questions of their families: the measured cost of the property.

What is left is plain to see, and the answers themselves tell why they are wrong:

- identity: the ego kart has another name; or the kart asked about was taken for another: the ego answer of the picture
  names it, or all answers about its place are true of one other kart in view. An answer that is true of no other kart
  cannot come from taking one for another. (A wrong name of the ego kart alone proves nothing: it stands in the middle,
  whatever it is called.)
- relation: the place is wrong and no other kart explains it; or a relative count is just what the picture's own answers
  about each kart add up to, so that it was counted right of karts put on the wrong side.
- counting: any other wrong count.
"""

import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
from matplotlib.figure import Figure

from stkvlm_lib.analysis.entailed import Key, by_picture, is_tally, is_valid
from stkvlm_lib.analysis.intervals import column, mean
from stkvlm_lib.analysis.measured import Measured
from stkvlm_lib.analysis.question_facts import COUNTED, SEES_ALL, Facts
from stkvlm_lib.analysis.scored_run import NO_PICTURES, Analysis, ScoredRun
from stkvlm_lib.analysis.sections import Section, Shown, Table, listed, table_of
from stkvlm_lib.analysis.slices import family_rates
from stkvlm_lib.evaluation.predictions import Prediction
from stkvlm_lib.figures import style
from stkvlm_lib.grammar.questions import FAMILIES, normalise, read_question
from stkvlm_lib.grammar.scene import STRICT_RULES
from stkvlm_lib.number_text import count, percent

Picture = dict[Key, Prediction]


@dataclass(frozen=True)
class Cause:
    """what: when an error has it; lift: what would lift it. asked: whether a question has it before it is answered;
    None where only the answers tell."""

    what: str
    lift: str
    asked: Callable[[Facts], bool] | None = None


CAUSES = {
    "no answer": Cause(
        "the answer is none of the family's",
        "Answer from the family's closed set, or train the words that are missing.",
    ),
    "unknown question": Cause("the wording belongs to no family", "Add the family, or reword the question."),
    "track": Cause("another track is named", "More races and directions of the tracks that are confused."),
    "pixel": Cause(
        "the truth hangs on one pixel of the rule",
        "Nothing in the model: decline such questions, as the strict rules do.",
        lambda facts: facts.pixel > 0,
    ),
    "small": Cause(
        f"a kart that matters is under {STRICT_RULES.min_side} px",
        "Larger pictures, or a base with smaller patches.",
        lambda facts: facts.small > 0,
    ),
    "hidden": Cause(
        "a kart that matters is mostly covered",
        "Training pictures with covered karts; the limit is what the picture still shows.",
        lambda facts: facts.hidden > 0,
    ),
    "near level": Cause(
        f"two centres are under {STRICT_RULES.level:.0f} px from level",
        "A base that learns the places of karts to the pixel.",
        lambda facts: facts.level > 0,
    ),
    "unseen line-up": Cause(
        "train has no such kart on this track",
        "More training races with random line-ups, so that the track does not stand for the kart.",
        lambda facts: facts.known is False,  # None: there is no train split to say
    ),
    "identity": Cause(
        "one kart is taken for another",
        "A base that has learnt the names longer, on more line-ups, lights and distances.",
    ),
    "counting": Cause(
        "plain karts are miscounted",
        "Training on counts and places together, until the count follows from the places.",
    ),
    "relation": Cause(
        "the kart's place is wrong, and no other kart explains it",
        "More training on places relative to the ego kart, mirrored pictures among it.",
    ),
}
"""All causes by name, in the order of their rules."""


def error_causes(predictions: Sequence[Prediction], facts: Sequence[Facts]) -> list[str | None]:
    """The cause of every wrong answer, None where the answer is right."""
    pictures = by_picture(predictions)
    return [
        None if p.correct else _cause(p, f, pictures[p.image_file]) for p, f in zip(predictions, facts, strict=True)
    ]


def question_property(facts: Facts) -> str | None:
    """The first property, in the order of the causes, that makes a question hard; None for a plain one."""
    return next((name for name, cause in CAUSES.items() if cause.asked and cause.asked(facts)), None)


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
    NONE: ClassVar[str] = NO_PICTURES

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
        columns = {"when": lambda name: CAUSES[name].what if name in CAUSES else ""}
        columns |= {"errors": "n", "of errors": "share", "of all": "cost"}
        columns |= {"asked": "touched", "right": "exact", "plain right": "expected"}
        columns |= {"what would lift it": lambda name: CAUSES[name].lift if name in CAUSES else ""}
        return table_of("cause", [*self.causes.items(), ("all errors", whole)], columns)


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
