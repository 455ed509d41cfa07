"""Views and questions on their pictures: contact sheets, overlays, samples and errors, as figures."""

import random
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from stkvlm_lib.drawing import BLACK, GREY, ROLE_COLOURS, draw_overlay
from stkvlm_lib.frame_sets import FrameSet
from stkvlm_lib.frames import FramesError, View
from stkvlm_lib.plots import Chart, in_order, message
from stkvlm_lib.qa_sets import Record
from stkvlm_lib.questions import FAMILIES, normalise
from stkvlm_lib.scene import read_scene

if TYPE_CHECKING:
    from stkvlm_lib.scoring import Prediction

TILE = 3.1
"""Width in inches of a picture in a gallery; three of them fill a notebook."""
_LINE = 0.165


def draw_views(folder: FrameSet, split: str, n: int, seed: int, min_karts: int = 0) -> list[View]:
    """n views of a split with at least `min_karts` visible karts (fewer if there are fewer), drawn by seed."""
    views = [view for view in folder.views(split) if len(read_scene(view).karts) >= min_karts]
    chosen = random.Random(f"views-{seed}").sample(range(len(views)), min(n, len(views)))
    return [views[i] for i in sorted(chosen)]


def contact_sheet(views: Sequence[View], columns: int = 6, title: str | None = None) -> Figure:
    """Small pictures with their track and number of visible karts."""
    chart, tiles = _tiles(len(views), columns, lines=1, title=title, width=9.3 / columns)
    for axes, view in zip(tiles, views, strict=True):
        axes.imshow(view.image())
        n = len(read_scene(view).karts)
        _caption(axes, f"{view.frame.track}, {n} {'kart' if n == 1 else 'karts'}", size=7)
    return chart


def overlay(view: View, enlarge: float = 1.0) -> Figure:
    """One picture with its karts marked by role; `enlarge` scales the figure (1 fills two thirds of a notebook)."""
    chart, (axes,) = _tiles(1, 1, lines=1, width=6.4 * enlarge)
    _show(axes, draw_overlay(view, round(1280 * enlarge)))
    _caption(axes, _place(view))
    _role_legend(chart, columns=6 if enlarge >= 1.2 else 3)
    return chart


def overlays(views: Sequence[View], columns: int = 3) -> Figure:
    """A grid of pictures with their karts marked by role."""
    chart, tiles = _tiles(len(views), columns, lines=1)
    for axes, view in zip(tiles, views, strict=True):
        _show(axes, draw_overlay(view, text=0.034))
        _caption(axes, _place(view))
    _role_legend(chart, columns=6 if columns > 2 else 3)
    return chart


def qa_samples(records: Sequence[Record], folder: FrameSet, n: int, seed: int) -> Figure:
    """n questions on their pictures, each family in turn, the same for any order of the records."""
    drawn = _draw_by_family(records, n, seed)
    if not drawn:
        return message("No questions to draw from.")
    return _question_tiles(folder, [(r, f"{_wrap(r.question)}\nanswer: {r.answer}") for r in drawn])


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
    captions = [(p, lines(_wrap(p.question), p.answer, p.prediction or "(nothing)", note)) for p, note in errors]
    return _question_tiles(folder, captions)


def _question_tiles(folder: FrameSet, captioned: Sequence[tuple["Record | Prediction", str]]) -> Figure:
    chart, tiles = _tiles(len(captioned), 3, lines=max(text.count("\n") + 1 for _, text in captioned))
    for axes, (item, text) in zip(tiles, captioned, strict=True):
        _show_question(axes, folder, item)
        _caption(axes, text)
    return chart


def _show_question(axes: Axes, folder: FrameSet, item: "Record | Prediction") -> None:
    """The picture of a question; named are the ego kart and the kart asked about, marked are all."""
    view = folder.by_image_file.get(item.image_file)
    if view is None:
        raise FramesError(
            f"{folder.root}: no picture {item.image_file}; give the data folder the questions were made of"
        )
    scene, family = read_scene(view), FAMILIES.get(item.family)
    names = {scene.ego.name} if scene.ego else set()
    if family and family.about_kart and (match := family.pattern.fullmatch(item.question.strip())):
        names.add(match["kart"])
    _show(axes, draw_overlay(view, text=0.036, names=names, zones=item.family not in ("ego", "count", "track")))


def _show(axes: Axes, image) -> None:
    axes.imshow(image, interpolation="antialiased")


def _tiles(
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


def _caption(axes: Axes, text: str, size: float = 8.5) -> None:
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


def _wrap(text: str) -> str:
    """At most two lines of a tile's width."""
    return "\n".join(textwrap.wrap(text, 48, max_lines=2, placeholder=" …"))


def _place(view: View) -> str:
    n = len(read_scene(view).karts)
    return f"{view.frame.track}, {n} {'kart' if n == 1 else 'karts'} ({view.image_file})"


def _role_legend(chart: Chart, columns: int) -> None:
    handles = [Patch(facecolor=colour, edgecolor=BLACK, label=role) for role, colour in ROLE_COLOURS.items()]
    chart.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, 0), ncols=columns, frameon=False, fontsize=9)
