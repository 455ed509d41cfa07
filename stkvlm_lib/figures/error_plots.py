"""Where and why answers are wrong, as figures of metrics.json: slices, calibration, error budget, ceiling.

Like plots: every function returns a figure, fractions come in as 0..1 and are shown as percent, groups carry their n.
"""

from collections.abc import Iterable
from math import floor
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, MultipleLocator, PercentFormatter

from stkvlm_lib.figures.drawing import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION
from stkvlm_lib.figures.plots import Chart, in_order, message, plain
from stkvlm_lib.scores.causes import CAUSES

SLICE_TITLES = {
    "size": "Size of the kart asked for",
    "visible": "Visible share of that kart",
    "karts": "Karts in view",
    "line_up": "That kart on this track",
    "view": "View (camera behind kart …)",
    "track": "Track",
}
"""Kind of slice -> the title of its panel."""
GROUPS = {
    "ego kart": (ORANGE, ("ego",)),
    "places": (BLUE, ("left_right", "front_back", "where")),
    "relative counts": (SKY, ("count_left", "count_right", "count_front", "count_behind")),
    "total count": (VERMILLION, ("count",)),
    "track": (GREEN, ("track",)),
}
"""Families that one colour stands for; those of no group are `other`."""
OTHER_GROUP = "other"
_PALE_LINE = "#E4E4E4"


# slices


def slice_chart(slices: Any) -> Figure:
    """Accuracy in every slice with its interval, and what the mix of families alone would give; tracks at the right."""
    kinds = [kind for kind in SLICE_TITLES if isinstance(slices, dict) and slices.get(kind)]
    if not kinds:
        return message("No slices: there are no scored questions to cut.")
    tall, small = [k for k in kinds if k == "track"], [k for k in kinds if k != "track"]
    rows = sum(len(slices[kind]) + 2.2 for kind in small)
    height = max(rows, *(len(slices[kind]) + 2.2 for kind in tall), 6) * 0.205 + 0.6
    chart = Chart(figsize=(9.6, height), layout="constrained")
    widths = [1.25] * bool(small) + [1] * bool(tall)
    columns = chart.add_gridspec(1, len(widths), width_ratios=widths, wspace=0.04)
    places = []
    if small:
        heights = [len(slices[kind]) + 0.6 for kind in small]
        grid = columns[0].subgridspec(len(small), 1, height_ratios=heights)
        places += [(kind, chart.add_subplot(grid[i])) for i, kind in enumerate(small)]
    if tall:
        places.append(("track", chart.add_subplot(columns[-1])))
    low = _lower_end(row for kind in kinds for row in slices[kind].values())
    for kind, axes in places:
        axes.set_xlim(low, 1)
        axes.xaxis.set_major_locator(MultipleLocator(0.1 if low >= 0.4 else 0.2))
        _slice_panel(axes, kind, slices[kind], last=kind in (kinds[-1], small[-1] if small else None))
    handles = [
        Line2D([], [], color=BLUE, marker="o", label="answered exactly right, 95% interval"),
        Line2D([], [], color=BLACK, marker="|", markersize=11, linestyle="", markeredgewidth=1.6,
               label="expected of its mix of families"),
    ]  # fmt: skip
    chart.legend(handles=handles, loc="outside upper left", ncols=2, frameon=False, fontsize=8.5)
    return chart


def _lower_end(rows: Iterable[dict]) -> float:
    """Where the axis of all panels begins: a whole tenth under all that is shown."""
    least = min(min(row["exact"], row.get("expected", 1.0), *row.get("exact_ci95", ())) for row in rows)
    return max(0.0, floor(10 * least - 0.5) / 10)


def _slice_panel(axes: Axes, kind: str, rows: dict[str, dict], last: bool) -> None:
    names = sorted(rows, key=lambda name: -rows[name]["exact"]) if kind == "track" else list(rows)
    for y, name in enumerate(names):
        row = rows[name]
        axes.axhline(y, color=_PALE_LINE, linewidth=0.8, zorder=0)
        if ends := row.get("exact_ci95"):
            axes.plot(ends, [y, y], color=BLUE, linewidth=4, alpha=0.4, solid_capstyle="butt")
        if row.get("expected") is not None:
            axes.plot(row["expected"], y, "|", color=BLACK, markersize=10, markeredgewidth=1.6, zorder=3)
        axes.plot(row["exact"], y, "o", color=BLUE, markersize=5.5, zorder=4, clip_on=False)
        axes.text(1.04, y, f"{row['exact']:.0%}", va="center", fontsize=8, transform=axes.get_yaxis_transform())
    labels = [f"{name}  (n = {rows[name]['n']:,})" for name in names]
    axes.set(yticks=range(len(names)), yticklabels=labels, ylim=(len(names) - 0.4, -0.6))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    plain(axes, SLICE_TITLES[kind], "questions answered exactly right" if last else "", "")
    axes.tick_params(labelsize=8, labelbottom=last)


