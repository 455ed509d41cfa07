"""How far a batch is: what is done, what is being done, how much time is left; in a terminal, a log or a notebook."""

import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from stkvlm_lib.batch.plan import PlannedRun
from stkvlm_lib.batch.states import DONE, FAILED, RUNNING, WAITING, State, doing, read_state
from stkvlm_lib.files import read_object
from stkvlm_lib.number_text import percent

EVERY = {"terminal": 1.0, "log": 60.0, "notebook": 3.0}
"""Seconds between two looks, by what shows them; a log also tells at once what has ended."""
LOOK = 1.0


def seconds_left(states: Sequence[State], at_once: int, now: float) -> float | None:
    """Reckoned from the runs that are done; None as long as there is none."""
    took = [state.seconds for state in states if state.state == DONE and state.seconds]
    if not took:
        return None
    each = sum(took) / len(took)
    spent = {RUNNING: lambda state: state.seconds + now - state.since, WAITING: lambda state: state.seconds}
    left = [max(0.0, each - spent[state.state](state)) for state in states if state.state in spent]
    working = max(1, at_once, sum(state.state == RUNNING for state in states))  # a cluster may work on more
    return max(sum(left) / working, max(left, default=0.0))


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


def rows(planned: Sequence[PlannedRun], states: Sequence[State], now: float) -> list[dict[str, Any]]:
    """The runs as rows of text, for a table."""
    return [
        {
            "run": run.name,
            "state": state.state,
            "time": duration(state.seconds + (now - state.since if state.state == RUNNING else 0)),
            "where": state.where,
            "what": doing(run) if state.state == RUNNING else state.reason or outcome(run),
        }
        for run, state in zip(planned, states, strict=True)
    ]


def outcome(run: PlannedRun) -> str:
    """The score of a run that is done."""
    try:
        return f"exact match {percent(read_object(run.folder / 'metrics.json').get('exact'))}" if run.is_done else ""
    except (OSError, ValueError):
        return ""


class Board:
    """Shows the progress from a thread of its own while it is open."""

    def __init__(self, planned: Sequence[PlannedRun], at_once: int):
        self._planned, self._at_once = planned, at_once
        self._kind = _kind()
        self._ended, self._known, self._told = threading.Event(), {}, 0.0
        self._show_table = _table_shower() if self._kind == "notebook" else None
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> "Board":
        self._known = {run.name: read_state(run).state for run in self._planned}
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        self._look(last=True)

    def _watch(self) -> None:
        while not self._ended.wait(LOOK):
            self._look()

    def _look(self, last: bool = False) -> None:
        now, states = time.time(), [read_state(run) for run in self._planned]
        due = last or now - self._told >= EVERY[self._kind]
        self._told = now if due else self._told
        if self._show_table:
            if due:
                self._show_table((headline(states, self._at_once, now), rows(self._planned, states, now)))
            return
        ended = self._newly_ended(states)
        clear = "\r\x1b[K" if self._kind == "terminal" else ""
        for line in ended:
            print(clear + line, flush=True)
        if last:
            print(clear + headline(states, self._at_once, now), flush=True)
        elif self._kind == "terminal":
            print(clear + self._line(states, now)[: shutil.get_terminal_size().columns - 1], end="", flush=True)
        elif due or ended:
            print(self._line(states, now), flush=True)

    def _newly_ended(self, states: Sequence[State]) -> list[str]:
        lines = []
        for run, state in zip(self._planned, states, strict=True):
            if state.state != self._known.get(run.name) and state.state in (DONE, FAILED):
                told = outcome(run) if state.state == DONE else state.reason
                lines.append(f"{state.state:<7} {run.name}  {duration(state.seconds)}  {told}")
            self._known[run.name] = state.state
        return lines

    def _line(self, states: Sequence[State], now: float) -> str:
        working = [
            f"{run.name} {doing(run)}"
            for run, state in zip(self._planned, states, strict=True)
            if state.state == RUNNING
        ]
        return "  |  ".join([headline(states, self._at_once, now), *working])


def _kind() -> str:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if type(shell).__name__ == "ZMQInteractiveShell":
        return "notebook"
    return "terminal" if sys.stdout.isatty() else "log"


def _table_shower() -> Callable[[tuple[str, list[dict]]], None]:
    from stkvlm_lib.figures import display

    return display.live(lambda shown: display.table(shown[1]).set_caption(shown[0]))
