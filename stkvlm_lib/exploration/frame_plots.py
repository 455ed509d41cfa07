"""What a set of frames holds, as figures: its pictures, its boxes, who drives where, how much of a kart one sees."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.data.frame_statistics import karts_of, tracks_of
from stkvlm_lib.data.frames import KART_CLASS, Detection, View
from stkvlm_lib.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILLION,
    Chart,
    as_percent,
    legend_above,
    message,
    plain,
)
from stkvlm_lib.grammar.scene import MIN_SIDE, box_size, read_scene, scale_box

SPLIT_COLOURS = {"train": BLUE, "valid": ORANGE, "test": GREEN, "test_unseen": VERMILLION}
_LINES = ("-", "--", "-.", ":")
_MARKS = "osD^"


def image_statistics(folder: FrameSet, most: int = 500) -> Figure:
    """Brightness of the pictures, karts per view and size of their boxes, by split.

    most: pictures per split that are opened for their brightness, evenly spaced.
    """
    chart = Chart(figsize=(9.6, 3.6), layout="constrained")
    brightness, karts, sizes = chart.subplots(1, 3)
    for number, split in enumerate(s for s in folder.splits if folder.splits[s]):
        views = folder.views(split)
        opened = views[:: max(1, -(-len(views) // most))]
        light = [float(np.asarray(view.image().convert("L")).mean()) for view in opened]
        _outline(brightness, light, np.arange(0, 257, 16), split, number)
        counts = Counter(len(read_scene(view).karts) for view in views)
        xs = np.arange(max(counts, default=0) + 1)
        look = {"color": SPLIT_COLOURS.get(split, BLUE), "marker": _MARKS[number % 4], "markersize": 4}
        karts.plot(xs, [counts[int(x)] / len(views) for x in xs], **look, label=f"{split}, n = {len(views)}")
        shorter = [min(box_size(scale_box(d.box))) for d in _karts(views)]
        _outline(sizes, np.clip(shorter, 0, 40), np.arange(0, 43), split, number)
    sizes.axvline(MIN_SIDE, color=BLACK, linewidth=1)
    text = f"left of the line: under {MIN_SIDE} px,\nnot counted as visible"
    sizes.text(MIN_SIDE + 2, 0.8, text, transform=sizes.get_xaxis_transform(), fontsize=8)
    _finish(brightness, "Brightness", "mean grey value of a picture, 0 to 255")
    _finish(karts, "Visible karts", "karts in a view")
    _finish(sizes, "Size of all kart boxes", "shorter side, px of 150x100 (40: or more)")
    karts.xaxis.set_major_locator(MaxNLocator(integer=True))
    return chart


def line_ups(folder: FrameSet) -> Figure:
    """Who drives where: races of each kart on each track in train, and what the held-out races have that train lacks.

    Without a train split, the races of all splits are counted.
    """
    train = "train" if folder.splits.get("train") else None
    known = folder.line_ups(train)
    others = [split for split in folder.splits if train and split != train]
    held = {(track, kart) for split in others for track, row in folder.line_ups(split).items() for kart in row}
    tracks, karts = (sorted(names(folder.frames())) for names in (tracks_of, karts_of))
    table = np.array([[known.get(track, {}).get(kart, 0) for kart in karts] for track in tracks])
    chart = Chart(figsize=(2.6 + 0.37 * len(karts), 1.7 + 0.25 * len(tracks)), layout="constrained")
    axes = chart.subplots()
    colours = BoundaryNorm(np.arange(-0.5, max(4, table.max() + 1)), 256)
    mesh = axes.imshow(table, cmap="Blues", norm=colours, aspect="auto")
    for track, kart in sorted(held):
        x, y = karts.index(kart), tracks.index(track)
        axes.plot(x, y, **(_SEEN if table[y, x] else _NEW))
    axes.set_xticks(range(len(karts)), karts, rotation=45, ha="right", rotation_mode="anchor")
    races = Counter(frames[0].track for frames in folder.races(train).values())
    axes.set_yticks(range(len(tracks)), [f"{track}  (n = {races[track]})" for track in tracks])
    axes.set_xticks(np.arange(len(karts)) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(tracks)) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    plain(axes, None, "", f"track (n: its races in {train or 'all splits'})")
    axes.spines[:].set_visible(False)
    axes.tick_params(which="both", length=0)
    bar = chart.colorbar(mesh, ax=axes, shrink=0.6, aspect=18, ticks=MaxNLocator(integer=True))
    bar.set_label(f"races in {train or 'all splits'}", fontsize=8.5)
    bar.ax.tick_params(labelsize=8.5)
    bar.minorticks_off()
    if held:
        legend_above(chart, (_SEEN, _NEW))
    return chart


_SEEN = {"marker": "o", "markersize": 5, "color": GREY, "markerfacecolor": "white", "linestyle": ""}
_SEEN |= {"label": "held out, and in train too"}
_NEW = {"marker": "o", "markersize": 5.5, "color": VERMILLION, "linestyle": "", "label": "held out, never in train"}


def visibility(folder: FrameSet) -> Figure:
    """How much of the detected karts one sees, by split: the share not covered, its pixels, its distance.

    Says so where the info files do not tell, as in the course's data.
    """
    panels = (
        ("visible", np.linspace(0, 1, 21), "Visible share", "share of a kart not covered by anything"),
        ("pixels", np.geomspace(10, 1e5, 25), "Visible pixels", "px of the 600x400 frame"),
        ("distance", np.linspace(0, 60, 25), "Distance", "metres from the camera (60: or more)"),
    )
    detected = {split: _karts(folder.views(split)) for split in folder.splits}
    if not any(d.visible is not None for karts in detected.values() for d in karts):
        return message("These frames do not say how much of a kart one sees.")
    chart = Chart(figsize=(9.6, 3.6), layout="constrained")
    for axes, (name, bins, title, unit) in zip(chart.subplots(1, 3), panels, strict=True):
        for number, (split, karts) in enumerate(detected.items()):
            values = [getattr(d, name) for d in karts if getattr(d, name) is not None]
            if values:
                _outline(axes, np.clip(values, bins[0], bins[-1]), bins, split, number)
        if name == "pixels":
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:,.0f}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        _finish(axes, title, unit)
    return chart


def _karts(views: Iterable[View]) -> list[Detection]:
    return [d for view in views for d in view.detections if d.class_id == KART_CLASS]


def _outline(axes: Axes, values: Sequence[float], bins: np.ndarray, split: str, number: int) -> None:
    """A split's histogram as a line, in shares of its n values."""
    share = np.full(len(values), 1 / max(1, len(values)))
    look = {"color": SPLIT_COLOURS.get(split, BLUE), "linewidth": 1.6, "linestyle": _LINES[number % 4]}
    axes.hist(values, bins, weights=share, histtype="step", label=f"{split}, n = {len(values)}", **look)


def _finish(axes: Axes, title: str, unit: str) -> None:
    """Labels, and below them which split is which, where the legend covers nothing."""
    plain(axes, title, unit)
    axes.yaxis.set_major_formatter(as_percent)
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left", bbox_to_anchor=(-0.1, -0.22), ncols=2, fontsize=7.5, frameon=False, columnspacing=1)
