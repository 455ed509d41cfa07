"""How far a batch is: what is done, what is being done, how much time is left; in a terminal, a log or a notebook."""

import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from stkvlm_lib.batch.plan import PlannedRun
from stkvlm_lib.batch.states import DONE, FAILED, RUNNING, WAITING, State, doing, read_state, repeated
from stkvlm_lib.files import read_object
from stkvlm_lib.number_text import percent

LOOK, LOG_EVERY = 1.0, 60.0
"""Seconds between two looks, and between two lines in a log, which also tells at once what has ended."""


def seconds_left(states: Sequence[State], at_once: int, now: float) -> float | None:
    """Reckoned from the runs that are done; None as long as there is none."""
    took = [state.seconds for state in states if state.state == DONE and state.seconds]
    if not took:
        return None
    each = sum(took) / len(took)
    left = [max(0.0, each - _spent(state, now)) for state in states if state.state in (RUNNING, WAITING)]
    working = max(1, at_once, sum(state.state == RUNNING for state in states))  # a cluster may work on more
    return max(sum(left) / working, max(left, default=0.0))


def _spent(state: State, now: float) -> float:
    return state.seconds + (now - state.since if state.state == RUNNING else 0)


def duration(seconds: float) -> str:
    """In words that suit its size: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def headline(states: Sequence[State], at_once: int, now: float) -> str:
    """One line: 3 of 9 runs done, 1 failed, 2 running, about 40 min left."""
    counts = Counter(state.state for state in states)
    parts = [f"{counts[DONE]} of {len(states)} runs done"]
    parts += [f"{counts[name]} {name}" for name in (FAILED, RUNNING) if counts[name]]
    left = seconds_left(states, at_once, now)
    if counts[RUNNING] or counts[WAITING]:
        parts.append(f"about {duration(left)} left" if left is not None else "time left is known after the first")
    return ", ".join(parts)


def told(run: PlannedRun, state: State) -> str:
    """What a run is doing, why it has failed, or the score that it has come to."""
    if state.state == RUNNING:
        return doing(run.folder)
    if state.reason or not run.is_done:
        return state.reason
    try:
        return f"exact match {percent(read_object(run.folder / 'metrics.json').get('exact'))}"
    except (OSError, ValueError):
        return ""


def rows(planned: Sequence[PlannedRun], states: Sequence[State], now: float) -> list[dict[str, Any]]:
    """The runs as rows of text, for a table."""
    return [
        {
            "run": run.name,
            "state": state.state,
            "time": duration(_spent(state, now)),
            "where": state.where,
            "what": told(run, state),
        }
        for run, state in zip(planned, states, strict=True)
    ]


@contextmanager
def shown(planned: Sequence[PlannedRun], at_once: int) -> Iterator[None]:
    """Show the progress while the block runs, and how it has ended."""
    board = Board(planned, at_once)
    try:
        with repeated(board.look, LOOK):
            yield
    finally:
        board.look(last=True)


class Board:
    """What has been shown of the progress, and shows more at each look."""

    def __init__(self, planned: Sequence[PlannedRun], at_once: int):
        self._planned, self._at_once, self._shown = planned, at_once, 0.0
        self._before = {run.name: read_state(run.folder).state for run in planned}
        self._show_table = _table_shower() if _in_notebook() else None

    def look(self, last: bool = False) -> None:
        now, states = time.time(), [read_state(run.folder) for run in self._planned]
        line, ended = headline(states, self._at_once, now), self._newly_ended(states)
        if self._show_table:
            self._show_table((line, rows(self._planned, states, now)))
            return
        in_terminal = sys.stdout.isatty()
        clear = "\r\x1b[K" if in_terminal else ""
        for each in ended:
            print(clear + each, flush=True)
        if last:
            print(clear + line, flush=True)
        elif in_terminal or ended or now - self._shown >= LOG_EVERY:
            working = [pair for pair in zip(self._planned, states, strict=True) if pair[1].state == RUNNING]
            line = "  |  ".join([line, *(f"{run.name} {told(run, state)}" for run, state in working)])
            width = shutil.get_terminal_size().columns - 1 if in_terminal else None
            print(clear + line[:width], end="" if in_terminal else "\n", flush=True)
            self._shown = now

    def _newly_ended(self, states: Sequence[State]) -> list[str]:
        lines = []
        for run, state in zip(self._planned, states, strict=True):
            if state.state != self._before[run.name] and state.state in (DONE, FAILED):
                lines.append(f"{state.state:<7} {run.name}  {duration(state.seconds)}  {told(run, state)}")
            self._before[run.name] = state.state
        return lines


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def _table_shower() -> Callable[[tuple[str, list[dict]]], None]:
    from stkvlm_lib.figures import display

    return display.live(lambda shown: display.table(shown[1]).set_caption(shown[0]))
