"""All runs of a batch, each a process of its own: one that fails is named, and the others go on."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from stkvlm_lib import parallel, run_lock, runs
from stkvlm_lib.batch.handing_on import hand_on, leaders
from stkvlm_lib.batch.machines import GPU, Machines
from stkvlm_lib.batch.plan import BATCH_FILE, SHARED_STEPS, Batch, PlannedRun, check_same, planned_runs
from stkvlm_lib.batch.progress import shown
from stkvlm_lib.batch.states import (
    BEGUN,
    DONE,
    FAILED,
    RUNNING,
    WAITING,
    State,
    complaint,
    heartbeat,
    log_path,
    read_state,
    write_state,
)
from stkvlm_lib.config import ROOT, ConfigError, ScoreConfig
from stkvlm_lib.files import errors_naming, explain, full_disk, write_json
from stkvlm_lib.parameters import make_config
from stkvlm_lib.preflight import describe_base

Command = Callable[[PlannedRun, str | None], list[str]]
"""(run, last step to do) -> the words of the process that does it."""
OTHERS_END_WITHIN = 90.0
"""Seconds given to what a killed batch has left running, which ends by itself."""
ENDS_WITHIN = 20.0
"""Seconds given to a run that was told to end, before it is killed."""
_working: set[subprocess.Popen] = set()
"""The processes that this one has started and that have not ended."""
_free_gpus: list[str] = []
"""Those that no run works on, each as often as it has room for one."""
_ended = threading.Event()
"""Set while the batch is being interrupted: nothing is started any more."""


def as_child(run: PlannedRun, to_step: str | None) -> list[str]:
    """A run as ./run_all.sh would do it, in a process that ends with this one."""
    words = replace(run.request, to_step=to_step).words(run.profile, run.run_id)
    child = [sys.executable, "-P", "-m", "stkvlm_lib.batch.child", str(run.folder.parent), str(os.getpid())]
    return [*child, "run", *words]


@dataclass(frozen=True)
class Job:
    """One run as a worker gets it, here or on another machine. source: whose shared steps it takes over."""

    run: PlannedRun
    machines: Machines
    command: Command
    to_step: str | None = None
    source: PlannedRun | None = None


def run_batch(batch: Batch, machines: Machines, *, resume: str, command: Command = as_child) -> dict[str, State]:
    """Do what is not done yet; -> each run's state at the end.

    resume: the command that goes on, printed when it is interrupted. Raises ConfigError before anything is started
    where the batch's folder holds another batch, a base is not there, or another process works in it.
    """
    _ended.clear()
    check_same(batch)
    _check_bases(batch)
    with _workers(machines) as workers:  # before there is a folder, as a cluster may not answer
        batch.folder.mkdir(parents=True, exist_ok=True)
        lock = run_lock.hold_run(batch.folder)
        _free_gpus[:] = machines.places()
        try:
            with heartbeat(batch.folder):
                _remember(batch)
                with shown(batch.runs, machines.at_once):
                    ended = _do(batch, partial(Job, machines=machines, command=command), workers)
        except KeyboardInterrupt:
            print(f"\nbatch {batch.name} interrupted\n  resume {resume}", file=sys.stderr, flush=True)
            raise
        finally:
            end_all()
            lock.release()
    done = {run.name: replace(read_state(run.folder), state=DONE, reason="") for run in batch.runs if run.is_done}
    return {run.name: done.get(run.name) or ended[run.name] for run in batch.runs}


@contextmanager
def _workers(machines: Machines) -> Iterator[parallel.Workers]:
    """Raises ConfigError where the cluster cannot be used."""
    try:
        with parallel.cluster(machines.cluster, GPU if machines.cluster else ""):
            yield parallel.Workers(machines.at_once, quiet=True, threads=True)
    except parallel.ClusterError as error:
        raise ConfigError(f"--cluster: {error}") from None


def _check_bases(batch: Batch) -> None:
    """Raises ConfigError where a base is neither on disk nor given by a hub."""
    asked = [run.recorded["04"] for run in batch.runs]
    bases = {(given["BASE_MODEL"], given["BASE_REVISION"]): given for given in asked}
    for given in bases.values():
        runs.set_up_hub(given["BASE_MODEL"])
        describe_base(make_config(given, ScoreConfig))


def _remember(batch: Batch) -> None:
    """Write what the batch consists of; runs of an earlier call that this one does not name stay listed."""
    record = batch.record()
    write_json(batch.folder / BATCH_FILE, record | {"runs": planned_runs(batch.folder) | record["runs"]})
    for run in batch.runs:
        now = DONE if run.is_done else WAITING
        write_state(run.folder, replace(read_state(run.folder), state=now, reason="", since=time.time()))


def _do(batch: Batch, make: Callable[..., Job], workers: parallel.Workers) -> dict[str, State]:
    """First the shared steps, each made by one run; then all runs. -> how each has ended, also where a full disk has
    kept that from being remembered."""
    open_runs, leader = [run for run in batch.runs if not run.is_done], leaders(batch.runs)
    first = [make(run, to_step=SHARED_STEPS[-1]) for run in open_runs if leader[run.name] is run and not run.has_shared]
    shared = _do_jobs(first, workers) if len(first) < len(open_runs) else {}  # else no run takes over from another
    rest = [run for run in open_runs if run.name not in shared or shared[run.name].state != FAILED]
    return shared | _do_jobs([make(run, source=leader[run.name]) for run in rest], workers)


def _do_jobs(jobs: Sequence[Job], workers: parallel.Workers) -> dict[str, State]:
    states = workers.run(do_job, [(job,) for job in jobs], "runs", len(jobs)) if jobs else ()
    return {job.run.name: state for job, state in zip(jobs, states, strict=True)}


def do_job(job: Job) -> State:
    """Do one run, or its first steps, in a process of its own; -> how it ended, which is remembered too."""
    run, before = job.run, read_state(job.run.folder)
    if _ended.is_set():
        return before
    gpu = _free_gpus.pop(0) if job.machines.gpus else ""
    begin, where = time.time(), socket.gethostname() + (f", GPU {gpu}" if gpu else "")
    write_state(run.folder, State(RUNNING, begin, before.seconds, "", where))
    try:
        reason = full_disk(run.folder.parent) or _work(job, gpu)
    except OSError as error:  # a disk that fills, a program that cannot be started
        reason = explain(error) if error.errno else str(error)
    finally:
        if gpu:
            _free_gpus.append(gpu)
    if _ended.is_set():
        reason = reason and "stopped with the batch"
    seconds = round(before.seconds + time.time() - begin, 1)
    state = State(FAILED if reason else DONE if run.is_done else WAITING, time.time(), seconds, reason, where)
    write_state(run.folder, state)
    return state


def _work(job: Job, gpu: str) -> str:
    """-> why it failed, empty when it did not."""
    run, log = job.run, log_path(job.run.folder)
    _wait_for_others(run.folder)
    if job.source:
        hand_on(job.source, run)
    status = _process(job.command(run, job.to_step), log, os.environ | job.machines.environment(gpu))
    if status == 0 and (run.has_shared if job.to_step else run.is_done):
        return ""
    if status < 0:
        number = -status  # of a real-time signal, which has no name among Python's
        name = signal.Signals(number).name if number in set(signal.Signals) else signal.strsignal(number)
        return f"killed (signal {number}: {name})"
    return complaint(run.folder) or full_disk(run.folder.parent) or f"ended with status {status}; see {log}"


def _wait_for_others(folder: Path) -> None:
    """What a killed batch has started ends within seconds; one who does not end is named by the run itself."""
    until = time.monotonic() + OTHERS_END_WITHIN
    while folder.is_dir() and time.monotonic() < until and not _ended.is_set():
        try:
            return run_lock.hold_run(folder).release()
        except run_lock.RunBusy:
            time.sleep(0.5)


def _process(command: Sequence[str], log: Path, environment: dict[str, str]) -> int:
    """Its exit status. It leads a group of its own, so that a Ctrl-C in the terminal reaches it through the batch."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with errors_naming(log), log.open("a", encoding="utf-8") as out:
        print(f"{BEGUN}{time.strftime('%Y-%m-%d %H:%M:%S')} {shlex.join(command)}", file=out, flush=True)
        path = os.pathsep.join([str(ROOT), *filter(None, [environment.get("PYTHONPATH")])])
        settings = {"cwd": ROOT, "env": environment | {"PYTHONPATH": path}, "start_new_session": True}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, **settings)
        _working.add(process)
        try:
            if _ended.is_set():  # since this one was asked for
                process.terminate()
            return process.wait()
        finally:
            if process.poll() is None:  # an interrupt, where this thread is the main one
                end_all()
            _working.discard(process)


def end_all() -> None:
    """Tell every run that is working to end with its kernel, and see that it does."""
    _ended.set()
    working = [process for process in _working.copy() if process.poll() is None]
    for process in working:
        with suppress(ProcessLookupError):
            process.terminate()
    until = time.monotonic() + ENDS_WITHIN
    for process in working:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, until - time.monotonic()))
        if process.poll() is None:
            process.kill()
