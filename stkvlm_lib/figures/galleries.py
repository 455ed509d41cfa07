"""Views and questions on their pictures: contact sheets, overlays, samples and errors, as figures."""

import random
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from PIL import Image

from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.data.frames import FramesError, View
from stkvlm_lib.figures.drawing import BLACK, GREY, ROLE_COLOURS, draw_overlay
from stkvlm_lib.figures.plots import Chart, in_order, message
from stkvlm_lib.grammar.kart_colours import KART_COLOURS, UNCLEAR_KARTS, KartColour, cut_out
from stkvlm_lib.grammar.names import KARTS
from stkvlm_lib.grammar.questions import normalise, read_question
from stkvlm_lib.grammar.scene import read_scene
from stkvlm_lib.qa.qa_sets import Record

if TYPE_CHECKING:
    from stkvlm_lib.scores.comparison import Pair
    from stkvlm_lib.scores.scoring import Prediction

TILE = 3.1
"""Width in inches of a picture in a gallery; three of them fill a notebook."""
_LINE = 0.165
_WITHOUT_ZONES = {
    *("ego", "count", "track", "ego_colour", "kart_colour", "in_view"),
    *("nearest", "farthest", "leftmost", "rightmost", "left_of", "nearer"),
}
"""Families that do not ask where something is as seen from the ego kart."""


def draw_views(folder: FrameSet, split: str, n: int, seed: int, min_karts: int = 0) -> list[View]:
    """n views of a split with at least `min_karts` visible karts (fewer if there are fewer), drawn by seed."""
    views = [view for view in folder.views(split) if len(read_scene(view).karts) >= min_karts]
    chosen = random.Random(f"views-{seed}").sample(range(len(views)), min(n, len(views)))
    return [views[i] for i in sorted(chosen)]


def contact_sheet(views: Sequence[View], columns: int = 6, title: str | None = None) -> Figure:
    """Small pictures with their track and number of visible karts."""
    chart, tiles = tile_figure(len(views), columns, lines=1, title=title, width=9.3 / columns)
    for axes, view in zip(tiles, views, strict=True):
        axes.imshow(view.image())
        n = len(read_scene(view).karts)
        caption(axes, f"{view.frame.track}, {n} {'kart' if n == 1 else 'karts'}", size=7)
    return chart


def overlay(view: View, enlarge: float = 1.0) -> Figure:
    """One picture with its karts marked by role; `enlarge` scales the figure (1 fills two thirds of a notebook)."""
    chart, (axes,) = tile_figure(1, 1, lines=1, width=6.4 * enlarge)
    _show(axes, draw_overlay(view, round(1280 * enlarge)))
    caption(axes, _place(view))
    _role_legend(chart, columns=6 if enlarge >= 1.2 else 3)
    return chart


def overlays(views: Sequence[View], columns: int = 3, **marked: Any) -> Figure:
    """A grid of pictures with their karts marked by role; `marked` is for `draw_overlay`."""
    chart, tiles = tile_figure(len(views), columns, lines=2)
    for axes, view in zip(tiles, views, strict=True):
        _show(axes, draw_overlay(view, text=0.034, **marked))
        caption(axes, _place(view).replace(" (", "\n("))  # the name of a joined picture is long
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


def qa_samples(records: Sequence[Record], folder: FrameSet, n: int, seed: int) -> Figure:
    """n questions on their pictures, each family in turn, the same for any order of the records."""
    drawn = _draw_by_family(records, n, seed)
    if not drawn:
        return message("No questions to draw from.")
    return question_tiles(folder, [(r, f"{wrapped(r.question)}\nanswer: {r.answer}") for r in drawn])


def _draw_by_family(records: Sequence[Record], n: int, seed: int) -> list[Record]:
    rng, piles = random.Random(f"samples-{seed}"), defaultdict(list)
    for record in sorted(records, key=lambda r: (r.image_file, r.question)):
        piles[record.family].append(record)
    queues = [rng.sample(piles[family], min(n, len(piles[family]))) for family in in_order(piles)]
    turns = [queue[i] for i in range(n) for queue in queues if i < len(queue)]
    return turns[:n]


def worst_errors(predictions: Sequence["Prediction"], n: int) -> list["Prediction"]:
    """The n wrong answers of the highest confidence."""
    wrong = (p for p in predictions if not p.correct)
    return sorted(wrong, key=lambda p: (-p.confidence, p.image_file, p.question))[:n]


def typical_errors(predictions: Sequence["Prediction"], n: int) -> list[tuple["Prediction", int]]:
    """The n most frequent confusions (family, truth, prediction): an example not yet shown, and how often."""
    groups = defaultdict(list)
    for p in worst_errors(predictions, len(predictions)):
        groups[p.family, normalise(p.answer), normalise(p.prediction)].append(p)
    examples, shown = [], set()
    for _, group in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))[:n]:
        example = next((p for p in group if p.image_file not in shown), group[0])
        shown.add(example.image_file)
        examples.append((example, len(group)))
    return examples


