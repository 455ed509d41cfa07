"""All runs of a batch, each a process of its own: one that fails is named, and the others go on."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from stkvlm_lib import parallel, pipeline, run_lock, runs
from stkvlm_lib.batch.handing_on import hand_on, leader_of, leaders
from stkvlm_lib.batch.machines import GPU, Machines, one_of
from stkvlm_lib.batch.plan import BATCH_FILE, SHARED_STEPS, Batch, PlannedRun, check_same
from stkvlm_lib.batch.progress import Board
from stkvlm_lib.batch.states import (
    BEGUN,
    DONE,
    FAILED,
    RUNNING,
    WAITING,
    State,
    complaint,
    finished,
    heartbeat,
    here,
    log_path,
    read_state,
    write_state,
)
from stkvlm_lib.config import ROOT, ConfigError, ScoreConfig, make_config
from stkvlm_lib.files import errors_naming, explain, read_object, write_json

Command = Callable[[PlannedRun, str | None], list[str]]
"""(run, last step to do) -> the words of the process that does it."""
OTHERS_END_WITHIN = 90.0
"""Seconds given to what a killed batch has left running, which ends by itself."""
ENDS_WITHIN = 20.0
"""Seconds given to a run that was told to end, before it is killed."""


def as_child(run: PlannedRun, to_step: str | None) -> list[str]:
    """A run as ./run_all.sh would do it, in a process that ends with this one."""
    request = run.request
    pairs = [word for name, value in request.parameters.items() for word in ("-p", name, str(value))]
    words = ["run", run.profile, *pairs, "--run-id", run.run_id, *(["--to", to_step] if to_step else [])]
    return [sys.executable, "-P", "-m", "stkvlm_lib.batch.child", str(run.folder.parent), str(os.getpid()), *words]


@dataclass(frozen=True)
class Job:
    """One run as a worker gets it, here or on another machine. source: whose shared steps it takes over."""

    run: PlannedRun
    machines: Machines
    command: Command = as_child
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
    batch.folder.mkdir(parents=True, exist_ok=True)
    lock = run_lock.hold_run(batch.folder)
    ended: dict[str, State] = {}
    try:
        with _workers(machines) as workers, heartbeat(batch.folder):
            _remember(batch)
            with Board(batch.runs, machines.at_once):
                ended |= _do(batch, Job(batch.runs[0], machines, command), workers)
    except KeyboardInterrupt:
        end_all()
        print(f"\nbatch {batch.name} interrupted\n  resume {resume}", file=sys.stderr, flush=True)
        raise
    finally:
        end_all()  # also after an error of another kind
        lock.release()
        for left in batch.folder.glob(".gpu-*.lock"):
            left.unlink(missing_ok=True)
    return {run.name: finished(read_state(run)) if run.is_done else ended[run.name] for run in batch.runs}


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
    bases = {}
    for run in batch.runs:
        bases.setdefault((run.recorded["04"]["BASE_MODEL"], run.recorded["04"]["BASE_REVISION"]), run)
    for run in bases.values():
        config = make_config(run.recorded["04"], ScoreConfig)
        runs.set_up_hub(config.base_model)
        pipeline.describe_base(config)


def _remember(batch: Batch) -> None:
    """Write what the batch consists of; runs of an earlier call that this one does not name stay listed."""
    path, record = batch.folder / BATCH_FILE, batch.record()
    before = read_object(path).get("runs", {}) if path.is_file() else {}
    write_json(path, record | {"runs": before | record["runs"]})
    for run in batch.runs:
        write_state(run, replace(read_state(run), state=DONE if run.is_done else WAITING, reason="", since=time.time()))


def _do(batch: Batch, template: Job, workers: parallel.Workers) -> dict[str, State]:
    """First the shared steps, each made by one run; then all runs. -> how each has ended, also where a full disk has
    kept that from being remembered."""
    make = partial(Job, machines=template.machines, command=template.command)
    open_runs = [run for run in batch.runs if not run.is_done]
    led = leaders(batch.runs)
    first = [make(run, to_step=SHARED_STEPS[-1]) for run in led if not _shared_done(run)]
    ended: dict[str, State] = {}
    if len(first) < len(open_runs):
        ended |= _do_jobs(first, workers)
    failed = {name for name, state in ended.items() if state.state == FAILED}
    rest = [make(run, source=leader_of(run, led)) for run in open_runs if run.name not in failed]
    return ended | _do_jobs(rest, workers)


def _do_jobs(jobs: Sequence[Job], workers: parallel.Workers) -> dict[str, State]:
    states = workers.run(do_job, [(job,) for job in jobs], "runs", len(jobs)) if jobs else ()
    return {job.run.name: state for job, state in zip(jobs, states, strict=True)}


def _shared_done(run: PlannedRun) -> bool:
    return all(runs.is_done(run.folder, step) for step in SHARED_STEPS)


def do_job(job: Job) -> State:
    """Do one run, or its first steps, in a process of its own; -> how it ended, which is remembered too."""
    run, before = job.run, read_state(job.run)
    if _ended.is_set():
        return before
    with one_of(job.machines.gpus, run.folder.parent, job.machines.at_once) as gpu:
        begin, where = time.time(), here(gpu)
        write_state(run, State(RUNNING, begin, before.seconds, "", where))
        try:
            reason = _full_disk(run.folder.parent) or _work(job, gpu)
        except OSError as error:  # a disk that fills, a program that cannot be started
            reason = explain(error) if error.errno else str(error)
        if _ended.is_set():
            reason = reason and "stopped with the batch"
        seconds = round(before.seconds + time.time() - begin, 1)
        state = State(FAILED if reason else DONE if run.is_done else WAITING, time.time(), seconds, reason, where)
        write_state(run, state)
        return state


def _full_disk(folder: Path) -> str:
    free = shutil.disk_usage(folder).free / 1e9
    if free >= pipeline.FULL_DISK_GB:
        return ""
    return f"the disk of {folder} has {1000 * free:.0f} MB left; make room there"


def _work(job: Job, gpu: str) -> str:
    """-> why it failed, empty when it did not."""
    run = job.run
    _wait_for_others(run.folder)
    if job.source:
        hand_on(job.source, run)
    status = _process(job.command(run, job.to_step), log_path(run), os.environ | job.machines.environment(gpu))
    done = _shared_done(run) if job.to_step else run.is_done
    if status == 0 and done:
        return ""
    if status < 0:
        return f"killed (signal {-status}: {signal.Signals(-status).name})"
    return complaint(run) or _full_disk(run.folder.parent) or f"ended with status {status}; see {log_path(run)}"


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
        with _children.holding(process):
            return process.wait()


@dataclass
class _Children:
    """The processes that this one has started and that are still working."""

    processes: set = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def holding(self, process: subprocess.Popen) -> Iterator[None]:
        with self.lock:
            self.processes.add(process)
        if _ended.is_set():
            process.terminate()
        try:
            yield
        finally:
            if process.poll() is None:  # an interrupt, where this thread is the main one
                end_all()
            with self.lock:
                self.processes.discard(process)


_children = _Children()
_ended = threading.Event()
"""Set while the batch is being interrupted: nothing is started any more."""


def end_all() -> None:
    """Tell every run that is working to end with its kernel, and see that it does."""
    _ended.set()
    with _children.lock:
        working = [process for process in _children.processes if process.poll() is None]
    for process in working:
        with suppress(ProcessLookupError):
            process.terminate()
    until = time.monotonic() + ENDS_WITHIN
    for process in working:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, until - time.monotonic()))
        if process.poll() is None:
            process.kill()
