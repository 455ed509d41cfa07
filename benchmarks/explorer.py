"""How fast the explorer is without a model: opening, a step, a filter, switching the overlay.

    python benchmarks/explorer.py [--run outputs/latest]

Each is what the kernel does for one event, until the last message to the browser is handed over; what the browser
needs to draw comes on top. A step is to answer within 150 ms. Without a run: the bundled frames and their ten forms.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from stkvlm_lib.config import ExplorerConfig
from stkvlm_lib.explore.explorer_run import explore_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="default: outputs/latest")
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    begin = time.perf_counter()
    explorer = explore_run(ExplorerConfig(run_dir=str(options.run or "")))
    opened = time.perf_counter() - begin
    explorer.state.clear_filters()
    explorer.refresh()
    print(f"{explorer.state.n_questions:,} questions about {len(explorer.state):,} views")
    print(f"{'opening':<10} {opened:6.1f} s")
    tracks = explorer.state.options("track")
    report("step", options.steps, lambda _: explorer.buttons["next"].click())
    report("random", options.steps, lambda _: explorer.buttons["random"].click())
    report("overlay", options.steps, lambda n: setattr(explorer.overlay, "value", n % 2 == 1))
    report("filter", 40, lambda n: setattr(explorer.filters["track"], "value", tracks[n % len(tracks)]))


def report(name: str, times: int, event: Callable[[int], None]) -> None:
    """Print the median and the slowest of so many events, in ms."""
    took = []
    for number in range(times):
        begin = time.perf_counter()
        event(number)
        took.append(1000 * (time.perf_counter() - begin))
    print(f"{name:<10} {statistics.median(took):6.1f} ms median, {max(took):6.1f} ms slowest of {times}")


if __name__ == "__main__":
    main()