# calibration


def calibration_chart(calibration: Any) -> Figure:
    """Left: share right against confidence. Right: errors against coverage, with the point fitted on valid races."""
    if not isinstance(calibration, dict) or not calibration.get("bins"):
        return message("No calibration: there are no scored answers.")
    chart = Chart(figsize=(9.6, 3.9), layout="constrained")
    left, right = chart.subplots(1, 2)
    _reliability(left, calibration)
    _coverage(right, calibration)
    return chart


def _reliability(axes: Axes, figures: dict) -> None:
    most = max(row["n"] for row in figures["bins"])
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    axes.text(0.98, 0.3, "dashed: right as often\nas it is sure", color="#666666", fontsize=8, ha="right")
    for row in figures["bins"]:
        width = row["high"] - row["low"]
        axes.bar(row["low"], 0.16 * row["n"] / most, width, align="edge", color="#DDDDDD", edgecolor="white", zorder=0)
        if ends := row.get("exact_ci95"):
            axes.plot([row["confidence"]] * 2, ends, color=BLUE, linewidth=4, alpha=0.4, solid_capstyle="butt")
        axes.plot(row["confidence"], row["exact"], "o", color=BLUE, markersize=5.5, clip_on=False, zorder=4)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    title = f"Reliability: expected calibration error {figures['ece']:.1%}"
    plain(axes, title, f"confidence of the answer (n = {figures['n']:,}; grey: how many)", "answered exactly right")


def _coverage(axes: Axes, figures: dict) -> None:
    curve, chosen = figures.get("curve") or [], figures.get("selective")
    top = max((row["error"] for row in curve), default=0.1)
    axes.plot([r["coverage"] for r in curve], [r["error"] for r in curve], color=BLUE, linewidth=1.8)
    title = "Wrong among the answers given"
    if not chosen:
        title += "\n(no threshold: no valid races beside those scored)"
    else:
        rate = chosen["error_rate"]
        axes.axhline(rate, color=BLACK, linewidth=1, linestyle=":")
        axes.text(1, rate, f"chosen: {rate:.0%} ", ha="right", va="bottom", fontsize=8)
        title += _chosen_points(axes, chosen)
        top = max(top, rate, *chosen.get("error_ci95", ()))
    axes.set(xlim=(0, 1.0), ylim=(0, top * 1.12 or 0.1))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
    plain(axes, title, f"questions answered, the surest first (n = {figures['n']:,})", "of these wrong")


def _chosen_points(axes: Axes, chosen: dict) -> str:
    """Mark what the threshold gives on both splits; -> the end of the title."""
    if chosen.get("threshold") is None:
        return f"\nNo confidence keeps the errors on valid races at {chosen['error_rate']:.0%}"
    fit = chosen["fit"]
    axes.plot(fit["coverage"], fit["error"], "D", markerfacecolor="white", color=ORANGE, markersize=7,
              markeredgewidth=1.8, label=f"valid, where it is fitted (n = {fit['n']:,})")  # fmt: skip
    if "error" not in chosen:
        return f"\nNo answer is as sure as the threshold {chosen['threshold']:.2f}"
    if ends := chosen.get("error_ci95"):
        axes.plot([chosen["coverage"]] * 2, ends, color=VERMILLION, linewidth=4, alpha=0.4, solid_capstyle="butt")
    axes.plot(chosen["coverage"], chosen["error"], "o", color=VERMILLION, markersize=7,
              label=f"scored (n = {chosen['n']:,}), 95% interval")  # fmt: skip
    axes.legend(loc="upper left", frameon=False, fontsize=8)
    return (
        f"\nConfidence from {chosen['threshold']:.2f}: {chosen['coverage']:.0%} answered, {chosen['error']:.1%} wrong"
    )


# error budget


