"""The notebooks one after the other through papermill: checked beforehand, resumable, each done only by its stamp."""

import os
import re
import shlex
import shutil
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from stkvlm_lib import runs
from stkvlm_lib.config import (
    EMBEDDED,
    PROFILES,
    ROOT,
    STEPS,
    ConfigError,
    FinetuneConfig,
    ModelConfig,
    RunConfig,
    ScoreConfig,
    check_reporters,
    make_config,
    unknown_parameters,
    upper,
)
from stkvlm_lib.files import read_object, write_text
from stkvlm_lib.installation import lead_to_this_library
from stkvlm_lib.model_files import ModelError, check_base, check_start, hash_weights, read_adapter
from stkvlm_lib.notebook_kernel import CONNECTION_FILE, Kernel
from stkvlm_lib.number_text import interval, percent
from stkvlm_lib.parallel import ClusterError, cluster

NOTEBOOKS = ROOT / "notebooks"
EXPECTED_TIME = {
    "smoke": "2 to 4 minutes on 2 cores",
    "cpu": "10 minutes on 2 cores, 25 on slow ones",
    "gpu": "depends on the GPU and the number of frames",
}
NEEDED_MEMORY_GB = 4
NEEDED_DISK_GB = 2
_NOT_HERE = ("RUN_DIR", "ADAPTER_DIR")
FULL_DISK_GB = 0.1
HUB_TIMEOUT = 20.0
"""Seconds in which the hub must say whether it has a base."""
_RUN_ID = re.compile(r"(?!latest(/|$))[A-Za-z0-9][\w.+-]{0,99}(/[A-Za-z0-9][\w.+-]{0,99})?", re.ASCII)
"""A folder in outputs/, or one in the folder of a batch there."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class StepFailed(RuntimeError):
    """A notebook did not get to its end; the message names it, the error, and the command that resumes."""


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line.

    profile None: `gpu` where there is a CUDA device, else `cpu`. to_step: the last step to do; None means all.
    """

    profile: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    run_id: str | None = None
    from_step: str | None = None
    to_step: str | None = None

    def command(self, profile: str, run_id: str) -> str:
        """The command that goes on with the run."""
        pairs = [word for name, value in self.parameters.items() for word in ("-p", name, str(value))]
        return shlex.join(["./run_all.sh", profile, *pairs, "--run-id", run_id])


def check_request(request: Request) -> None:
    """Refuse what can be refused without importing anything heavy. Raises ConfigError naming the valid ones."""
    if request.profile is not None and request.profile not in PROFILES:
        raise ConfigError(f"unknown profile {request.profile!r}; valid ones are {', '.join(PROFILES)}")
    if request.from_step is not None and request.from_step not in STEPS:
        raise ConfigError(f"unknown step {request.from_step!r}; valid ones are {', '.join(STEPS)}")
    if request.to_step is not None and request.to_step not in STEPS:
        raise ConfigError(f"unknown step {request.to_step!r}; valid ones are {', '.join(STEPS)}")
    if request.run_id is not None and not _RUN_ID.fullmatch(request.run_id):
        raise ConfigError(
            f"--run-id {request.run_id[:120]!r}: must be a folder name of letters, digits, '.', '_', '+' and '-', "
            "of at most 100 of them, and not 'latest' (a run of a batch: BATCH/RUN)"
        )
    if request.from_step and not request.run_id:
        raise ConfigError(f"--from {request.from_step} needs --run-id, the name of a folder in outputs/")
    if request.from_step and not (runs.OUTPUTS / request.run_id).is_dir():
        raise ConfigError(f"--from {request.from_step}: there is no run {runs.OUTPUTS / request.run_id}")
    configs = step_configs(request.profile or "cpu", request.parameters)
    check_places(configs["04"])
    check_start_adapter(configs["03"])
    check_reporters(configs["03"])


def step_configs(profile: str, parameters: dict[str, Any], run_dir: str = "") -> dict[str, RunConfig]:
    """Each step's configuration: defaults, then the profile, then the given parameters. Raises ConfigError."""
    declared = {step: [f.name.upper() for f in fields(kind)] for step, (_, kind) in STEPS.items()}
    valid = list(dict.fromkeys(name for names in declared.values() for name in names if name not in _NOT_HERE))
    if "RUN_DIR" in parameters:
        raise ConfigError("RUN_DIR is outputs/<run-id> here; choose its name with --run-id")
    if "ADAPTER_DIR" in parameters:
        raise ConfigError(
            "ADAPTER_DIR would score another adapter than the one that is trained here; score it with notebook "
            "04_evaluate alone, or train on from it with START_ADAPTER"
        )
    if unknown := [name for name in parameters if name not in valid]:
        raise unknown_parameters(unknown, valid)
    given = PROFILES[profile] | parameters | {"RUN_DIR": run_dir}
    return {
        step: make_config({name: given[name] for name in declared[step] if name in given}, kind)
        for step, (_, kind) in STEPS.items()
    }


