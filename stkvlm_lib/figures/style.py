"""The look of all figures: colours, a figure that shows itself in a notebook, axes, and rows of dots by family.

Fractions come in as 0..1 and are shown as percent; every group carries its n.
"""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from stkvlm_lib.files import whole_file

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
"""The Okabe-Ito palette, told apart by colour-blind readers and in print."""
GREY = "#8C8C8C"
PALE_LINE = "#E4E4E4"
WIDTH = 6.4
"""Inches of a chart whose texts can still be read where it is shrunk to the width of a phone."""
HOLLOW = {"linestyle": "", "markerfacecolor": "none", "markeredgewidth": 1.6}
"""How marks beside a dot are drawn, so that they hide neither it nor each other."""


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
        return png(self, dpi=100)


def png(figure: Figure, dpi: int = 130) -> bytes:
    """A figure as PNG, without the space around it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with whole_file(path) as part:
        part.write_bytes(png(figure))


def plain(axes: Axes, title: str | None, xlabel: str, ylabel: str = "share") -> None:
    """Title, labels and small ticks in the style of all figures."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5)
    axes.set_xlabel(xlabel, fontsize=8.5)
    axes.set_ylabel(ylabel, fontsize=8.5)
    if title:
        axes.set_title(title, loc="left", fontsize=10)


def as_percent(share: float, place: int = 0) -> str:
    """A share as the label of a tick: `7.5%`, `10%`. matplotlib's own rounds 2.5 to 2, or writes 10.0."""
    return f"{100 * share:.3g}%"


def set_rows(axes: Axes, labels: Sequence[str], lines: bool = True) -> None:
    """A row a label for shares, the first at the top. lines: for dots; bars need none."""
    for y in range(len(labels)) if lines else ():
        axes.axhline(y, color=PALE_LINE, linewidth=0.8, zorder=0)
    axes.set(yticks=range(len(labels)), yticklabels=labels, ylim=(len(labels) - 0.4, -0.6))
    axes.xaxis.set_major_formatter(as_percent)


def family_rows(named: Sequence[tuple[str, int]], height: float = 0.36) -> tuple["Chart", Axes]:
    """A figure with a row for all questions, apart from the others, and one a family.

    named: (name, n) of each row, in their order; height: inches a row.
    """
    chart = Chart(figsize=(WIDTH, 1.5 + height * len(named)), layout="constrained")
    axes = chart.subplots()
    set_rows(axes, [f"{name if y else 'all questions'}  (n = {n:,})" for y, (name, n) in enumerate(named)])
    axes.axhline(0.5, color=BLACK, linewidth=0.8)
    axes.get_yticklabels()[0].set_fontweight("bold")
    return chart, axes


def dot(axes: Axes, y: float, value: float, ends: Sequence[float] | None, colour: str = BLUE, size: float = 7) -> None:
    """A figure with its 95 % interval, where it has one. size: of the dot, in points."""
    if ends:
        look = {"linewidth": 0.57 * size, "alpha": 0.45, "solid_capstyle": "butt"}
        axes.plot(ends, [y, y], color=colour, clip_on=False, **look)
    axes.plot(value, y, "o", color=colour, markersize=size, clip_on=False, zorder=4)


def hollow_marks(axes: Axes, y: float, row: Any, styles: dict[str, dict]) -> None:
    """The figures of a row that stand beside its dot. styles: attribute -> its mark; what is None is left out."""
    for name, style in styles.items():
        if (share := getattr(row, name)) is not None:
            axes.plot(share, y, **HOLLOW, **style, clip_on=False, zorder=3)


def stacked_bars(axes: Axes, parts: dict[str, np.ndarray], colours: Iterable[str]) -> np.ndarray:
    """A bar a row, cut into its parts. parts: name -> (rows,) lengths; -> (rows,) where the bars end."""
    left = np.zeros(len(next(iter(parts.values()))))
    for (name, lengths), colour in zip(parts.items(), colours, strict=True):
        look = {"height": 0.72, "color": colour, "edgecolor": "white", "linewidth": 0.6}
        axes.barh(range(len(left)), lengths, left=left, label=name, **look)
        left = left + lengths
    return left


def legend_above(chart: Figure, styles: Iterable[dict], columns: int = 4) -> None:
    """Names the marks of a chart, each given by its style with a label."""
    handles = [Line2D([], [], **style) for style in styles]
    chart.legend(handles=handles, loc="outside upper left", ncols=columns, frameon=False, fontsize=8.5)


def message(text: str) -> Figure:
    """A figure that says why there is nothing to show."""
    chart = Chart(figsize=(6, 0.5 + 0.3 * len(text.splitlines())))
    chart.text(0.5, 0.5, text, ha="center", va="center", fontsize=11)
    return chart
