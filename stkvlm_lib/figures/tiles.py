"""Pictures side by side with captions, and questions on their pictures."""

import textwrap
from collections.abc import Sequence
from typing import Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.data.frames import FramesError
from stkvlm_lib.figures.drawing import draw_overlay
from stkvlm_lib.figures.style import GREY, Chart
from stkvlm_lib.grammar.questions import read_question
from stkvlm_lib.grammar.scene import read_scene

TILE = 3.1
"""Width in inches of a picture in a gallery; three of them fill a notebook."""
_LINE = 0.165
_WITHOUT_ZONES = {
    *("ego", "count", "track", "ego_colour", "kart_colour", "in_view"),
    *("nearest", "farthest", "leftmost", "rightmost", "left_of", "nearer"),
}
"""Families that do not ask where something is as seen from the ego kart."""


class Question(Protocol):
    """A record or a prediction: what was asked about which picture."""

    image_file: str
    question: str
    family: str


def question_tiles(folder: FrameSet, captioned: Sequence[tuple[Question, str]]) -> Figure:
    chart, tiles = tile_figure(len(captioned), 3, lines=max(text.count("\n") + 1 for _, text in captioned))
    for axes, (item, text) in zip(tiles, captioned, strict=True):
        show_question(axes, folder, item)
        caption(axes, text)
    return chart


def show_question(axes: Axes, folder: FrameSet, item: Question) -> None:
    """The picture of a question; named are the ego kart and the kart asked about, marked are all."""
    view = folder.by_image_file.get(item.image_file)
    if view is None:
        raise FramesError(
            f"{folder.root}: no picture {item.image_file}; give the data folder the questions were made of"
        )
    scene, (_, _, asked) = read_scene(view), read_question(item.question)
    names = {*asked, *([scene.ego.name] if scene.ego else ())}
    show(axes, draw_overlay(view, text=0.036, names=names, zones=item.family not in _WITHOUT_ZONES))


def show(axes: Axes, image) -> None:
    axes.imshow(image, interpolation="antialiased")


def tile_figure(n: int, columns: int, *, lines: int, width: float = TILE) -> tuple[Chart, list[Axes]]:
    """A figure of n picture frames `width` inches wide with room for `lines` of caption below each."""
    columns = max(1, min(columns, n))
    rows, gap, height = -(-n // columns), 0.12, width * 2 / 3
    step_x, step_y = width + gap, height + lines * _LINE + 0.16
    w, h = columns * step_x - gap, max(1, rows) * step_y
    chart = Chart(figsize=(w, h))
    tiles = []
    for i in range(n):
        left, top = (i % columns) * step_x, (i // columns) * step_y
        axes = chart.add_axes((left / w, 1 - (top + height) / h, width / w, height / h))
        axes.set_axis_off()
        tiles.append(axes)
    if not n:
        chart.text(0.5, 0.5, "No pictures.", ha="center", color=GREY)
    return chart, tiles


def caption(axes: Axes, text: str, size: float = 8.5) -> None:
    below = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "top", "linespacing": 1.25}
    axes.annotate(text, (0, 0), (0, -3), fontsize=size, **below)


def wrapped(text: str) -> str:
    """At most two lines of a tile's width."""
    return "\n".join(textwrap.wrap(text, 48, max_lines=2, placeholder=" …"))