def run_pipeline(request: Request) -> Path:
    """Run what is not done yet of the four notebooks and return the run folder.

    Raises ConfigError before any step is begun, StepFailed when a notebook does not get to its end.
    """
    check_request(request)
    profile = request.profile or default_profile()
    seed = step_configs(profile, request.parameters)["01"].seed
    with runs.open_run(request.run_id, profile, seed) as folder:
        shown = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder
        configs = step_configs(profile, request.parameters, run_dir=str(shown))
        check_resumable(folder, configs, request.from_step)
        preflight(profile, folder.name, configs)
        runs.set_up_hub(configs["04"].base_model)
        if request.from_step:
            runs.forget(folder, request.from_step)
        wanted = {step: config for step, config in configs.items() if step <= (request.to_step or max(STEPS))}
        name = request.run_id or folder.name
        _run_steps(wanted, folder, PROFILES[profile] | request.parameters, request.command(profile, name))
        if wanted == configs:
            if folder.parent == runs.OUTPUTS:  # those of a batch are told apart first
                point_latest_to(folder)
            print_headline(folder)
    return folder


def _run_steps(configs: dict[str, RunConfig], folder: Path, given: dict[str, Any], resume: str) -> None:
    for step, config in configs.items():
        try:
            run_step(step, config, folder, given, resume)
        except KeyboardInterrupt:
            print(f"\ninterrupted in {STEPS[step][0]}\n  resume {resume}", file=sys.stderr, flush=True)
            raise


def default_profile() -> str:
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"


def check_resumable(folder: Path, configs: dict[str, RunConfig], from_step: str | None) -> None:
    """Refuse to go on with a run whose finished steps, as far as they are kept, had other parameters."""
    if not (folder / "config.json").is_file():
        return
    for step, config in configs.items():
        if not runs.is_done(folder, step) or (from_step and step >= from_step):
            continue
        if changed := runs.changed_parameters(folder, step, config):
            raise ConfigError(
                f"step {step} of {folder.name} was done with {'; '.join(changed)}: "
                f"give the same parameters, --from {step} to do it again, or another --run-id"
            )


def check_places(config: ScoreConfig) -> None:
    """Raises ConfigError where frames or files of questions that are named are not there."""
    for folder in config.frames_paths:
        if not folder.is_dir():
            raise ConfigError(f"FRAMES_DIR: no folder {folder}; give one with frames, or restore the bundled `frames/`")
        if not any(next(folder.glob(pattern), None) for pattern in ("*_info.json", "*/*_info.json")):
            raise ConfigError(f"FRAMES_DIR: no *_info.json in {folder} or a folder in it; give one with frames")
    for parameter, file in (("QA_FILE", config.qa_file), ("MC_FILE", config.mc_file)):
        if file and not runs.resolve(file).is_file():
            raise ConfigError(f"{parameter}: no file {runs.resolve(file)}; give one in the course's format, or none")
    if config.own_words_pictures and not config.own_words_path.is_file():
        raise ConfigError(f"OWN_WORDS_FILE: no file {config.own_words_path}; give one, or OWN_WORDS_PICTURES 0")


def check_start_adapter(config: FinetuneConfig) -> None:
    """Raises ConfigError where START_ADAPTER is not there, is broken, or has another form or base than is asked for."""
    if not config.start_adapter:
        return
    try:
        adapter = read_adapter(runs.resolve(config.start_adapter))
    except ModelError as error:
        raise ConfigError(f"START_ADAPTER: {error}") from None
    check_start(config, adapter)
    base, made_on = config.base_model, adapter.record["base"]
    same = hash_weights(base_folder(base)) == made_on["sha256"] if runs.base_is_local(base) else base == made_on["name"]
    if not same:
        raise ConfigError(
            f"START_ADAPTER: {adapter.folder} was made on base {made_on['name']} (weights {made_on['sha256'][:12]}), "
            f"but BASE_MODEL is {base or EMBEDDED}; set BASE_MODEL to the adapter's base"
        )


