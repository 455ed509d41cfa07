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
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stkvlm_lib.config import ROOT
from stkvlm_lib.files import whole_file, write_json
from stkvlm_lib.game.race_plans import PlannedRace, Recipe
from stkvlm_lib.game.race_renderer import RacePlan

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
    child, saved, begun, limit = _child(task), set(), None, task.limits.start
    message = {"renderer": task.renderer, "race": asdict(task.race), "folder": str(task.folder), "skip": sorted(skip)}
    settings = {"size": task.recipe.size, "saved": task.recipe.saved, "quality": task.recipe.quality}
    done = False
    try:
        child.send(message | settings)
        while True:
            event, value = child.next_event(limit)
            if event == "begun":
                begun, limit = value, task.limits.frame
            elif event == "saved":
                saved.add(value)
            else:
                done = event == "done"
                return saved, begun, value or ""
    finally:
        if not done:
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
        self.kind, self.buffer, self.used = kind, b"", time.monotonic()
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 - the child writes to it as long as it lives
        environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
        environment |= {"LP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *kind[2]])}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "stkvlm_lib.game.race_process", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            env=environment,
            start_new_session=True,
        )

    def is_usable(self) -> bool:
        """Alive, and not so long without work that it may be ending."""
        return self.process.poll() is None and time.monotonic() - self.used < _IDLE_SECONDS / 2

    def send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has died, which the first event tells
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def next_event(self, limit: float) -> tuple[str, Any]:
        """What the child says next; ("failed", why) when it ends, or says nothing for `limit` s."""
        pipe = self.process.stdout.fileno()
        end = time.monotonic() + limit
        while b"\n" not in self.buffer:
            if not select.select([pipe], [], [], max(0, end - time.monotonic()))[0]:
                return "failed", f"took longer than {limit:g} s"
            received = os.read(pipe, 1 << 16)
            if not received:
                return "failed", self.how_it_ended()
            self.buffer += received
        line, _, self.buffer = self.buffer.partition(b"\n")
        self.used = time.monotonic()
        return tuple(json.loads(line))

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
        for pipe in (self.process.stdin, self.process.stdout, self.said):
            with contextlib.suppress(OSError):
                pipe.close()


def main() -> None:
    """The child: a JSON task a line on stdin, events on what was stdout (the game writes to stdout as it likes)."""
    _die_with_parent(int(sys.argv[1]))
    channel = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)

    def say(event: str, value: Any = None) -> None:
        channel.write(json.dumps([event, value]) + "\n")
        channel.flush()

    while select.select([sys.stdin], [], [], _IDLE_SECONDS)[0] and (line := sys.stdin.readline()):
        try:
            _render(json.loads(line), say)
            say("done")
        except Exception as error:  # whatever it is, the watching process decides whether to go on past it
            say("failed", f"{type(error).__name__}: {error}")
            break
    os._exit(0)  # without the game's own end, which can crash


def _die_with_parent(parent: int) -> None:
    """Have the kernel end this process when its parent ends: a hung game holds the interpreter, and cannot look."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _render(task: dict[str, Any], say: Callable[[str, Any], None]) -> None:
    module, _, function = task["renderer"].partition(":")
    render_race = getattr(importlib.import_module(module), function)
    given = task["race"]
    plan = RacePlan(**given["plan"] | {"karts": tuple(given["plan"]["karts"])})
    race = PlannedRace(given["number"], given["split"], plan)
    for frame in render_race(
        plan, tuple(task["size"]), skip=frozenset(task["skip"]), on_frame=lambda number: say("begun", number)
    ):
        info = frame.info | {"race": race.number}
        frame_id = race.frame_id(frame.number)
        write_frame(Path(task["folder"]), frame_id, info, frame.images, tuple(task["saved"]), task["quality"])
        say("saved", frame.number)


def write_frame(
    folder: Path, frame_id: str, info: dict, images: list[np.ndarray], saved: tuple[int, int], quality: int
) -> None:
    """Write a frame's pictures ([H, W, 3] uint8), and last its info, which makes it complete."""
    for view, pixels in enumerate(images):
        image = Image.fromarray(pixels)
        if image.size != saved:
            image = image.resize(saved, Image.Resampling.LANCZOS)
        with whole_file(folder / f"{frame_id}_{view:02d}_im.jpg") as part:
            image.save(part, format="JPEG", quality=quality, optimize=True)
    with whole_file(folder / f"{frame_id}_info.json") as part:
        part.write_text(json.dumps(info, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
