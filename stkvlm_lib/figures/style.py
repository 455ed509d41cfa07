"""The look of all figures: colours, a figure that shows itself in a notebook, axes, and rows of dots by family.

Fractions come in as 0..1 and are shown as percent; every group carries its n.
"""

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import PercentFormatter

from stkvlm_lib.files import whole_file

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = [
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
]
"""The Okabe-Ito palette, told apart by colour-blind readers and in print."""
GREY = "#8C8C8C"
PALE_LINE = "#E4E4E4"


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


def family_rows(named: Sequence[tuple[str, int]], *, first: str = "all", height: float = 0.36) -> tuple["Chart", Axes]:
    """A figure with a line a row for dots in shares, the first row, of all questions, apart from the others.

    named: (name, n) of each row, in their order; first: what the first row is called; height: inches a row.
    """
    chart = Chart(figsize=(9.6, 1.5 + height * len(named)), layout="constrained")
    axes = chart.subplots()
    for y in range(len(named)):
        axes.axhline(y, color=PALE_LINE, linewidth=0.8, zorder=0)
    labels = [f"{name if y else first}  (n = {n:,})" for y, (name, n) in enumerate(named)]
    axes.set(yticks=range(len(named)), yticklabels=labels, ylim=(len(named) - 0.4, -0.6))
    axes.axhline(0.5, color=BLACK, linewidth=0.8)
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    return chart, axes


def message(text: str) -> Figure:
    """A figure that says why there is nothing to show."""
    chart = Chart(figsize=(6, 0.5 + 0.3 * len(text.splitlines())))
    chart.text(0.5, 0.5, text, ha="center", va="center", fontsize=11)
    return chart