def check_cluster(address: str) -> None:
    """Raises ConfigError where CLUSTER names a Dask scheduler that cannot be reached."""
    try:
        with cluster(address):
            pass
    except ClusterError as error:
        raise ConfigError(f"CLUSTER: {error}") from None


def check_questions(config: ScoreConfig) -> None:
    """Raises ConfigError where QA_FILE, MC_FILE or OWN_WORDS_FILE cannot be read, or the first two ask about pictures
    that are not in FRAMES_DIR."""
    if not config.qa_file and not config.mc_file and not config.own_words_file:
        return
    from stkvlm_lib.data.frame_sets import read_frames
    from stkvlm_lib.evaluation.multiple_choice import read_items
    from stkvlm_lib.evaluation.own_words import read_own_words
    from stkvlm_lib.evaluation.question_sets import records_to_score

    frames = read_frames(config.frames_paths, skip_broken=config.skip_broken)
    for parameter, file, read in (
        ("QA_FILE", config.qa_file, lambda: records_to_score(config, frames)),
        ("MC_FILE", config.mc_file, lambda: read_items(runs.resolve(config.mc_file), frames)),
        ("OWN_WORDS_FILE", config.own_words_file, lambda: read_own_words(config)),
    ):
        try:
            if file:
                read()
        except ValueError as error:
            raise ConfigError(f"{parameter}: {error}") from None


def preflight(profile: str, name: str, configs: dict[str, RunConfig]) -> None:
    """Say what the run will use and how long it takes. Raises ConfigError when something it needs is not there."""
    import psutil

    config = configs["04"]
    check_places(config)
    check_start_adapter(configs["03"])
    check_cluster(configs["02"].cluster)
    check_questions(config)
    frames = config.frames_paths
    if configs["05"].compare_run:
        runs.compared_run(configs["05"].compare_run)
    base = describe_base(config)
    memory, disk = psutil.virtual_memory().available / 1e9, shutil.disk_usage(ROOT).free / 1e9
    print(f"run     {name} (profile {profile}, seed {config.seed})")
    print(f"device  {_device()}")
    print(f"memory  {memory:.0f} GB free{_scarce(memory, NEEDED_MEMORY_GB)}")
    print(f"disk    {disk:.0f} GB free{_scarce(disk, NEEDED_DISK_GB)}")
    print(f"frames  {', '.join(map(str, frames))}")
    print(f"base    {base}")
    print(f"time    {EXPECTED_TIME[profile]}", flush=True)


def describe_base(config: ModelConfig) -> str:
    """The base model and where it comes from. Raises ConfigError for one that is not there, or that no hub gives."""
    name = config.base_model
    if runs.base_is_local(name):
        folder = base_folder(name)
        if not (folder / "config.json").is_file():
            raise ConfigError(f"BASE_MODEL: no model in {folder}; restore it, or name another base with -p BASE_MODEL")
        try:
            check_base(folder)
        except ModelError as error:
            raise ConfigError(f"BASE_MODEL: {error}") from None
        return str(folder)
    if not _HUB_ID.fullmatch(name):
        raise ConfigError(f"BASE_MODEL: {name!r} is neither a folder, nor 'embedded', nor a hub id such as org/name")
    return f"{name} ({_where_on_hub(name, config.base_revision or None)})"


def base_folder(name: str) -> Path:
    """Where a base lies that needs no hub."""
    return ROOT / "models" / EMBEDDED if name in ("", EMBEDDED) else runs.resolve(name)


def _where_on_hub(name: str, revision: str | None) -> str:
    """Raises ConfigError where a base is neither in the local cache nor on a hub that can be reached."""
    from huggingface_hub import HfApi, constants, try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json", revision=revision)
    if isinstance(cached, str) and any(Path(cached).parent.glob("*.safetensors")):
        return "in the local cache"
    remedy = f"connect to the hub, or name a folder or {EMBEDDED} with -p BASE_MODEL"
    if constants.HF_HUB_OFFLINE:
        raise ConfigError(
            f"BASE_MODEL: {name} is not in the local cache, and HF_HUB_OFFLINE is set; unset it, {remedy}"
        )
    try:
        HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT)
    except Exception as error:  # of any kind, by what is between here and the hub
        reason = (str(error).splitlines() or [""])[0]
        what = f"not in the local cache, and the hub does not give it ({type(error).__name__}: {reason:.200})"
        raise ConfigError(f"BASE_MODEL: {name} is {what}; see whether the name is right, {remedy}") from None
    return "will be downloaded from the hub"


