"""Progress of long work: a bar in a notebook stepped through by hand, a line every 20 s in a headless run."""

import os
import time
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm


def progress(items: Iterable[Any], label: str, every: float = 20.0, total: int | None = None) -> Iterable[Any]:
    """Iterate with progress.

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
