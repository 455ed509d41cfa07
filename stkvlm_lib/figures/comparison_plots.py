"""Two runs against each other, as a figure."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from stkvlm_lib.figures.drawing import BLACK, BLUE, GREY, VERMILLION
from stkvlm_lib.figures.plots import Chart, in_order, message, plain


def difference_by_family(figures: dict | None) -> Figure:
    """Paired difference of two runs, overall and per family, with 95% intervals; questions won and lost at the right.

    figures: `comparison` of metrics.json; says so when there is none. Blue: better, vermillion: worse, grey: either may
    be, as the interval holds zero.
    """
    if not figures:
        return message("No run to compare with; name one in COMPARE_RUN.")
    families = figures["families"]
    rows = [("all questions", figures), *((name, families[name]) for name in in_order(families))]
    chart = Chart(figsize=(9.6, 1.2 + 0.36 * len(rows)), layout="constrained")
    axes = chart.subplots()
    for y, (_, row) in enumerate(rows):
        _difference_row(axes, y, row, 1.4 if y == 0 else 1.0)
    reach = 1.08 * max(0.01, *(abs(value) for _, row in rows for value in row["difference_ci95"]))
    labels = [f"{name}  (n = {row['n']:,})" for name, row in rows]
    axes.set(yticks=range(len(rows)), yticklabels=labels, xlim=(-reach, reach), ylim=(len(rows) - 0.4, -0.6))
    axes.axvline(0, color=BLACK, linewidth=0.9, zorder=1)
    axes.axhline(0.5, color=BLACK, linewidth=0.8)
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:+.3g}" if value else "0"))
    clusters = f"95% intervals over {figures['n_clusters']} {figures['clusters']}s"
    plain(axes, None, f"difference in questions answered exactly right, percentage points ({clusters})", "")
    for x, text, side in ((0.0, "◀ other run better", "left"), (1.0, "this run better ▶", "right")):
        axes.text(x, 1.01, text, transform=axes.transAxes, ha=side, va="bottom", fontsize=8.5)
    axes.text(1.02, 1.01, "won / lost", transform=axes.transAxes, ha="left", va="bottom", fontsize=8.5)
    return chart


def _difference_row(axes: Axes, y: float, row: dict, weight: float) -> None:
    low, high = row["difference_ci95"]
    colour = BLUE if low > 0 else VERMILLION if high < 0 else GREY
    axes.axhline(y, color="#E4E4E4", linewidth=0.8, zorder=0)
    axes.plot([low, high], [y, y], color=colour, linewidth=4 * weight, alpha=0.45, solid_capstyle="butt")
    axes.plot(row["difference"], y, "o", color=colour, markersize=7 * weight)
    text = f"{row['won']:,} / {row['lost']:,}"
    weight = "bold" if weight > 1 else "normal"
    axes.text(1.02, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=9, fontweight=weight)