def error_gallery(predictions: Sequence["Prediction"], folder: FrameSet, n: int, kind: str = "worst") -> Figure:
    """Wrong answers on their pictures: kind `worst` (most confident) or `typical` (most frequent confusions)."""
    if kind not in ("worst", "typical"):
        raise ValueError(f"kind={kind!r}: must be worst or typical")
    if kind == "worst":
        errors = [(p, f"confidence {p.confidence:.0%}") for p in worst_errors(predictions, n)]
    else:
        errors = [(p, f"{count} {'time' if count == 1 else 'times'}") for p, count in typical_errors(predictions, n)]
    if not errors:
        return message(f"No wrong answer among {len(predictions):,} predictions.")
    lines = "{}\ntruth: {}\nanswered: {}  ({})".format
    captions = [(p, lines(wrapped(p.question), p.answer, p.prediction or "(nothing)", note)) for p, note in errors]
    return question_tiles(folder, captions)


def changed_gallery(pairs: Sequence["Pair"], folder: FrameSet) -> Figure:
    """Questions that one of two runs answered right and the other wrong, on their pictures."""
    if not pairs:
        return message("No question of this kind.")
    lines = "{}\ntruth: {}\nthis run: {}\nother run: {}".format
    given = [(p.ours, p.ours.prediction or "(nothing)", p.other.prediction or "(nothing)") for p in pairs]
    return question_tiles(folder, [(o, lines(wrapped(o.question), o.answer, mine, other)) for o, mine, other in given])


def question_tiles(folder: FrameSet, captioned: Sequence[tuple["Record | Prediction", str]]) -> Figure:
    chart, tiles = tile_figure(len(captioned), 3, lines=max(text.count("\n") + 1 for _, text in captioned))
    for axes, (item, text) in zip(tiles, captioned, strict=True):
        show_question(axes, folder, item)
        caption(axes, text)
    return chart


def show_question(axes: Axes, folder: FrameSet, item: "Record | Prediction") -> None:
    """The picture of a question; named are the ego kart and the kart asked about, marked are all."""
    view = folder.by_image_file.get(item.image_file)
    if view is None:
        raise FramesError(
            f"{folder.root}: no picture {item.image_file}; give the data folder the questions were made of"
        )
    scene, (_, _, asked) = read_scene(view), read_question(item.question)
    names = {*asked, *([scene.ego.name] if scene.ego else ())}
    _show(axes, draw_overlay(view, text=0.036, names=names, zones=item.family not in _WITHOUT_ZONES))


def _show(axes: Axes, image) -> None:
    axes.imshow(image, interpolation="antialiased")


def tile_figure(
    n: int, columns: int, *, lines: int, title: str | None = None, width: float = TILE
) -> tuple[Chart, list[Axes]]:
    """A figure of n picture frames `width` inches wide with room for `lines` of caption below each."""
    columns = max(1, min(columns, n))
    rows, gap = -(-n // columns), 0.12
    step_x, step_y = width + gap, width * 2 / 3 + lines * _LINE + 0.16
    w, h = columns * step_x - gap, max(1, rows) * step_y + (0.3 if title else 0)
    chart = Chart(figsize=(w, h))
    if title:
        chart.text(0, 1, title, va="top", fontsize=11)
    tiles = []
    for i in range(n):
        left, top = (i % columns) * step_x, (0.3 if title else 0) + (i // columns) * step_y
        axes = chart.add_axes((left / w, 1 - (top + width * 2 / 3) / h, width / w, width * 2 / 3 / h))
        axes.set_axis_off()
        tiles.append(axes)
    if not n:
        chart.text(0.5, 0.5, "No pictures.", ha="center", color=GREY)
    return chart, tiles


def caption(axes: Axes, text: str, size: float = 8.5) -> None:
    axes.annotate(
        text,
        (0, 0),
        (0, -3),
        xycoords="axes fraction",
        textcoords="offset points",
        va="top",
        fontsize=size,
        linespacing=1.25,
    )


def wrapped(text: str) -> str:
    """At most two lines of a tile's width."""
    return "\n".join(textwrap.wrap(text, 48, max_lines=2, placeholder=" …"))


def _place(view: View) -> str:
    n = len(read_scene(view).karts)
    return f"{view.frame.track}, {n} {'kart' if n == 1 else 'karts'} ({view.image_file})"


def _role_legend(chart: Chart, columns: int) -> None:
    handles = [Patch(facecolor=colour, edgecolor=BLACK, label=role) for role, colour in ROLE_COLOURS.items()]
    chart.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, 0), ncols=columns, frameon=False, fontsize=9)
