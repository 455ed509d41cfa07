"""One race in a process of its own, and the watch over it.

The game can hang or crash, so that a race runs in a child process (`python -m stkvlm_lib.game.race_process`) that
renders, writes whole frames, and says on a pipe what it is at. `render_watched` ends a child that says nothing for
too long, records the frame it was at as skipped, and has a new child go on past it. A child does race after race, as
starting the game takes seconds; it ends with whoever started it, or when it has nothing to do.
"""

import contextlib
import ctypes
import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from PIL import Image

from stkvlm_lib.config import ROOT
from stkvlm_lib.data.frames import INFO_SUFFIX
from stkvlm_lib.files import whole_file, write_json, write_text
from stkvlm_lib.game.race_plans import PlannedRace, Recipe
from stkvlm_lib.game.race_renderer import RenderedFrame

GAME = "stkvlm_lib.game.race_renderer:render_race"
"""What renders, as module:function; tests name another."""
_LAST_MOMENT = 0.5  # s
_IDLE_SECONDS = 30
_PR_SET_PDEATHSIG = 1
_CHILDREN = threading.local()


@dataclass(frozen=True)
class Limits:
    """When a race is taken to hang. start: s until its first frame is begun; frame: s a frame; deaths: ends of the
    process in a row, without a frame between them, after which the race is given up."""

    start: float = 180.0
    frame: float = 20.0
    deaths: int = 4


@dataclass(frozen=True)
class RaceTask:
    """What one race needs. folder: where its frames go; state: the file that keeps what was skipped, {frame: why}."""

    race: PlannedRace
    recipe: Recipe
    folder: Path
    state: Path
    held: frozenset[int]
    skipped: dict[int, str]
    renderer: str = GAME
    limits: Limits = Limits()
    paths: tuple[str, ...] = ()


