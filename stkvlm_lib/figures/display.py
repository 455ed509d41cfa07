"""What notebooks show beside figures: plain tables, and a figure that redraws itself while a cell runs."""

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd
from IPython.display import display
from matplotlib.figure import Figure
from tqdm.auto import tqdm


def table(rows: Iterable[dict[str, Any]]) -> Any:
    """Rows as a table without row numbers, numbers with thousands separators; says so when there are none.

    Texts stand as they are: what looks like HTML in them, as it may in a name from a data folder, is none.
    """
    frame = pd.DataFrame(list(rows))
    if frame.empty:
        frame = pd.DataFrame({"": ["nothing to show"]})
    left = [{"selector": "th, td", "props": "text-align: left; vertical-align: top"}]
    shown = frame.style.hide(axis="index").format(thousands=",", precision=3, escape="html")
    return shown.format_index(axis="columns", escape="html").set_table_styles(left)


def live(draw: Callable[[Any], Figure]) -> Callable[[Any], None]:
    """A function that shows `draw(data)` below the running cell, each call in place of the last."""
    handle = display(display_id=True)

    def show(data: Any) -> None:
        if handle is not None:  # outside a notebook there is nowhere to draw
            handle.update(draw(data))

    return show


def progress(items: Iterable[Any], label: str, every: float = 20.0, total: int | None = None) -> Iterable[Any]:
    """Iterate with progress: a bar in a notebook stepped through by hand, a line every 20 s in a headless run.

    total: how many items there are, where `items` cannot tell.
    """
    n = len(items) if total is None else total
    if not os.environ.get("STKVLM_HEADLESS"):
        yield from tqdm(items, desc=label, unit="batch", total=n)
        return
    begin = shown = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - shown >= every or done == n:
            shown = now
            left = (now - begin) / done * (n - done)
            print(f"{label}: {done} of {n} batches, about {left:.0f} s left", flush=True)
