"""One at a time in a run folder: who writes there holds a lock, which ends with its process however that ends.

The pipeline holds the folder's lock for a whole run, and the kernels that it starts a second one, as a kernel can
outlive a pipeline that is killed. A notebook run by hand holds the first itself. Reading needs neither.
"""

import atexit
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stkvlm_lib.config import ConfigError

if TYPE_CHECKING:
    from filelock import FileLock

RUN_LOCK, KERNEL_LOCK = ".lock", ".kernel.lock"
KERNEL_ENDS_WITHIN = 15.0
"""Seconds given to a kernel whose pipeline was killed to notice it and end."""
AT_ONCE = 0.1
"""Seconds in which a lock that nobody holds is taken, also where its last holder is just taking the file away."""


class RunBusy(ConfigError):
    """A run folder in which another process is working; the message names it."""


@dataclass(frozen=True)
class Lock:
    """A lock that this process holds, until `release` or its end.

    path: of the lock file. of_step: held for one step, not for a whole run.
    """

    path: Path
    file: "FileLock"
    of_step: bool

    def release(self) -> None:
        """Let go of it, and take the file away. A second call does nothing."""
        if _held.pop(self.path, None):
            self.path.unlink(missing_ok=True)
            self.file.release()


_held: dict[Path, Lock] = {}


def hold_run(folder: Path) -> Lock:
    """The lock of a whole run, for the pipeline. Raises RunBusy while another process works in the folder."""
    lock = _take(folder / RUN_LOCK, of_step=False)
    try:  # a kernel whose pipeline is gone ends by itself within seconds
        _take(folder / KERNEL_LOCK, of_step=True, within=KERNEL_ENDS_WITHIN).release()
    except BaseException:
        lock.release()
        raise
    return lock


def hold_step(folder: Path) -> Lock | None:
    """The lock of one step, for its notebook; None where this very process runs the whole pipeline.

    One that this process has for a step elsewhere, which it has left, ends. Raises RunBusy while a process works in the
    folder that has not started this one.
    """
    run, kernel = ((folder / name).resolve() for name in (RUN_LOCK, KERNEL_LOCK))
    for lock in [lock for lock in _held.values() if lock.of_step and lock.path not in (run, kernel)]:
        lock.release()
    if held := _held.get(run) or _held.get(kernel):
        return held if held.of_step else None
    try:
        return _take(run, of_step=True)
    except RunBusy:
        if not _is_ancestor(_holder(run)):
            raise
    return _take(kernel, of_step=True)


def drop_kernel_lock(folder: Path) -> None:
    """Take away the lock file that a killed kernel has left; one that is in use stays."""
    with suppress(RunBusy):
        _take(folder / KERNEL_LOCK, of_step=True).release()


def release_all() -> None:
    """Let go of every lock of this process."""
    for lock in list(_held.values()):
        lock.release()


atexit.register(release_all)


def _take(path: Path, *, of_step: bool, within: float = AT_ONCE) -> Lock:
    """Raises RunBusy where another process has it all the time, `within` seconds. The file tells its holder's pid."""
    from filelock import FileLock, Timeout  # here, as commands are checked where no package is installed

    path = path.resolve()
    file = FileLock(path, within, thread_local=False, fallback_to_soft=False)  # whose file would tell no pid
    try:
        file.acquire()
    except Timeout:
        raise RunBusy(_busy(path)) from None
    path.write_text(f"{os.getpid()}\n")
    _held[path] = Lock(path, file, of_step)
    return _held[path]


def _holder(path: Path) -> int | None:
    """The pid that a lock file tells; None where it tells none (its holder may just be writing it)."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _busy(path: Path) -> str:
    pid = _holder(path)
    who = f"process {pid}" if pid else "another process"
    stop = f", end it (`kill {pid}`, or restart the notebook's kernel if it is one)" if pid else ""
    return f"{path.parent}: {who} is working in it; wait for it{stop}, or take another --run-id, --name or RUN_DIR"


def _is_ancestor(pid: int | None) -> bool:
    import psutil

    return pid is not None and any(parent.pid == pid for parent in psutil.Process().parents())
