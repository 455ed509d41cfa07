"""What notebooks show beside figures: plain tables, and a figure that redraws itself while a cell runs."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pandas as pd
from IPython.display import display
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from stkvlm_lib.qa_sets import Record, composition
from stkvlm_lib.questions import FAMILIES


def table(rows: Iterable[dict[str, Any]]) -> Any:
    """Rows as a table without row numbers, numbers with thousands separators; says so when there are none."""
    frame = pd.DataFrame(list(rows))
    if frame.empty:
        frame = pd.DataFrame({"": ["nothing to show"]})
    left = [{"selector": "th, td", "props": "text-align: left; vertical-align: top"}]
    return frame.style.hide(axis="index").format(thousands=",", precision=3).set_table_styles(left)


def family_counts(sets: dict[str, Sequence[Record]]) -> Any:
    """Questions per family and split."""
    counts = {split: composition(records) for split, records in sets.items()}
    rows = [
        {"family": name, **{split: sum(table.get(name, {}).values()) for split, table in counts.items()}}
        for name in FAMILIES
    ]
    return table([*rows, {"family": "all", **{split: len(records) for split, records in sets.items()}}])


def live(draw: Callable[[Any], Figure]) -> Callable[[Any], None]:
    """A function that shows `draw(data)` below the running cell, each call in place of the last."""
    handle = display(display_id=True)

    def show(data: Any) -> None:
        if handle is not None:  # outside a notebook there is nowhere to draw
            handle.update(draw(data))

    return show


def progress(items: Sequence[Any], label: str, every: float = 20.0) -> Iterable[Any]:
    """Iterate with progress: a bar in a notebook stepped through by hand, a line every 20 s in a headless run."""
    if not os.environ.get("STKVLM_HEADLESS"):
        yield from tqdm(items, desc=label, unit="batch")
        return
    begin = shown = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - shown >= every or done == len(items):
            shown = now
            left = (now - begin) / done * (len(items) - done)
            print(f"{label}: {done} of {len(items)} batches, about {left:.0f} s left", flush=True)
