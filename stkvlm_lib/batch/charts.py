"""The settings of a batch as figures: learning curves over each other, and what accuracy costs."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from stkvlm_lib.batch.results import Setting
from stkvlm_lib.figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION, Chart, message, plain

COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK)
MARKERS = ("o", "s", "^", "D", "v")
DASHES = ("-", "--", ":", "-.", (0, (1, 4)))
COSTS = {
    "train_seconds": ("training, minutes", 60.0),
    "peak_memory_mb": ("peak memory, GB", 1000.0),
    "adapter_mb": ("adapter, MB", 1.0),
}
"""Figure of a run -> its axis, and what it is divided by."""


def style(place: int) -> dict:
    """Colour and marker of the setting at a place: told apart by both, the first ones best."""
    if place >= len(COLOURS) * len(MARKERS):
        return {"color": GREY, "marker": "."}
    return {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place // len(COLOURS) % len(MARKERS)]}


def learning_curves(settings: Sequence[Setting]) -> Figure:
    """Loss and score on valid over the training steps: a thin line a run, a thick one the mean of a setting's runs."""
    if not any(result.log for setting in settings for result in setting.scored):
        return message("No run has a log of its training.")
    chart = Chart(figsize=(11.6, 4.4), layout="constrained")
    loss_axes, valid_axes = chart.subplots(1, 2)
    for place, setting in enumerate(settings):
        look = {"color": style(place)["color"], "linestyle": DASHES[place // len(COLOURS) % len(DASHES)]}
        _curves(loss_axes, setting, "loss", look)
        _curves(valid_axes, setting, "valid_exact", look | {"marker": style(place)["marker"], "markersize": 5})
    plain(loss_axes, "Training loss, smoothed", "optimiser step", "cross-entropy per answer token, nats")
    plain(valid_axes, "Strict exact match on the valid races", "optimiser step", "questions answered right")
    valid_axes.yaxis.set_major_formatter(PercentFormatter(1))
    for axes in (loss_axes, valid_axes):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(left=0)
    loss_axes.set_ylim(bottom=0)
    _legend(chart, loss_axes)
    return chart


def _curves(axes: Axes, setting: Setting, key: str, look: dict) -> None:
    """A setting's runs and their mean."""
    curves = [curve for result in setting.scored if len(curve := _curve(result.log, key))]
    if len(curves) > 1:
        for curve in curves:
            axes.plot(curve.index, curve, color=look["color"], linewidth=0.7, alpha=0.4)
    if curves:
        steps = curves[0].index
        middle = np.mean([np.interp(steps, curve.index, curve) for curve in curves], axis=0)
        axes.plot(steps, middle, linewidth=2, label=setting.name, **look)


def _curve(log: Sequence[dict], key: str) -> pd.Series:
    """What was logged by optimiser step, smoothed over a twentieth of it: not at all where it is a few values."""
    logged = pd.Series({row["step"]: row[key] for row in log if row.get(key) is not None}, dtype=float)
    return logged.rolling(2 * (len(logged) // 40) + 1, center=True, min_periods=1).mean()


def accuracy_against_cost(settings: Sequence[Setting]) -> Figure:
    """Test accuracy against training time, memory and size of the adapter: small marks are runs, large ones means with
    the spread over the seeds as a bar."""
    costs = [cost for cost in COSTS if any(setting.values(cost) for setting in settings)]
    if not costs:
        return message("No run tells what it took.")
    chart = Chart(figsize=(11.6, 4.0), layout="constrained")
    panels = chart.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    for axes, cost in zip(panels, costs, strict=True):
        label, unit = COSTS[cost]
        for place, setting in enumerate(settings):
            _cost_mark(axes, setting, cost, unit, style(place))
        plain(axes, None, label, "test questions answered right" if axes is panels[0] else "")
        axes.margins(0.12)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    _legend(chart, panels[0])
    return chart


def _cost_mark(axes: Axes, setting: Setting, cost: str, unit: float, look: dict) -> None:
    runs = [r for r in setting.scored if r.figures.get(cost) is not None]
    if not runs:
        return
    x, y = np.array([(r.figures[cost] / unit, r.figures["exact"]) for r in runs], float).T
    if len(runs) > 1:
        axes.plot(x, y, linestyle="none", markersize=4, alpha=0.45, markeredgewidth=0, **look)
        axes.errorbar(x.mean(), y.mean(), yerr=y.std(ddof=1), elinewidth=1.4, capsize=3, color=look["color"])
    axes.plot(x.mean(), y.mean(), linestyle="none", markersize=8, label=setting.name, **look)


def _legend(chart: Figure, axes: Axes) -> None:
    """One legend below all panels."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = min(len(labels), 4 if max(map(len, labels)) < 26 else 2)
        chart.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=8.5)
