"""Views as pictures: contact sheets, pictures with their karts marked, and the colours of karts."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from PIL import Image

from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.data.frames import View
from stkvlm_lib.figures.drawing import ROLE_COLOURS, draw_overlay
from stkvlm_lib.figures.style import BLACK, GREY, Chart
from stkvlm_lib.figures.tiles import caption, show, tile_figure
from stkvlm_lib.grammar.kart_colours import KART_COLOURS, UNCLEAR_KARTS, KartColour, cut_out
from stkvlm_lib.grammar.names import KARTS
from stkvlm_lib.grammar.scene import read_scene
from stkvlm_lib.number_text import counted


def draw_views(folder: FrameSet, split: str, n: int, seed: int, min_karts: int = 0) -> list[View]:
    """n views of a split with at least `min_karts` visible karts (fewer if there are fewer), drawn by seed."""
    views = [view for view in folder.views(split) if len(read_scene(view).karts) >= min_karts]
    chosen = random.Random(f"views-{seed}").sample(range(len(views)), min(n, len(views)))
    return [views[i] for i in sorted(chosen)]


def contact_sheet(views: Sequence[View], columns: int = 6) -> Figure:
    """Small pictures with their track and number of visible karts."""
    chart, tiles = tile_figure(len(views), columns, lines=1, width=9.3 / columns)
    for axes, view in zip(tiles, views, strict=True):
        axes.imshow(view.image())
        caption(axes, _place(view), size=7)
    return chart


def overlay(view: View) -> Figure:
    """One picture with its karts marked by role, two thirds of a notebook wide."""
    chart, (axes,) = tile_figure(1, 1, lines=1, width=6.4)
    show(axes, draw_overlay(view, 1280))
    caption(axes, f"{_place(view)} ({view.image_file})")
    _role_legend(chart, columns=3)
    return chart


def overlays(views: Sequence[View], columns: int = 3, **marked: Any) -> Figure:
    """A grid of pictures with their karts marked by role; `marked` is for `draw_overlay`."""
    chart, tiles = tile_figure(len(views), columns, lines=2)
    for axes, view in zip(tiles, views, strict=True):
        show(axes, draw_overlay(view, text=0.034, **marked))
        caption(axes, f"{_place(view)}\n({view.image_file})")
    _role_legend(chart, columns=6 if columns > 2 else 3)
    return chart


def colour_sheet(measured: dict[str, KartColour], examples: int = 6) -> Figure:
    """Each kart with the colour the questions give it, or why they give it none: what is the same of it on every track
    (the rest white), what was measured there, and enlarged examples from different tracks."""
    columns, step = 2, 1.06
    rows = -(-len(KARTS) // columns)
    chart = Chart(figsize=(9.6, rows * step))
    for i, kart in enumerate(KARTS):
        left, top = (i % columns) / columns, 1 - i // columns / rows
        axes = chart.add_axes((left, top - 0.92 / rows, 0.97 / columns, 0.64 / rows))
        axes.set_axis_off()
        colour = KART_COLOURS.get(kart)
        if colour:
            axes.add_patch(Rectangle((0, 1.06), 0.026, 0.2, transform=axes.transAxes, color=colour, clip_on=False))
        text = f"{kart}: {colour}" if colour else f"{kart}: no one colour ({UNCLEAR_KARTS[kart]})"
        axes.text(0.036 if colour else 0, 1.08, text, transform=axes.transAxes, fontsize=8)
        if kart not in measured:
            axes.text(0, 0.5, "too few pictures of it here", transform=axes.transAxes, fontsize=8, color=GREY)
            continue
        axes.imshow(_kart_strip(measured[kart], examples), interpolation="antialiased")
        axes.set_anchor("W")
    return chart


def _kart_strip(found: KartColour, examples: int, side: int = 96) -> np.ndarray:
    """The kart cut out of its median picture, then examples: squares of `side` px beside each other."""
    same = Image.fromarray(np.where(found.mask[..., None], found.picture, np.uint8(255)))
    every = max(1, len(found.examples) // examples)
    pictures = [same, *(cut_out(view, detection) for view, detection in found.examples[::every][:examples])]
    strip = Image.new("RGB", ((side + 6) * len(pictures), side), "white")
    for i, picture in enumerate(pictures):
        scale = side / max(picture.size)
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        strip.paste(picture.resize(size, Image.Resampling.NEAREST), (i * (side + 6), (side - size[1]) // 2))
    return np.asarray(strip)


def _place(view: View) -> str:
    return f"{view.frame.track}, {counted(len(read_scene(view).karts), 'kart')}"


def _role_legend(chart: Chart, columns: int) -> None:
    handles = [Patch(facecolor=colour, edgecolor=BLACK, label=role) for role, colour in ROLE_COLOURS.items()]
    chart.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, 0), ncols=columns, frameon=False, fontsize=9)