def run_step(step: str, config: RunConfig, folder: Path, given: dict[str, Any], resume: str) -> None:
    """Execute a notebook unless its stamp is there. Raises StepFailed when the stamp is not there afterwards."""
    notebook = STEPS[step][0]
    executed = folder / "notebooks" / f"{notebook}.ipynb"
    if runs.is_done(folder, step):
        print(f"\n== {notebook}: done before", flush=True)
    else:
        print(f"\n== {notebook}", flush=True)
        passed = {name: value for name, value in upper(config).items() if name in given or name == "RUN_DIR"}
        failure = execute(NOTEBOOKS / f"{notebook}.ipynb", executed, passed)
        if not failure and not runs.is_done(folder, step):
            failure = "it ended without finishing (its kernel died, or a cell left early)"
        if failure:
            where = f"{_full_disk(folder)}\n  see    {executed}\n  resume {resume}"
            raise StepFailed(f"{notebook} failed: {failure}{where}")
    page = executed.with_suffix(".html")
    if executed.is_file() and not page.is_file():
        write_html(executed, page)


def _full_disk(folder: Path) -> str:
    """What to add to a failure where the disk of the run is full, which not every library says."""
    free = shutil.disk_usage(folder).free / 1e9
    return f"\n  disk   {folder} has {1000 * free:.0f} MB left; make room there" if free < FULL_DISK_GB else ""


def execute(source: Path, target: Path, parameters: dict[str, Any]) -> str:
    """Run a notebook with its output on the terminal. Returns what went wrong, empty when nothing is known to.

    An interrupt ends the notebook's kernel and is passed on.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_suffix(".html").unlink(missing_ok=True)
    os.environ["STKVLM_HEADLESS"] = "1"
    lead_to_this_library()
    kernel = Kernel(target.parent / CONNECTION_FILE.format(os.getpid()))
    return kernel.run(lambda: _execute(source, target, parameters, kernel))


def _execute(source: Path, target: Path, parameters: dict[str, Any], kernel: Kernel) -> str:
    import papermill
    from nbclient.exceptions import DeadKernelError

    try:
        papermill.execute_notebook(
            source,
            target,
            parameters,
            kernel_name="python3",
            kernel_manager_class=kernel.manager_class(),
            cwd=ROOT,
            progress_bar=False,
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
            extra_arguments=["--log-level=CRITICAL"],  # the kernel's own log; what cells say comes by message
        )
    except papermill.PapermillExecutionError as error:
        return f"{error.ename}: {error.evalue}"
    except DeadKernelError:
        return f"Kernel died: {kernel.ended()}"
    except Exception as error:  # a kernel that does not start, a notebook that cannot be read, a full disk
        return f"{type(error).__name__}: {error}"
    return ""


def write_html(notebook: Path, page: Path) -> None:
    from nbconvert import HTMLExporter

    write_text(page, HTMLExporter().from_filename(str(notebook))[0])


def point_latest_to(folder: Path) -> None:
    """`outputs/latest` -> the newest complete run, replaced in one step."""
    link = runs.OUTPUTS / f".latest.{os.getpid()}"
    link.symlink_to(folder.relative_to(runs.OUTPUTS))
    link.replace(runs.OUTPUTS / "latest")


def print_headline(folder: Path) -> None:
    """The scores of a complete run, and where to look at them."""
    metrics = read_object(folder / "metrics.json", "run notebook 04 again")
    print(f"\nexact match  {percent(metrics['exact'])}  (95% interval {interval(metrics.get('exact_ci95'))})", end="")
    print(f" on {metrics['n']} questions, split {metrics['split']}")
    for label, key in (("majority", "majority"), ("blind", "blind"), ("base alone", "base_exact")):
        print(f"{label:<12} {percent(metrics.get(key))}")
    if metrics["exact"] <= (metrics.get("majority") or 0.0):
        print("warning      no better than the most frequent answers: has training diverged? See train_curve.png")
    print(f"report       {folder / 'report.html'}", flush=True)
    if (runs.OUTPUTS / "latest").resolve() == folder.resolve():
        print(f"latest       {runs.OUTPUTS / 'latest'}", flush=True)


def _device() -> str:
    runs.set_up_torch()
    return runs.device_name()


def _scarce(gigabytes: float, needed: float) -> str:
    return "" if gigabytes >= needed else f" - less than the {needed} GB that a run can need"