def budget_chart(budget: Any) -> Figure:
    """One bar a cause, as long as it costs, cut by the kind of question that is answered wrong."""
    rows = budget.get("causes") if isinstance(budget, dict) else None
    if not rows or not budget.get("errors"):
        return message("No error budget: no answer is wrong.")
    names = [name for name, row in rows.items() if row["n"]]
    chart = Chart(figsize=(9.6, 1.3 + 0.34 * len(names)), layout="constrained")
    axes, widest = chart.subplots(), max(rows[name]["cost"] for name in names)
    shown = set()
    for y, name in enumerate(names):
        left = 0.0
        for group, n in _by_group(rows[name]["families"]).items():
            part = n / budget["n"]
            axes.barh(y, part, left=left, height=0.7, color=_colour(group), edgecolor="white", linewidth=0.7)
            left += part
            shown.add(group)
        text = f" {rows[name]['n']:,} ({rows[name]['share']:.0%} of all errors)"
        axes.text(left, y, text, va="center", fontsize=8.5)
    labels = [f"{name}: {CAUSES[name].what}" if name in CAUSES else name for name in names]
    axes.set(yticks=range(len(names)), yticklabels=labels, ylim=(len(names) - 0.4, -0.6), xlim=(0, widest * 1.5))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    wrong = budget["errors"] / budget["n"]
    label = (
        f"of all {budget['n']:,} questions answered wrong for this cause (together {wrong:.1%}, {budget['errors']:,})"
    )
    plain(axes, None, label, "")
    handles = [Patch(facecolor=_colour(group), label=group) for group in (*GROUPS, OTHER_GROUP) if group in shown]
    chart.legend(handles=handles, loc="outside upper left", ncols=6, frameon=False, fontsize=8.5)
    return chart


def _by_group(families: dict[str, int]) -> dict[str, int]:
    """Errors by group of families, in the order of the groups."""
    home = {family: group for group, (_, members) in GROUPS.items() for family in members}
    counts = dict.fromkeys((*GROUPS, OTHER_GROUP), 0)
    for family, n in families.items():
        counts[home.get(family, OTHER_GROUP)] += n
    return {group: n for group, n in counts.items() if n}


def _colour(group: str) -> str:
    return GROUPS[group][0] if group in GROUPS else PURPLE


# ceiling


def ceiling_chart(ceiling: Any) -> Figure:
    """Each family now, on clear and on doubtful questions, and what an oracle with boxes a pixel off would score."""
    if not isinstance(ceiling, dict) or not ceiling.get("families"):
        return message("No ceiling: there are no questions of a known family.")
    rows = [("all", ceiling), *((name, ceiling["families"][name]) for name in in_order(ceiling["families"]))]
    chart = Chart(figsize=(9.6, 1.4 + 0.34 * len(rows)), layout="constrained")
    axes = chart.subplots()
    for y, (_, row) in enumerate(rows):
        axes.plot([0, 1], [y, y], color=_PALE_LINE, linewidth=0.8, zorder=0)
        axes.barh(y, 1 - row["oracle"], left=row["oracle"], height=0.62, color="#D9D9D9", edgecolor="none", zorder=1)
        axes.plot([row["oracle"]] * 2, [y - 0.33, y + 0.33], color=BLACK, linewidth=2, zorder=3)
        for key, style in _DOUBT.items():
            if row["pixel"].get(key) is not None:
                axes.plot(row["pixel"][key], y, linestyle="", markerfacecolor="white", markeredgewidth=1.6,
                          markersize=6.5, zorder=4, **style)  # fmt: skip
        axes.plot(row["exact"], y, "o", color=BLUE, markersize=6.5 if y else 8.5, zorder=5)
        axes.text(1.02, y, f"{row['pixel']['doubtful']:.0%} in doubt", va="center", fontsize=8.5)
    axes.axhline(0.5, color=BLACK, linewidth=0.8)
    labels = [f"{name}  (n = {row['n']:,})" for name, row in rows]
    axes.set(yticks=range(len(rows)), yticklabels=labels, xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6))
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    plain(axes, None, "questions answered exactly right", "")
    handles = [
        Line2D([], [], color=BLUE, marker="o", linestyle="", label="now"),
        *(Line2D([], [], linestyle="", markerfacecolor="white", markeredgewidth=1.6, **s) for s in _DOUBT.values()),
        Line2D([], [], color=BLACK, marker="|", markersize=11, markeredgewidth=2, linestyle="",
               label="oracle whose boxes are up to a pixel off"),
    ]  # fmt: skip
    chart.legend(handles=handles, loc="outside upper left", ncols=4, frameon=False, fontsize=8.5)
    return chart


_DOUBT = {
    "exact_clear": {"marker": "D", "color": GREEN, "label": "clear questions"},
    "exact_doubtful": {"marker": "s", "color": VERMILLION, "label": "questions that a pixel decides"},
}
