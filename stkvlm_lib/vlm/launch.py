"""One training in several processes, each on its own GPU: started here, or on several machines by accelerate.

    accelerate launch --config_file FILE -m stkvlm_lib.vlm.train_process RUN_DIR       # on every machine

takes part in the training of a run whose questions are drawn and whose folder all machines share. Notebook 03, begun
and stopped at its training, has drawn them; run again afterwards, it goes on from the last checkpoint, the end.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from stkvlm_lib.config import ROOT, ConfigError, FinetuneConfig
from stkvlm_lib.files import read_object, write_json
from stkvlm_lib.model_files import ModelError
from stkvlm_lib.qa.qa_sets import QaError
from stkvlm_lib.vlm.diary import LogRows, read_log
from stkvlm_lib.vlm.finetune import TrainingFacts, read_facts
from stkvlm_lib.vlm.trainer import TrainingDiverged

FAILURE = "failed.json"
"""In RUN_DIR/training: what a launched process could not go on from."""
PATIENCE = 10.0
"""Seconds that processes are given to end when they are asked to."""
_KINDS = {kind.__name__: kind for kind in (TrainingDiverged, ConfigError, ModelError, QaError, OSError)}


class LaunchFailed(RuntimeError):
    """A launched process that ended before its training; what it said stands above."""


def process_count(config: FinetuneConfig) -> int:
    """How many processes PROCESSES asks for on this machine. Raises ConfigError for more than there are GPUs."""
    gpus = torch.cuda.device_count()
    if gpus and config.processes > gpus:
        raise ConfigError(f"PROCESSES={config.processes}: there are {gpus} GPUs; give at most so many, or 0 for all")
    return config.processes or max(1, gpus)


def launch(
    config: FinetuneConfig,
    processes: int,
    qa: Path,
    *,
    resume: bool,
    show: Callable[[LogRows], None] | None = None,
) -> TrainingFacts:
    """Train a run whose questions are drawn in several processes and show their log as it comes.

    qa: the folder of question files. An interrupt ends them all. Raises what a process failed with, or LaunchFailed.
    """
    run = config.run_path
    (run / "training" / FAILURE).unlink(missing_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", "stkvlm_lib.vlm.train_process", str(run), "--qa", str(qa), *(["--resume"] if resume else [])]
    with _process(command, _environment(processes)) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            if show and line.startswith("step "):  # the Diary prints it when it has written the log
                show(read_log(run))
        status = process.wait()
    if status:
        raise _failure(run, status)
    return read_facts(run)


def _environment(processes: int) -> dict[str, str]:
    """The processes find this library whatever folder they start in, and share the cores."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, torch.get_num_threads() // processes))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": threads, "STKVLM_HEADLESS": "1"}


@contextmanager
def _process(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen]:
    """Runs in this process's group, so that it ends with a kernel that is killed; ended with what it has started."""
    process = subprocess.Popen(
        command, env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen) -> None:
    import psutil

    if process.poll() is not None:
        return
    started = psutil.Process(process.pid).children(recursive=True)
    process.terminate()  # torch's launcher passes it on
    _, alive = psutil.wait_procs([*started, psutil.Process(process.pid)], PATIENCE)
    for left in alive:
        left.kill()
    process.wait()


def record_failure(run: Path, error: Exception) -> None:
    """Leave for the launching process what this one ends with; the first that does so counts."""
    path = run / "training" / FAILURE
    if not path.exists():
        write_json(path, {"kind": type(error).__name__, "message": str(error)})


def _failure(run: Path, status: int) -> Exception:
    path = run / "training" / FAILURE
    if not path.exists():
        return LaunchFailed(f"a training process ended with status {status} and left no reason; see its output above")
    left = read_object(path)
    return _KINDS.get(left["kind"], LaunchFailed)(left["message"])
