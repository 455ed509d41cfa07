"""The run folder: what a notebook starts with and leaves behind. Steps speak to each other only through its files.

`outputs/<run-id>/` holds config.json (the parameters by step), the steps' artefacts, manifest.json and stamps/NN.json.
A step is done when its stamp is there, and the stamp is written last. Nothing heavy is imported before it is needed.
"""

import os
import platform
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stkvlm_lib import __version__, run_lock
from stkvlm_lib.config import EMBEDDED, ROOT, STEPS, ConfigError, RunConfig, did_you_mean, from_root, resolve
from stkvlm_lib.files import drop_parts, read_object, sha256, write_json
from stkvlm_lib.model_files import ADAPTER_CONFIG, ModelError, started_form
from stkvlm_lib.notebook_kernel import CONNECTION_FILE
from stkvlm_lib.parameters import upper

if TYPE_CHECKING:
    import pandas as pd

OUTPUTS = ROOT / "outputs"
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")
MB = 1e6


class StepMissingError(FileNotFoundError):
    """A notebook was started before the one whose files it needs; the message says which to run."""


def set_up_torch() -> None:
    """As many threads as OMP_NUM_THREADS says, or else as there are cores; and numbers next to zero become zero."""
    import torch

    wanted = os.environ.get("OMP_NUM_THREADS", "")
    torch.set_num_threads(int(wanted) if wanted.isdigit() and int(wanted) else cores())
    torch.set_flush_denormal(True)  # denormals slow training on a CPU several times


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_up_hub(base_model: str) -> None:
    """Telemetry off; no look-ups on a hub when the base lies on disk. What the user has set stays as it is."""
    quiet_libraries()
    if not base_is_local(base_model) or "HF_HUB_OFFLINE" in os.environ:
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    if constants := sys.modules.get("huggingface_hub.constants"):
        constants.HF_HUB_OFFLINE = True  # read from the environment at import, which has been


def quiet_libraries() -> None:
    """No telemetry, and no threads of tokenizers that warn when a process forks."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def base_is_local(base_model: str) -> bool:
    """Whether a base needs no hub: the embedded one, or a folder."""
    return base_model in ("", EMBEDDED) or resolve(base_model).is_dir()


@dataclass
class Run:
    """One step of a run while it is going on; `start_run` makes it.

    lock: keeps others out until `finish`, where the pipeline that runs the notebook does not.
    interrupted: the same step was begun here with the same parameters and did not finish, so its leftovers may be
    continued. False after any change and when the step is done anew: then leftovers must go.
    recorded: when it was entered into manifest.json, empty before that.
    """

    folder: Path
    step: str
    config: RunConfig
    interrupted: bool
    started: float = field(default_factory=time.perf_counter)
    recorded: str = ""
    lock: run_lock.Lock | None = None

    def table(self) -> "pd.DataFrame":
        """The run's folder, versions, device, commit and seed, one row each."""
        import pandas as pd

        rows = {"run folder": from_root(self.folder), **versions(), "device": device_name(), "commit": commit()}
        rows["seed"] = self.config.seed
        return pd.DataFrame({"": {name: str(value) for name, value in rows.items()}})

    def require(self, step: str, *files: str) -> list[Path]:
        """Paths of files that an earlier step leaves in the run folder.

        Raises StepMissingError naming the notebook to run first when that step is not done or a file is not there.
        """
        notebook = STEPS[step][0]
        remedy = f"run notebooks/{notebook}.ipynb with the same RUN_DIR first"
        if not is_done(self.folder, step):
            raise StepMissingError(f"{self.folder}: step {step} is not done; {remedy}")
        paths = [self.folder / file for file in files]
        for path in paths:
            if not path.exists():
                raise StepMissingError(f"{path}: not there, though step {step} was done; {remedy}")
        return paths

    def finish(self, inputs: Iterable[Path] = (), artefacts: Iterable[Path] = (), **facts: Any) -> None:
        """Enter the step into manifest.json (unless `record` has), then write its stamp: now it counts as done."""
        if inputs or artefacts or facts or not self.recorded:
            self.record(inputs, artefacts, **facts)
        write_json(stamp_path(self.folder, self.step), {"step": self.step, "finished": self.recorded})
        if self.lock:
            self.lock.release()

    def record(self, inputs: Iterable[Path] = (), artefacts: Iterable[Path] = (), **facts: Any) -> None:
        """Enter the step into manifest.json, for a step that still writes something from it before it is done.

        inputs, artefacts: files or folders whose hashes are recorded. facts: anything JSON can hold.
        """
        head = commit()
        entry = {
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "wall_seconds": round(time.perf_counter() - self.started, 1),
            "peak_memory_mb": round(peak_memory_mb()),
            "inputs": {self._name(path): hash_of(path) for path in inputs},
            "artefacts": {self._name(path): hash_of(path) for path in artefacts},
            "commit": head,
            **facts,
        }
        manifest = _read_record(self.folder / "manifest.json")
        manifest |= {"run_id": self.folder.name, "seed": self.config.seed, "versions": versions()}
        manifest |= {"commit": head, "device": device_name()}
        manifest["steps"] = dict(sorted((manifest.get("steps", {}) | {self.step: entry}).items()))
        write_json(self.folder / "manifest.json", manifest)
        self.recorded = entry["finished"]

    def _name(self, path: Path) -> str:
        """A path as the manifest records it: relative to the run folder or the repository where it lies in one."""
        path = Path(path).absolute()
        inside = path.is_relative_to(self.folder)
        return (path.relative_to(self.folder) if inside else from_root(path)).as_posix()


