"""Data, training and scores as figures. Every function returns one; none opens a window or stays in memory.

Fractions come in as 0..1 and are shown as percent; every group carries its n.
"""

import html
import io
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator, PercentFormatter

from stkvlm_lib.figures.drawing import BLACK, BLUE, GREEN, GREY, ORANGE, SKY, VERMILLION
from stkvlm_lib.files import whole_file
from stkvlm_lib.grammar.questions import FAMILIES, normalise
from stkvlm_lib.qa import qa_sets
from stkvlm_lib.qa.qa_sets import Record

if TYPE_CHECKING:
    from stkvlm_lib.scores.scoring import Prediction

PALE = "#A9D6F2"
SPLIT_COLOURS = {"train": BLUE, "valid": ORANGE, "test": GREEN, "test_unseen": VERMILLION}


FEWEST_CONFUSED = 3
"""Answers taken for others are told in words where they are fewer; a matrix of them has no room for its legend."""


class Chart(Figure):
    """A figure that shows itself in a notebook without pyplot, so that none is kept open.

    Texts are drawn as they stand, also with dollar signs: names come from data and are no formulas.
    """

    def draw(self, renderer: RendererBase) -> None:
        with rc_context({"text.parse_math": False}):  # for the ticks that drawing makes
            for text in self.findobj(Text):
                text.set_parse_math(False)
            super().draw(renderer)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100, bbox_inches="tight")
        return buffer.getvalue()


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=130, bbox_inches="tight", facecolor="white")


# what the questions hold


def composition(records: Iterable[Record] | dict[str, dict[str, int]]) -> Figure:
    """One bar a family, cut into its answers' shares, the most frequent first; n at the right.

    Families of many answers get a taller bar with the answers written upright.
    """
    counts = records if isinstance(records, dict) else qa_sets.composition(records)
    families = in_order(counts)
    if not families:
        return message("No questions.")
    inches = [1.35 if len(counts[f]) > 8 and not next(iter(counts[f])).isdigit() else 0.38 for f in families]
    middles = np.cumsum(inches) - np.array(inches) / 2
    chart = Chart(figsize=(9.6, 0.9 + sum(inches)), layout="constrained")
    axes = chart.subplots()
    for y, height, family in zip(middles, inches, families, strict=True):
        n = _share_bar(axes, y, height - 0.1, counts[family], upright=height > 1)
        answers = len(counts[family])
        axes.text(1.01, y, f"n = {n:,}, {answers} {'answer' if answers == 1 else 'answers'}", va="center", fontsize=8)
    axes.set(yticks=middles, yticklabels=families, xlim=(0, 1), ylim=(sum(inches), 0))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    title = "Answers of each family (dark: the most frequent one, the majority baseline)"
    plain(axes, title, "share of the family's questions", "")
    return chart


def _share_bar(axes: Axes, y: float, height: float, counts: dict[str, int], upright: bool) -> int:
    """Draw one family's bar, naming the answers whose segment has room; -> how many questions it stands for."""
    total, left = sum(counts.values()), 0.0
    for i, (answer, count) in enumerate(sorted(counts.items(), key=lambda item: -item[1])):
        share = count / total
        fill, ink = (BLUE, "white") if i == 0 else ((SKY, PALE)[i % 2], BLACK)
        axes.barh(y, share, left=left, height=height, color=fill, edgecolor="white")
        if share > (0.018 if upright else 0.012 * (len(answer) + 1)):
            turn, size = (90, 7.5) if upright else (0, 8)
            axes.text(left + share / 2, y, answer, ha="center", va="center", fontsize=size, color=ink, rotation=turn)
        left += share
    return total


def label_mask(tokens: Sequence[str], labels_kept: Sequence[bool], segments: Sequence[int], most: int = 12) -> str:
    """One packed example as HTML: the prefix with runs collapsed, then each segment on a line, loss tokens highlighted.

    tokens, labels_kept, segments: length T; segment 0 is the prefix, -1 padding. most: segments shown.
    """
    rows = [row for row in zip(tokens, labels_kept, segments, strict=True) if row[2] >= 0]
    numbers = sorted({number for *_, number in rows if number})
    prefix = [(token, len(list(run))) for token, run in groupby(token for token, _, number in rows if number == 0)]
    lines = [("image prefix", " ".join(_chip(f"{n} × {t}" if n > 1 else t, False) for t, n in prefix))]
    for number in numbers[:most]:
        lines.append((f"segment {number}", "".join(_chip(t, kept) for t, kept, s in rows if s == number)))
    more = f"<p>… and {len(numbers) - most} more segments.</p>" if len(numbers) > most else ""
    body = "".join(
        f"<tr><th style='text-align:right;padding:3px 10px;white-space:nowrap;vertical-align:top'>{name}</th>"
        f"<td style='text-align:left;padding:3px 0;line-height:1.9'>{cells}</td></tr>"
        for name, cells in lines
    )
    return (
        f"<p>{len(rows)} tokens: {sum(n for _, n in prefix)} of the image prefix, {len(numbers)} questions; "
        f"{sum(kept for _, kept, _ in rows)} tokens take part in the loss ({_chip('like this', True)}).</p>"
        f"<table style='font-size:12px;border-collapse:collapse'>{body}</table>{more}"
    )


