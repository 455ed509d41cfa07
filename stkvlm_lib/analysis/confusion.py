"""What is taken for what: the answers given where each one was true, and the most frequent confusions on pictures."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from stkvlm_lib.analysis.scored_run import Analysis, ScoredRun
from stkvlm_lib.analysis.sections import Section, Shown, listed
from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.evaluation.predictions import Prediction
from stkvlm_lib.figures.style import BLACK, GREY, Chart, as_percent, plain
from stkvlm_lib.figures.tiles import caption, show_question, tile_figure
from stkvlm_lib.grammar.questions import FAMILIES, normalise
from stkvlm_lib.number_text import percent

FAMILIES_SHOWN = ("ego", "count", "track")
NAMES = ("ego", "track")
"""Families that name what a picture shows, so that two pictures can look alike; of many answers, so that a matrix
leaves out those that were always right."""
FEWEST_CONFUSED = 3
"""Answers taken for others are told in words where they are fewer; a matrix of them has no room for its legend."""
MATRIX = "{}: what was answered (columns) where each answer was true (rows); framed cells are right.{}"
LEFT_OUT = " Truths that were never taken for another are left out."
ALIKE = "{}: the most frequent confusions; beside each picture one of which the given answer is true. Are they alike?"


@dataclass(frozen=True)
class Confusion:
    """One truth taken for another answer, n times of so many questions with that truth."""

    truth: str
    prediction: str
    n: int
    asked: int

    @property
    def said(self) -> str:
        return self.prediction or "(nothing)"


class Confusions(Analysis):
    """The answers themselves; no figures of their own."""

    def section(self, run: ScoredRun) -> Section | None:
        text, figures = [], []
        for name in FAMILIES_SHOWN:
            mine = [p for p in run.predictions if p.family == name]
            if not mine:
                continue
            found, title = most_confused(mine), name.capitalize()
            if len({c.truth for c in found}) < FEWEST_CONFUSED:
                text.append(in_words(name, mine, found))
            else:
                matrix = MATRIX.format(title, LEFT_OUT if name in NAMES else "")
                told = ((f"{c.truth} taken for {c.said}", c.n) for c in found[:3])
                alt = listed(f"Matrix of counts for the family {name}; most frequent mistakes", told)
                figures.append(Shown(f"score_confusion_{name}", confusion_matrix(name, mine), matrix, alt))
            if name in NAMES and found:
                draw = partial(alike_gallery, mine, found[:4])
                figures += run.gallery(f"score_confused_{name}", ALIKE.format(title), draw)
        return Section("What is taken for what", " ".join(text), figures) if text or figures else None


def most_confused(mine: Sequence[Prediction]) -> list[Confusion]:
    """The wrong (truth, prediction) pairs of a family's answers, the most frequent first."""
    truths = Counter(normalise(p.answer) for p in mine)
    wrong = Counter((normalise(p.answer), normalise(p.prediction)) for p in mine if not p.correct)
    ranked = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))
    return [Confusion(truth, said, n, truths[truth]) for (truth, said), n in ranked]


def in_words(family: str, mine: Sequence[Prediction], confused: Sequence[Confusion]) -> str:
    """A few confusions as a sentence."""
    if not confused:
        return f"{family.capitalize()}: all {len(mine):,} answers are right."
    right = len(mine) - sum(c.n for c in confused)
    told = ", ".join(f"{c.truth} was taken for {c.said} {c.n} of {c.asked} times" for c in confused)
    return f"{family.capitalize()}: {right:,} of {len(mine):,} answers are right; {told}."


def confusion_matrix(family: str, mine: Sequence[Prediction]) -> Figure:
    """Truth against prediction: counts, coloured by their share of the row; right answers are framed."""
    pairs = Counter((normalise(p.answer), normalise(p.prediction)) for p in mine)
    if family in NAMES:
        confused = {truth for truth, answer in pairs if truth != answer}
        pairs = Counter({pair: n for pair, n in pairs.items() if pair[0] in confused})
    truths = _in_order(family, {truth for truth, _ in pairs})
    given = _in_order(family, {answer for pair in pairs for answer in pair})
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
    plain(axes, f"{family}: {percent(sum(p.correct for p in mine) / len(mine))} right", "prediction", "truth")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8)
    bar = chart.colorbar(mesh, ax=axes, shrink=0.7, aspect=20, format=as_percent)
    bar.set_label("share of the truth's questions", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return chart


def _in_order(family: str, answers: set[str]) -> list[str]:
    """A family's answers in their fixed order, those outside its answer set last."""
    known = list(FAMILIES[family].answers)
    return sorted(answers, key=lambda a: (known.index(a) if a in known else len(known), a))


def alike_gallery(mine: Sequence[Prediction], confused: Sequence[Confusion], folder: FrameSet) -> Figure:
    """Of each confusion a picture that was answered wrong, and beside it one of which that answer is true, so that one
    sees whether the two look alike: the most confident ones that are not shown yet."""
    chart, tiles = tile_figure(2 * len(confused), 2, lines=4, width=2.3)
    surest = sorted(mine, key=lambda p: (-p.confidence, p.image_file))
    shown: set[str] = set()
    for number, c in enumerate(confused):
        left, right = tiles[2 * number : 2 * number + 2]
        taken = [p for p in surest if (normalise(p.answer), normalise(p.prediction)) == (c.truth, c.prediction)]
        wrong = next((p for p in taken if p.image_file not in shown), taken[0])
        show_question(left, folder, wrong)
        often = f"({c.n} of {c.asked} times)"
        caption(left, f"is {c.truth},\nanswered {c.said}\n{often}\n{wrong.image_file}", 7.5)
        shown.add(wrong.image_file)
        true = [p for p in surest if normalise(p.answer) == c.prediction and p.image_file not in shown]
        if not true:
            right.text(0.5, 0.5, f"no other picture of {c.said}\namong those scored", ha="center", va="center",
                       color=GREY, fontsize=8, transform=right.transAxes)  # fmt: skip
            continue
        like = next((p for p in true if p.correct), true[0])
        show_question(right, folder, like)
        caption(right, f"for comparison:\nis {c.said}\n\n{like.image_file}", 7.5)
        shown.add(like.image_file)
    return chart