def start_run(config: RunConfig, step: str) -> Run:
    """Begin a step: folder, seeds, torch and hub settings; its own stamp and those of later steps are taken away.

    Raises run_lock.RunBusy while another process works in the folder.
    """
    folder = config.run_path
    folder.mkdir(parents=True, exist_ok=True)
    lock = run_lock.hold_step(folder)
    recorded, _ = recorded_steps(folder), _read_record(folder / "manifest.json")  # a broken one stops here
    parameters = recorded_parameters(config)
    interrupted = recorded.get(step) == parameters and not is_done(folder, step)
    drop_stamps(folder, step)
    kept = {name: value for name, value in recorded.items() if name < step}
    write_json(folder / "config.json", kept | {step: parameters})
    set_up_hub(getattr(config, "base_model", ""))
    set_seeds(config.seed)
    set_up_torch()
    return Run(folder.absolute(), step, config, interrupted, lock=lock)


@contextmanager
def open_run(name: str | None, profile: str, seed: int) -> Iterator[Path]:
    """The folder of a run, which nobody else works in meanwhile. name None: a new one, called by `run_id`.

    What a killed run left half written is removed; a folder in which nothing came to be is taken away at the end.
    Raises run_lock.RunBusy.
    """
    folder = OUTPUTS / (name or run_id(profile, seed))
    folder.mkdir(parents=True, exist_ok=True)
    lock = run_lock.hold_run(folder)
    try:
        drop_leftovers(folder)
        yield folder
    finally:
        drop_leftovers(folder)
        lock.release()
        if not any(folder.iterdir()):
            folder.rmdir()


def drop_leftovers(folder: Path) -> None:
    """Remove what killed processes left: half-written files, and the addresses and locks of kernels that are gone."""
    drop_parts(folder)
    run_lock.drop_kernel_lock(folder)
    for left in folder.glob(f"notebooks/{CONNECTION_FILE.format('*')}"):
        left.unlink(missing_ok=True)


def set_seeds(seed: int) -> None:
    """Python, numpy and torch, all devices."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def recorded_parameters(config: RunConfig) -> dict[str, Any]:
    """A step's parameters as config.json keeps them: all but RUN_DIR, which says only where they are kept, and with the
    rank and alpha that training has. Raises ModelError for a START_ADAPTER that cannot be used."""
    given = {name: value for name, value in upper(config).items() if name != "RUN_DIR"}
    return given | started_form(config)


def changed_parameters(folder: Path, step: str, config: RunConfig) -> list[str]:
    """Which parameters of a step are not those that its run folder recorded, as `NAME=before, now after`."""
    before, now = recorded_steps(folder).get(step, {}), recorded_parameters(config)
    return [f"{name}={before.get(name)!r}, now {now[name]!r}" for name in now if before.get(name) != now[name]]


def run_id(profile: str, seed: int) -> str:
    """Time, profile, seed and commit, e.g. `20261123-061500-cpu-s0-abc1234`."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{profile}-s{seed}-{commit().removesuffix(', dirty')}"