def _chip(token: str, kept: bool) -> str:
    text = token.replace("Ġ", " ").replace("▁", " ").replace("Ċ", "↵").replace("\n", "↵")
    look = f"background:{ORANGE};color:#000;font-weight:bold;text-decoration:underline" if kept else "opacity:.85"
    box = "white-space:pre;font-family:monospace;border:1px solid #8886;border-radius:3px;padding:1px 2px;margin:0 1px"
    return f"<span style='{box};{look}'>{html.escape(text)}</span>"


# training and scores


def loss_curve(rows: Sequence[dict]) -> Figure:
    """Training loss and exact match on valid over the steps, from the rows of train_log.jsonl."""
    chart = Chart(figsize=(9.6, 3.1), layout="constrained")
    loss_axes, exact_axes = chart.subplots(1, 2)
    losses = [(r["step"], r["loss"]) for r in rows if r.get("loss") is not None]
    exact = [(r["step"], r["valid_exact"]) for r in rows if r.get("valid_exact") is not None]
    if losses:
        steps, values = np.array(losses).T
        half = len(values) // 40
        loss_axes.plot(steps, values, color=SKY, linewidth=1, label="each logged step")
        smooth = [values[max(0, i - half) : i + half + 1].mean() for i in range(len(values))]
        loss_axes.plot(steps, smooth, color=BLUE, linewidth=2, label=f"mean of {2 * half + 1} around it")
        loss_axes.legend(fontsize=8, frameon=False)
    if exact:
        steps, values = np.array(exact).T
        best = int(values.argmax())
        exact_axes.plot(steps, values, "o-", color=BLUE, markersize=5)
        exact_axes.annotate(
            f"best {values[best]:.1%}\nat step {steps[best]:.0f}",
            (steps[best], values[best]),
            (6, -12),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=8,
        )
    for axes, filled in ((loss_axes, losses), (exact_axes, exact)):
        if not filled:
            axes.text(0.5, 0.5, "nothing logged yet", transform=axes.transAxes, ha="center", color=GREY)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(left=0)
    plain(
        loss_axes,
        f"Training loss (n = {len(losses)} logged steps)",
        "optimiser step",
        "cross-entropy per answer token, nats",
    )
    loss_axes.set_ylim(bottom=0)
    exact_axes.set_ylim(0, 1)
    exact_axes.yaxis.set_major_formatter(PercentFormatter(1))
    plain(
        exact_axes,
        f"Strict exact match on valid (n = {len(exact)} evaluations)",
        "optimiser step",
        "questions answered right",
    )
    return chart


_BASELINES = {
    "majority": {"marker": "|", "color": BLACK, "markersize": 12, "label": "most frequent answer"},
    "blind": {"marker": "s", "color": VERMILLION, "markersize": 6, "label": "without seeing the picture"},
    "base": {"marker": "D", "color": GREEN, "markersize": 6, "label": "base without adapter"},
}
_HOLLOW = {"linestyle": "", "markerfacecolor": "none", "markeredgewidth": 1.6}


def accuracy_by_family(metrics: dict | None) -> Figure:
    """Strict exact match per family and overall with 95% intervals, beside majority, blind and the base alone.

    metrics: metrics.json, or a part of it that has families; says so when there is none.
    """
    if not metrics:
        return message("This run has no such questions.")
    families = metrics["families"]
    overall = {**metrics, "base": metrics.get("base_exact")}
    rows = [("all questions", overall), *((name, families[name]) for name in in_order(families))]
    chart = Chart(figsize=(9.6, 1.5 + 0.36 * len(rows)), layout="constrained")
    axes = chart.subplots()
    for y, (_, row) in enumerate(rows):
        _accuracy_row(axes, y, row, 1.4 if y == 0 else 1.0)
    axes.axhline(0.5, color=BLACK, linewidth=0.8)
    labels = [f"{name}  (n = {row['n']:,})" for name, row in rows]
    axes.set(yticks=range(len(rows)), yticklabels=labels, xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6))
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    clusters = (
        f" (95% intervals over {metrics['n_clusters']} {metrics['clusters']}s)" if "n_clusters" in metrics else ""
    )
    plain(axes, None, f"questions answered exactly right{clusters}", "")
    shown = [style for key, style in _BASELINES.items() if any(row.get(key) is not None for _, row in rows)]
    handles = [Line2D([], [], color=BLUE, marker="o", label="with the adapter, 95% interval")]
    handles += [Line2D([], [], **style, **_HOLLOW) for style in shown]
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(-0.1, 1.0), ncols=4, frameon=False, fontsize=8.5)
    return chart


