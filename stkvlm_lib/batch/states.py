"""What each run of a batch is doing, in files of the batch's folder that all machines see."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from stkvlm_lib import runs
from stkvlm_lib.config import STEPS
from stkvlm_lib.files import write_json
from stkvlm_lib.typed import read_file

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
ALIVE = ".alive"
"""In a batch's folder while it is going on; runs end when it is gone or stands still."""
BEGUN = "== begun "
"""How the line of a log begins that an attempt at its run begins with."""
BEAT = 2.0
"""Seconds between two changes of ALIVE."""


@dataclass(frozen=True)
class State:
    """One run: what it is doing, since when (seconds since 1970), for how long it worked, why it failed, and where."""

    state: str = WAITING
    since: float = 0.0
    seconds: float = 0.0
    reason: str = ""
    where: str = ""


def log_path(run: Path) -> Path:
    """What the run of a folder has printed."""
    return run.parent / "logs" / f"{run.name}.log"


def _state_path(run: Path) -> Path:
    return run.parent / "states" / f"{run.name}.json"


def write_state(run: Path, state: State) -> None:
    """Remember it. A full disk takes nothing from a run, as its stamps and its outcome say the same."""
    with suppress(OSError):
        write_json(_state_path(run), asdict(state))


def read_state(run: Path) -> State:
    """The last known state; a run that nobody is working on is done when all its stamps are there."""
    try:
        state = read_file(_state_path(run), State)
    except (OSError, ValueError):
        state = State()
    return replace(state, state=DONE, reason="") if state.state != RUNNING and runs.are_done(run) else state


def doing(run: Path) -> str:
    """The step that a run is in, with the last line that it has printed."""
    step = next((name for step, (name, _) in STEPS.items() if not runs.is_done(run, step)), "")
    lines = _latest_attempt(run, 4096)
    said = next((line.strip() for line in reversed(lines) if line.strip() and not line.startswith("==")), "")
    return f"{step}: {said[:90]}" if said else step


def complaint(run: Path) -> str:
    """The error that a run's log ends with, empty where it ends with none."""
    _, found, told = "\n".join(["", *_latest_attempt(run, 20_000)]).rpartition("\nerror: ")
    lines = map(str.strip, told.splitlines() if found else ())
    return "; ".join(line for line in lines if line and not line.startswith(("see ", "resume ")))[:600]


def _latest_attempt(run: Path, most: int) -> list[str]:
    """What it has printed, of the last `most` bytes of the run's log; nothing where that cannot be read."""
    path = log_path(run)
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - most))
            return file.read().decode(errors="replace").rpartition(BEGUN)[2].splitlines()[1:]
    except OSError:
        return []


@contextmanager
def repeated(call: Callable[[], None], every: float) -> Iterator[None]:
    """Call something from a thread every so many seconds, until the block ends."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(every):
            call()

    thread = threading.Thread(target=repeat, name=call.__qualname__, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def heartbeat(folder: Path) -> Iterator[None]:
    """Let all machines know that the batch is going on; at its end, however it ends, they are told at once."""
    path = folder / ALIVE
    path.write_text("0")

    def beat() -> None:
        with suppress(OSError):
            path.write_text(f"{os.getpid()} {time.time()}")

    try:
        with repeated(beat, BEAT):
            yield
    finally:
        path.unlink(missing_ok=True)


class Pulse:
    """Whether a batch is going on, judged by changes of its ALIVE alone, as clocks of two machines may differ."""

    def __init__(self, folder: Path, patience: float):
        self._path, self._patience = folder / ALIVE, patience
        self._last, self._seen = "", time.monotonic()

    def is_there(self) -> bool:
        """False once the file is gone, or has stood still for `patience` seconds."""
        with suppress(OSError):  # a share may not answer for a moment
            if not self._path.exists():
                return False
            if (text := self._path.read_text()) != self._last:
                self._last, self._seen = text, time.monotonic()
        return time.monotonic() - self._seen < self._patience