def find_run(name: str | None) -> Path:
    """A run by its name in outputs/, or by a path, which counts from the repository; None: the newest, which need not
    be there yet.

    Raises FileNotFoundError for a run that is not there.
    """
    if name is None:
        return (OUTPUTS / "latest").resolve()  # a later run moves the link under who goes on reading
    found = next((path for path in (OUTPUTS / name, resolve(name)) if path.is_dir()), None)
    if found is None:
        there = sorted(path.parent.name for path in OUTPUTS.glob("*/manifest.json"))
        known = ", ".join(there) or "none yet (./run_all.sh makes one)"
        raise FileNotFoundError(
            f"{name}: no such run{did_you_mean(name, there)}; there are {known} in outputs/, "
            f"those of a batch are BATCH/RUN, and a path counts from {ROOT}"
        )
    return found


def find_adapter(given: str) -> Path:
    """The adapter meant by its folder, or by a run as `find_run` finds it.

    Raises FileNotFoundError for a run that is not there, ModelError for one without an adapter.
    """
    if (Path(given) / ADAPTER_CONFIG).is_file():
        return Path(given)
    run = find_run(given)
    if not (run / "adapter" / ADAPTER_CONFIG).is_file():
        remedy = "make one with ./run_all.sh, or name another run or the folder of an adapter"
        raise ModelError(f"{run}: no adapter there; {remedy}")
    return run / "adapter"


def compared_run(name: str) -> Path:
    """The folder of COMPARE_RUN, as `find_run` finds it. Raises ConfigError where no scored run is."""
    try:
        folder = find_run(name)
    except FileNotFoundError as error:
        raise ConfigError(f"COMPARE_RUN: {error}") from None
    if not (folder / "predictions.jsonl").is_file():
        raise ConfigError(f"COMPARE_RUN: no predictions.jsonl in {folder}; name a run in outputs/ that was scored")
    return folder


def stamp_path(folder: Path, step: str) -> Path:
    return folder / "stamps" / f"{step}.json"


def is_done(folder: Path, step: str) -> bool:
    return stamp_path(folder, step).is_file()


def are_done(folder: Path, steps: Iterable[str] = STEPS) -> bool:
    return all(is_done(folder, step) for step in steps)


def drop_stamps(folder: Path, first: str) -> None:
    """From step `first` on, nothing counts as done any more."""
    for step in STEPS:
        if step >= first:
            stamp_path(folder, step).unlink(missing_ok=True)


def forget(folder: Path, first: str) -> None:
    """From step `first` on, nothing is done or begun: what a step left half-finished is not gone on with."""
    drop_stamps(folder, first)
    kept = {step: values for step, values in recorded_steps(folder).items() if step < first}
    write_json(folder / "config.json", kept)


def versions() -> dict[str, str]:
    """Versions of Python, of the libraries that decide results, and of this package."""
    libraries = {name: version(name) for name in LIBRARIES}
    return {"python": platform.python_version(), **libraries, "stkvlm": __version__}


def commit() -> str:
    """The short commit, with `, dirty` when files differ from it; `nogit` outside a repository."""
    try:
        head = _git("rev-parse", "--short=7", "HEAD")
        return f"{head}, dirty" if _git("status", "--porcelain") else head
    except (OSError, subprocess.CalledProcessError):
        return "nogit"


def device_name() -> str:
    """That of `device.device_name`; it loads torch."""
    from stkvlm_lib import device

    return device.device_name()


def peak_memory_mb() -> float:
    """The most memory used so far, in MB of 10^6 bytes: of the GPU where there is one, else of this process."""
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / MB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MB


def hash_of(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder in the order of their names, its card (README.md) left out."""
    path = Path(path)
    if path.is_file():
        return sha256(path)
    return sha256(sorted(file for file in path.rglob("*") if file.is_file() and file != path / "README.md"))


def _git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=True).stdout.strip()


def recorded_steps(folder: Path) -> dict[str, dict[str, Any]]:
    """The parameters of each step that a run has begun. Raises ValueError for a config.json that is broken."""
    return _read_record(folder / "config.json")


def _read_record(path: Path) -> dict[str, Any]:
    """One of a run's two records, empty where it is not there. Raises ValueError for one that is broken."""
    remedy = "restore it, or take another --run-id or RUN_DIR"
    record = read_object(path, remedy, missing_ok=True)
    steps = record.get("steps", {}) if path.name == "manifest.json" else record
    if not isinstance(steps, dict) or not all(isinstance(values, dict) for values in steps.values()):
        raise ValueError(f"{path}: a step in it is not an object; {remedy}")
    return record
