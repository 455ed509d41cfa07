"""What is taken for what: the answers given where each one was true, and the most frequent confusions on pictures."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from stkvlm_lib.analysis.scored_run import Analysis, ScoredRun
from stkvlm_lib.analysis.sections import Section, Shown, listed
from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.evaluation.predictions import Prediction
from stkvlm_lib.figures.style import BLACK, GREY, Chart, message, plain
from stkvlm_lib.figures.tiles import caption, show_question, tile_figure
from stkvlm_lib.grammar.questions import FAMILIES, normalise
from stkvlm_lib.number_text import percent

SHOWN = {"ego": False, "count": False, "track": True}
"""Family -> whether truths that were always answered right are left out, as for families of many answers."""
FEWEST_CONFUSED = 3
"""Answers taken for others are told in words where they are fewer; a matrix of them has no room for its legend."""
MATRIX = "{}: what was answered (columns) where each answer was true (rows); framed cells are right."
ALIKE = "{}: the most frequent confusions; beside each picture one of which the given answer is true. Are they alike?"


@dataclass(frozen=True)
class Confusion:
    """One truth taken for another answer. share: of all questions with that truth."""

    truth: str
    prediction: str
    n: int
    share: float

    @property
    def said(self) -> str:
        return self.prediction or "(nothing)"


class Confusions(Analysis):
    """The answers themselves; no figures of their own."""

    @classmethod
    def measure(cls, run: ScoredRun) -> Self:
        return cls()

    def section(self, run: ScoredRun) -> Section:
        families = [name for name in SHOWN if any(p.family == name for p in run.predictions)]
        figures = []
        for name in families:
            chart = confusion_chart(run.predictions, name, only_confused=SHOWN[name])
            alt = confusion_alt(run.predictions, name)
            figures.append(Shown(f"score_confusion_{name}", chart, MATRIX.format(name.capitalize()), alt))
            alike = ALIKE.format(name.capitalize())
            figures += run.gallery(
                f"score_confused_{name}", alike, lambda frames, name=name: alike_gallery(run.predictions, frames, name)
            )
        return Section("What is taken for what", figures=figures)


def most_confused(predictions: Sequence[Prediction], family: str, n: int) -> list[Confusion]:
    """The n most frequent wrong (truth, prediction) pairs of a family."""
    mine = [p for p in predictions if p.family == family]
    truths = Counter(normalise(p.answer) for p in mine)
    wrong = Counter((normalise(p.answer), normalise(p.prediction)) for p in mine if not p.correct)
    ranked = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))[:n]
    return [Confusion(truth, said, times, times / truths[truth]) for (truth, said), times in ranked]


def confusion_alt(predictions: Sequence[Prediction], family: str) -> str:
    """The most frequent mistakes in words."""
    found = most_confused(predictions, family, 3)
    if not found:
        return f"All answers of the family {family} are right."
    told = listed("Most frequent mistakes", ((f"{c.truth} taken for {c.said}", c.n) for c in found))
    return f"Table of counts for the family {family}. {told}"


def confusion_chart(predictions: Sequence[Prediction], family: str, only_confused: bool = False) -> Figure:
    """Truth against prediction of one family: counts, coloured by their share of the row; right answers are framed.

    only_confused: without the truths that were always answered right.
    """
    pairs = Counter((normalise(p.answer), normalise(p.prediction)) for p in predictions if p.family == family)
    if not pairs:
        return message(f"No predictions of family {family}.")
    right, total = sum(n for (truth, answer), n in pairs.items() if truth == answer), pairs.total()
    if only_confused:
        confused = {truth for truth, answer in pairs if truth != answer}
        if len(confused) < FEWEST_CONFUSED:
            return _told(family, pairs, right, total)
        pairs = Counter({pair: n for pair, n in pairs.items() if pair[0] in confused})
    title = f"{family}: {percent(right / total)} right, n = {total:,}"
    return _matrix(family, pairs, title + (", without truths never confused" if only_confused else ""))


def _told(family: str, pairs: Counter, right: int, total: int) -> Figure:
    """A few confusions in words."""
    if right == total:
        return message(f"{family}: all {total:,} answers are right.")
    wrong = sorted((truth, said, n) for (truth, said), n in pairs.items() if truth != said)
    told = [f"{truth} taken for {said or 'nothing'}: {n}" for truth, said, n in wrong]
    return message("\n".join([f"{family}: {right:,} of {total:,} answers are right", *told]))


def _matrix(family: str, pairs: Counter, title: str) -> Figure:
    truths = _answers_in_order(family, {truth for truth, _ in pairs})
    given = _answers_in_order(family, {answer for pair in pairs for answer in pair})
    table = np.array([[pairs[truth, answer] for answer in given] for truth in truths])
    shares = table / table.sum(1, keepdims=True)
    cell = 0.55 if len(given) <= 8 else 0.4
    chart = Chart(figsize=(2.6 + cell * len(given), 1.5 + cell * len(truths)), layout="constrained")
    axes = chart.subplots()
    mesh = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    for (y, x), count in np.ndenumerate(table):
        if truths[y] == given[x]:
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor=GREY, linewidth=0.8))
        if count:
            axes.text(x, y, count, ha="center", va="center", fontsize=8, color="white" if shares[y, x] > 0.6 else BLACK)
    names = [textwrap.shorten(answer, 24, placeholder="…") or "(nothing)" for answer in given]
    tilt = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 5 else {}
    axes.set_xticks(range(len(given)), names, fontsize=8, **tilt)
    rows = [f"{truth}  (n = {n})" for truth, n in zip(truths, table.sum(1), strict=True)]
    axes.set_yticks(range(len(truths)), rows, fontsize=8)
    plain(axes, title, "prediction", "truth")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8)
    bar = chart.colorbar(mesh, ax=axes, shrink=0.7, aspect=20, format=PercentFormatter(1, decimals=0))
    bar.set_label("share of the truth's questions", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return chart


def _answers_in_order(family: str, answers: set[str]) -> list[str]:
    """A family's answers in their fixed order, those outside its answer set last."""
    known = list(FAMILIES[family].answers) if family in FAMILIES else []
    return sorted(answers, key=lambda a: (known.index(a) if a in known else len(known), a))