def render_watched(task: RaceTask) -> dict[int, str]:
    """Render what is missing of a race; returns {frame: why} of all that is skipped. Blocks until the race is done."""
    if multiprocessing.current_process().name.startswith("Loky"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first decides what follows
        _die_with_parent(os.getppid())
    held, skipped, deaths = set(task.held), dict(task.skipped), 0
    while missing := [n for n in range(task.race.plan.frames) if n not in held and n not in skipped]:
        saved, begun, failure = _attempt(task, held | set(skipped))
        held |= saved
        missing = [n for n in missing if n not in held]
        if not failure:
            skipped |= {n: "the race ended before this frame" for n in missing}
        else:
            deaths = 1 if saved else deaths + 1
            if begun in missing:
                skipped[begun] = failure
                missing.remove(begun)
            if deaths >= task.limits.deaths:
                skipped |= {n: f"race given up: {failure}" for n in missing}
        for frame in skipped:
            remove_frame(task.folder, task.race.frame_id(frame))
        if skipped:
            write_json(task.state, {str(n): skipped[n] for n in sorted(skipped)})
    return skipped


def remove_frame(folder: Path, frame_id: str) -> None:
    """Remove the pictures of a frame that never got its info."""
    for path in folder.glob(f"*{frame_id}_*"):
        path.unlink(missing_ok=True)


def _attempt(task: RaceTask, skip: set[int]) -> tuple[set[int], int | None, str]:
    """How far one child comes: frames saved, the frame begun last, and why it ended (empty: the race is done)."""
    child, saved, begun, limit, event = _child(task), set(), None, task.limits.start, ""
    try:
        child.send(task, skip)
        while True:
            event, value = child.next_event(limit)
            if event == "begun":
                begun, limit = value, task.limits.frame
            elif event == "saved":
                saved.add(value)
            else:
                return saved, begun, value
    finally:
        if event != "done":
            child.kill()


def _child(task: RaceTask) -> "_Child":
    """This thread's child, a new one where there is none alive."""
    child = getattr(_CHILDREN, "child", None)
    kind = (task.renderer, task.recipe.size, task.paths)  # a process can start the game with one picture size only
    if child is None or not child.is_usable() or child.kind != kind:
        if child is not None:
            child.kill()
        child = _CHILDREN.child = _Child(kind)
    return child


class _Child:
    """A process that renders races, seen from the one that watches it."""

    def __init__(self, kind: tuple[str, tuple[int, int], tuple[str, ...]]):
        self.kind, self.used = kind, time.monotonic()
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 - the child writes to it as long as it lives
        environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
        environment |= {"LP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *kind[2]])}
        self.pipe, its_end = multiprocessing.Pipe()
        with its_end:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "stkvlm_lib.game.race_process", str(os.getpid()), str(its_end.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self.said,
                stderr=self.said,
                env=environment,
                pass_fds=[its_end.fileno()],
                start_new_session=True,
            )

    def is_usable(self) -> bool:
        """Alive, and not so long without work that it may be ending."""
        return self.process.poll() is None and time.monotonic() - self.used < _IDLE_SECONDS / 2

    def send(self, task: RaceTask, skip: set[int]) -> None:
        with contextlib.suppress(OSError):  # it has died, which the first event tells
            self.pipe.send((task, skip))

    def next_event(self, limit: float) -> tuple[str, Any]:
        """What the child says next; ("failed", why) when it ends, or says nothing for `limit` s."""
        try:
            if not self.pipe.poll(limit):
                return "failed", f"took longer than {limit:g} s"
            event = self.pipe.recv()
        except (EOFError, OSError):
            return "failed", self.how_it_ended()
        self.used = time.monotonic()
        return event

    def how_it_ended(self) -> str:
        """Its signal, or its status and the last line that it wrote as an error."""
        status = self.process.wait()
        if status == -signal.SIGKILL:  # who ends a whole tree of processes ends its leaves first, and this one next:
            time.sleep(_LAST_MOMENT)  # the frame is then not noted as one that cannot be rendered
        if status < 0:
            return f"the process was ended by {signal.Signals(-status).name}"
        self.said.seek(0)
        words = self.said.read().decode(errors="replace").strip().splitlines()
        return f"the process ended with status {status}" + (f": {words[-1]}" if words else "")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.pipe.close()
        self.said.close()


def main() -> None:
    """The child: renders the tasks that come through its pipe, and says there what it is at."""
    parent, pipe = int(sys.argv[1]), Connection(int(sys.argv[2]))
    _die_with_parent(parent)
    with contextlib.suppress(EOFError):  # who watched has gone
        while pipe.poll(_IDLE_SECONDS):
            task, skip = pipe.recv()
            try:
                _render(task, skip, pipe)
                pipe.send(("done", ""))
            except Exception as error:  # whatever it is, the watching process decides whether to go on past it
                pipe.send(("failed", f"{type(error).__name__}: {error}"))
                break
    os._exit(0)  # without the game's own end, which can crash


def _die_with_parent(parent: int) -> None:
    """Have the kernel end this process when its parent ends: a hung game holds the interpreter, and cannot look."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _render(task: RaceTask, skip: set[int], pipe: Connection) -> None:
    module, _, function = task.renderer.partition(":")
    render_race = getattr(importlib.import_module(module), function)
    size, on_frame = task.recipe.size, lambda number: pipe.send(("begun", number))
    for frame in render_race(task.race.plan, size, skip=frozenset(skip), on_frame=on_frame):
        _write_frame(task, frame)
        pipe.send(("saved", frame.number))


def _write_frame(task: RaceTask, frame: RenderedFrame) -> None:
    """Write a frame's pictures, and last its info, which makes it complete."""
    frame_id, saved = task.race.frame_id(frame.number), task.recipe.saved
    for view, pixels in enumerate(frame.images):
        image = Image.fromarray(pixels)
        if image.size != saved:
            image = image.resize(saved, Image.Resampling.LANCZOS)
        with whole_file(task.folder / f"{frame_id}_{view:02d}_im.jpg") as part:
            image.save(part, format="JPEG", quality=task.recipe.quality, optimize=True)
    info = json.dumps(frame.info | {"race": task.race.number}, ensure_ascii=False, separators=(",", ":"))
    write_text(task.folder / f"{frame_id}{INFO_SUFFIX}", info + "\n")


if __name__ == "__main__":
    main()
