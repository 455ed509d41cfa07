"""The notebooks one after the other through papermill: checked beforehand, resumable, each done only by its stamp."""

import os
import re
import shlex
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from stkvlm_lib import runs
from stkvlm_lib.config import PROFILES, ROOT, STEPS, ConfigError, Failure, RunConfig, from_root
from stkvlm_lib.files import full_disk, read_object
from stkvlm_lib.notebook_kernel import execute, write_html
from stkvlm_lib.number_text import interval, percent
from stkvlm_lib.parameters import make_config, unknown_parameters, upper
from stkvlm_lib.preflight import check_named, preflight

NOTEBOOKS = ROOT / "notebooks"
_RUN_ID = re.compile(r"(?!latest(/|$))[A-Za-z0-9][\w.+-]{0,99}(/[A-Za-z0-9][\w.+-]{0,99})?", re.ASCII)
"""A folder in outputs/, or one in the folder of a batch there."""
_NOT_HERE = {
    "RUN_DIR": "RUN_DIR is outputs/<run-id> here; choose its name with --run-id",
    "ADAPTER_DIR": "ADAPTER_DIR would score another adapter than the one that is trained here; score it with notebook "
    "04_evaluate alone, or train on from it with START_ADAPTER",
}
"""Parameters of notebooks that a whole run does not take, and what to do instead."""


class StepFailed(Failure):
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

    def words(self, profile: str, run_id: str) -> list[str]:
        """The words of the command that goes on with the run."""
        pairs = [word for name, value in self.parameters.items() for word in ("-p", name, str(value))]
        until = ["--to", self.to_step] if self.to_step else []
        return [profile, *pairs, "--run-id", run_id, *until]


def check_request(request: Request) -> None:
    """Refuse what can be refused without importing anything heavy. Raises ConfigError naming the valid ones."""
    for what, given, valid in (
        ("profile", request.profile, PROFILES),
        ("step", request.from_step, STEPS),
        ("step", request.to_step, STEPS),
    ):
        if given is not None and given not in valid:
            raise ConfigError(f"unknown {what} {given!r}; valid ones are {', '.join(valid)}")
    if request.run_id is not None and not _RUN_ID.fullmatch(request.run_id):
        raise ConfigError(
            f"--run-id {request.run_id[:120]!r}: must be a folder name of letters, digits, '.', '_', '+' and '-', "
            "of at most 100 of them, and not 'latest' (a run of a batch: BATCH/RUN)"
        )
    if request.from_step and not request.run_id:
        raise ConfigError(f"--from {request.from_step} needs --run-id, the name of a folder in outputs/")
    if request.from_step and not (runs.OUTPUTS / request.run_id).is_dir():
        raise ConfigError(f"--from {request.from_step}: there is no run {runs.OUTPUTS / request.run_id}")
    check_named(step_configs(request.profile or "cpu", request.parameters))


def step_configs(profile: str, parameters: dict[str, Any], run_dir: str = "") -> dict[str, RunConfig]:
    """Each step's configuration: defaults, then the profile, then the given parameters. Raises ConfigError."""
    declared = {step: [each.name.upper() for each in fields(kind)] for step, (_, kind) in STEPS.items()}
    for name in parameters:
        if name in _NOT_HERE:
            raise ConfigError(_NOT_HERE[name])
    valid = list(dict.fromkeys(name for names in declared.values() for name in names if name not in _NOT_HERE))
    if unknown := [name for name in parameters if name not in valid]:
        raise unknown_parameters(unknown, valid)
    given = PROFILES[profile] | parameters | {"RUN_DIR": run_dir}
    return {
        step: make_config({name: given[name] for name in declared[step] if name in given}, kind)
        for step, (_, kind) in STEPS.items()
    }


def run_pipeline(request: Request) -> Path:
    """Run what is not done yet of the notebooks and return the run folder.

    Raises ConfigError before any step is begun, StepFailed when a notebook does not get to its end.
    """
    check_request(request)
    profile = request.profile or default_profile()
    seed = step_configs(profile, request.parameters)["01"].seed
    with runs.open_run(request.run_id, profile, seed) as folder:
        configs = step_configs(profile, request.parameters, run_dir=str(from_root(folder)))
        check_resumable(folder, configs, request.from_step)
        preflight(profile, folder.name, configs)
        runs.set_up_hub(configs["04"].base_model)
        if request.from_step:
            runs.forget(folder, request.from_step)
        given = PROFILES[profile] | request.parameters
        resume = shlex.join(["./run_all.sh", *request.words(profile, request.run_id or folder.name)])
        last = request.to_step or max(STEPS)
        for step in (step for step in STEPS if step <= last):
            try:
                run_step(step, configs[step], folder, given, resume)
            except KeyboardInterrupt:
                print(f"\ninterrupted in {STEPS[step][0]}\n  resume {resume}", file=sys.stderr, flush=True)
                raise
        if last == max(STEPS):
            if folder.parent == runs.OUTPUTS:  # those of a batch are told apart first
                point_latest_to(folder)
            print_headline(folder)
    return folder


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


def run_step(step: str, config: RunConfig, folder: Path, given: dict[str, Any], resume: str) -> None:
    """Execute a notebook unless its stamp is there. Raises StepFailed when the stamp is not there afterwards.

    given: the parameters of profile and command line, which alone are passed. resume: the command that goes on.
    """
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
            print(flush=True)  # so that the error stands apart from what the notebook has printed
            full = full_disk(folder)
            lines = [f"disk   {full}"] * bool(full) + [f"see    {executed}", f"resume {resume}"]
            raise StepFailed("\n  ".join([f"{notebook} failed: {failure}", *lines]))
    page = executed.with_suffix(".html")
    if executed.is_file() and not page.is_file():
        write_html(executed, page)


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