def alike_gallery(predictions: Sequence[Prediction], folder: FrameSet, family: str, n: int = 4) -> Figure:
    """The n most frequent confusions of a family: a picture that was answered wrong, and beside it one of which that
    answer is true, so that one sees whether the two look alike."""
    found = most_confused(predictions, family, n)
    if not found:
        return message(f"No wrong answer of family {family}.")
    chart, tiles = tile_figure(2 * len(found), 4, lines=4, width=2.3)
    mine = [p for p in predictions if p.family == family]
    for number, confusion in enumerate(found):
        wrong, like = _examples(mine, confusion)
        left, right = tiles[2 * number : 2 * number + 2]
        show_question(left, folder, wrong)
        often = f"({confusion.n} of {round(confusion.n / confusion.share)} times)"
        caption(left, f"is {confusion.truth},\nanswered {confusion.said}\n{often}\n{wrong.image_file}", 7.5)
        _show_like(right, folder, confusion.said, like)
    return chart


def _show_like(axes: Axes, folder: FrameSet, answer: str, like: Prediction | None) -> None:
    if like is None:
        axes.text(0.5, 0.5, f"no picture of {answer}\namong those scored", ha="center", va="center",
                  color=GREY, fontsize=8, transform=axes.transAxes)  # fmt: skip
        return
    show_question(axes, folder, like)
    caption(axes, f"for comparison:\nis {answer}\n\n{like.image_file}", 7.5)


def _examples(mine: Sequence[Prediction], confusion: Confusion) -> tuple[Prediction, Prediction | None]:
    """The most confident example of a confusion, and the most confident picture of which the answer is true."""
    surest = sorted(mine, key=lambda p: (-p.confidence, p.image_file))
    pair = confusion.truth, confusion.prediction
    wrong = next(p for p in surest if (normalise(p.answer), normalise(p.prediction)) == pair)
    like = [p for p in surest if normalise(p.answer) == confusion.prediction]
    return wrong, next((p for p in like if p.correct), like[0] if like else None)