def _accuracy_row(axes: Axes, y: float, row: dict, weight: float) -> None:
    """One line of the figure above; a missing baseline or interval is left out."""
    axes.plot([0, 1], [y, y], color="#E4E4E4", linewidth=0.8, zorder=0)
    if interval := row.get("exact_ci95"):
        axes.plot(interval, [y, y], color=BLUE, linewidth=4 * weight, alpha=0.45, solid_capstyle="butt", clip_on=False)
    for key, style in _BASELINES.items():
        if row.get(key) is not None:
            axes.plot(row[key], y, **style, **_HOLLOW, clip_on=False)
    axes.plot(row["exact"], y, "o", color=BLUE, markersize=7 * weight, clip_on=False)
    axes.text(1.02, y, f"{row['exact']:.1%}", va="center", fontweight="bold" if weight > 1 else "normal", fontsize=9)


def confusion(predictions: Sequence["Prediction"], family: str, only_confused: bool = False) -> Figure:
    """Truth against prediction of one family: counts, coloured by their share of the row; right answers are framed.

    only_confused: without the truths that were always answered right, for families of many answers and few errors.
    """
    pairs = Counter((normalise(p.answer), normalise(p.prediction)) for p in predictions if p.family == family)
    if not pairs:
        return message(f"No predictions of family {family}.")
    right, total = sum(n for (truth, answer), n in pairs.items() if truth == answer), pairs.total()
    if only_confused:
        confused = {truth for truth, answer in pairs if truth != answer}
        if not confused:
            return message(f"{family}: all {total:,} answers are right.")
        if len(confused) < FEWEST_CONFUSED:
            wrong = sorted((truth, said, n) for (truth, said), n in pairs.items() if truth != said)
            told = [f"{truth} taken for {said or 'nothing'}: {n}" for truth, said, n in wrong]
            return message("\n".join([f"{family}: {right:,} of {total:,} answers are right", *told]))
        pairs = Counter({pair: n for pair, n in pairs.items() if pair[0] in confused})
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
    axes.set_yticks(
        range(len(truths)), [f"{t}  (n = {n})" for t, n in zip(truths, table.sum(1), strict=True)], fontsize=8
    )
    left_out = ", without truths never confused" if only_confused else ""
    plain(axes, f"{family}: {right / total:.1%} right, n = {total:,}{left_out}", "prediction", "truth")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8)
    bar = chart.colorbar(mesh, ax=axes, shrink=0.7, aspect=20, format=PercentFormatter(1, decimals=0))
    bar.set_label("share of the truth's questions", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return chart


def most_confused(predictions: Sequence["Prediction"], family: str, n: int) -> list[dict]:
    """The n most frequent wrong (truth, prediction) pairs of a family; `share`: of all questions with that truth."""
    mine = [p for p in predictions if p.family == family]
    truths = Counter(normalise(p.answer) for p in mine)
    wrong = Counter((normalise(p.answer), normalise(p.prediction)) for p in mine if not p.correct)
    ranked = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))[:n]
    return [{"truth": t, "prediction": p, "n": c, "share": c / truths[t]} for (t, p), c in ranked]


# shared pieces


def plain(axes: Axes, title: str | None, xlabel: str, ylabel: str = "share") -> None:
    """Title, labels and small ticks in the style of all figures."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5)
    axes.set_xlabel(xlabel, fontsize=8.5)
    axes.set_ylabel(ylabel, fontsize=8.5)
    if title:
        axes.set_title(title, loc="left", fontsize=10)


def message(text: str) -> Figure:
    """A figure that says why there is nothing to show."""
    chart = Chart(figsize=(6, 0.5 + 0.3 * len(text.splitlines())))
    chart.text(0.5, 0.5, text, ha="center", va="center", fontsize=11)
    return chart


def in_order(families: Iterable[str]) -> list[str]:
    """Families in their fixed order, unknown ones last."""
    known = list(FAMILIES)
    return sorted(families, key=lambda name: (known.index(name) if name in known else len(known), name))


def _answers_in_order(family: str, answers: set[str]) -> list[str]:
    """A family's answers in their fixed order, those outside its answer set last."""
    known = list(FAMILIES[family].answers) if family in FAMILIES else []
    return sorted(answers, key=lambda a: (known.index(a) if a in known else len(known), a))
