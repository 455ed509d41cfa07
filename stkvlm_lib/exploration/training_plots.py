"""What a model is trained on, token by token, and how its training goes."""

import html
from collections.abc import Sequence
from itertools import groupby

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stkvlm_lib.figures.style import BLUE, GREY, ORANGE, SKY, Chart, as_percent, plain


def label_mask(tokens: Sequence[str], labels_kept: Sequence[bool], segments: Sequence[int], most: int = 12) -> str:
    """One packed example as HTML: the prefix with runs collapsed, then each segment on a line, loss tokens highlighted.

    tokens, labels_kept, segments: length T; segment 0 is the prefix, -1 padding. most: segments shown.
    """
    rows = [row for row in zip(tokens, labels_kept, segments, strict=True) if row[2] >= 0]
    numbers = sorted({number for *_, number in rows if number})
    prefix = [(token, len(list(run))) for token, run in groupby(token for token, _, number in rows if number == 0)]
    lines = [("image prefix", " ".join(_chip(f"{n} × {t}" if n > 1 else t, False) for t, n in prefix))]
    for number in numbers[:most]:
        lines.append((f"segment {number}", "".join(_chip(t, kept) for t, kept, s in rows if s == number)))
    more = f"<p>… and {len(numbers) - most} more segments.</p>" if len(numbers) > most else ""
    body = "".join(
        f"<tr><th style='text-align:right;padding:3px 10px;white-space:nowrap;vertical-align:top'>{name}</th>"
        f"<td style='text-align:left;padding:3px 0;line-height:1.9'>{cells}</td></tr>"
        for name, cells in lines
    )
    return (
        f"<p>{len(rows)} tokens: {sum(n for _, n in prefix)} of the image prefix, {len(numbers)} questions; "
        f"{sum(kept for _, kept, _ in rows)} tokens take part in the loss ({_chip('like this', True)}).</p>"
        f"<table style='font-size:12px;border-collapse:collapse'>{body}</table>{more}"
    )


def _chip(token: str, kept: bool) -> str:
    text = token.replace("Ġ", " ").replace("▁", " ").replace("Ċ", "↵").replace("\n", "↵")
    look = f"background:{ORANGE};color:#000;font-weight:bold;text-decoration:underline" if kept else "opacity:.85"
    box = "white-space:pre;font-family:monospace;border:1px solid #8886;border-radius:3px;padding:1px 2px;margin:0 1px"
    return f"<span style='{box};{look}'>{html.escape(text)}</span>"


def loss_curve(rows: Sequence[dict], majority: float | None = None) -> Figure:
    """Training loss and exact match on valid over the steps, from the rows of train_log.jsonl.

    majority: what each family's most frequent answer has right, the floor of valid.
    """
    chart = Chart(figsize=(9.6, 3.1), layout="constrained")
    loss_axes, exact_axes = chart.subplots(1, 2)
    log = pd.DataFrame(list(rows), columns=["step", "loss", "valid_exact"]).set_index("step")
    losses, exact = log["loss"].dropna(), log["valid_exact"].dropna()
    loss_axes.plot(losses, color=SKY, linewidth=1, label="each logged step")
    if around := 2 * (len(losses) // 40):
        smooth = losses.rolling(around + 1, center=True, min_periods=1).mean()
        loss_axes.plot(smooth, color=BLUE, linewidth=2, label=f"mean of {around + 1} around it")
        loss_axes.legend(fontsize=8, frameon=False)
    if len(exact):
        step, best = exact.idxmax(), exact.max()
        exact_axes.plot(exact, "o-", color=BLUE, markersize=5)
        text = f"best {best:.1%}\nat step {step:.0f}"
        below = {"textcoords": "offset points", "ha": "right", "va": "top", "fontsize": 8}
        exact_axes.annotate(text, (step, best), (6, -12), **below)
    if majority is not None:
        exact_axes.axhline(majority, color=GREY, linewidth=1, linestyle="--")
        floor = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": 8, "color": GREY}
        exact_axes.annotate(f"most frequent answer {majority:.1%}", (0, majority), (4, 3), **floor)
    for axes, filled in ((loss_axes, losses), (exact_axes, exact)):
        if filled.empty:
            axes.text(0.5, 0.5, "nothing logged yet", transform=axes.transAxes, ha="center", color=GREY)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(left=0)
    loss_axes.set_ylim(bottom=0)
    exact_axes.set_ylim(0, 1)
    exact_axes.yaxis.set_major_formatter(as_percent)
    titles = (
        f"Training loss (n = {len(losses)} logged steps)",
        f"Strict exact match on valid (n = {len(exact)} evaluations)",
    )
    plain(loss_axes, titles[0], "optimiser step", "cross-entropy per answer token, nats")
    plain(exact_axes, titles[1], "optimiser step", "questions answered right")
    return chart
