"""What runs have come to, read from their folders, and grouped by setting: mean and spread over the seeds."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from stkvlm_lib.batch.plan import BATCH_FILE, planned_runs
from stkvlm_lib.batch.states import FAILED, RUNNING, read_state
from stkvlm_lib.config import STEPS, ConfigError
from stkvlm_lib.files import one_line, read_object
from stkvlm_lib.number_text import is_number
from stkvlm_lib.runs import is_done, recorded_steps
from stkvlm_lib.typed import read_rows

NOT_SETTINGS = ("SEED", "COMPARE_RUN")
"""Parameters by which runs of one setting may differ."""
MEASURES = ("valid_exact", "exact", "train_seconds", "peak_memory_mb", "adapter_mb")
"""The figures of a run that settings are compared by."""
FAMILY = "family: "
"""How the name of a figure begins that is a family's share right."""


@dataclass(frozen=True)
class Result:
    """One run. problem: why it has no score, empty where it has one. figures: those of MEASURES and others by name."""

    folder: Path
    setting: str
    seed: int
    parameters: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    log: list[dict] = field(default_factory=list)
    problem: str = ""

    @property
    def name(self) -> str:
        return self.folder.name


@dataclass(frozen=True)
class Setting:
    """Runs that differ by their seed alone."""

    name: str
    results: tuple[Result, ...]

    @property
    def scored(self) -> list[Result]:
        return [result for result in self.results if not result.problem]

    @property
    def seeds(self) -> set[int]:
        """Those that have a score."""
        return {result.seed for result in self.scored}

    @property
    def parameters(self) -> dict[str, Any]:
        return next((result.parameters for result in self.results if result.parameters), {})

    def values(self, measure: str) -> list[float]:
        """A figure of all scored runs that have it."""
        return [value for result in self.scored if is_number(value := result.figures.get(measure))]

    def mean(self, measure: str) -> float | None:
        values = self.values(measure)
        return mean(values) if values else None

    def spread(self, measure: str) -> float | None:
        """Sample standard deviation over the seeds; None for fewer than two."""
        values = self.values(measure)
        return stdev(values) if len(values) > 1 else None


def read_settings(folders: Iterable[Path]) -> list[Setting]:
    """The settings of runs and of batches (all of whose runs count, also those that are missing), in their order.

    Runs of a batch are called as it calls them; others by the parameters in which they differ. Raises ConfigError where
    not one run has a score.
    """
    results = list({result.folder.resolve(): result for folder in folders for result in _read(folder)}.values())
    if not any(not result.problem for result in results):
        told = "; ".join(f"{result.name}: {result.problem}" for result in results[:3])
        raise ConfigError(f"no run has a score yet ({told or 'there is none'}); let one get to its end first")
    groups: dict[tuple, list[Result]] = {}
    for result in results:
        of_batch = result.setting and (result.folder.parent, result.setting)
        groups.setdefault(of_batch or repr(result.parameters), []).append(result)
    first_of = [group[0] for group in groups.values()]
    varied = varying([first.parameters for first in first_of])
    names = [_called(first, varied) for first in first_of]
    twice = {name for name, n in Counter(names).items() if n > 1}
    return [
        Setting(f"{group[0].folder.parent.name}/{name}" if name in twice else name, tuple(group))
        for name, group in zip(names, groups.values(), strict=True)
    ]


def _called(result: Result, varied: Sequence[str]) -> str:
    """What the setting of a run is called, where no other is called the same."""
    told = ", ".join(f"{name} {result.parameters.get(name)}" for name in varied) if result.parameters else ""
    return result.setting or told or result.name


def _read(folder: Path) -> list[Result]:
    """The runs of a batch's folder, or the run that the folder is."""
    if (folder / BATCH_FILE).is_file():
        return [read_result(folder / name, planned) for name, planned in planned_runs(folder).items()]
    return [read_result(folder, planned_runs(folder.parent).get(folder.name, {}))]


def read_result(folder: Path, planned: Mapping[str, Any]) -> Result:
    """One run as far as it has come. planned: its entry in the record of its batch, if it is of one."""
    try:
        config = {**planned, **recorded_steps(folder)}
        metrics, training, manifest = (
            read_object(folder / name, missing_ok=True) for name in ("metrics.json", "training.json", "manifest.json")
        )
        log = read_rows(folder / "train_log.jsonl", dict) if (folder / "train_log.jsonl").is_file() else []
        complete = is_done(folder, max(STEPS)) and (folder / "predictions.jsonl").is_file()
        problem = "" if complete and is_number(metrics.get("exact")) else _why(folder)
    except (OSError, ValueError) as error:
        config, metrics, training, manifest, log, problem = planned, {}, {}, {}, [], one_line(error)
    parameters = {}
    for step in STEPS:
        parameters |= config[step] if isinstance(config.get(step), dict) else {}
    figures = metrics | {"valid_exact": training.get("valid_exact"), "wall_seconds": _wall(manifest.get("steps"))}
    figures["commit"] = manifest.get("commit")
    figures |= {FAMILY + name: row.get("exact") for name, row in (metrics.get("families") or {}).items()}
    seed = planned.get("seed", parameters.get("SEED", 0))
    kept = {name: value for name, value in parameters.items() if name not in NOT_SETTINGS}
    return Result(folder, str(planned.get("setting", "")), seed, kept, figures, log, problem)


def _why(folder: Path) -> str:
    """Why a run has no score, from what its batch remembers of it."""
    state = read_state(folder)
    if state.state == FAILED:
        return state.reason or "failed"
    if not folder.is_dir():
        return "not begun"
    return "still running, or killed" if state.state == RUNNING else "not finished"


def _wall(steps: Any) -> float | None:
    """The seconds that a run's own steps took; those handed on to it do not count."""
    entries = steps.values() if isinstance(steps, dict) else ()
    own = [entry.get("wall_seconds") for entry in entries if isinstance(entry, dict) and "made_by" not in entry]
    return sum(filter(is_number, own)) if own else None


def varying(parameters: Sequence[Mapping[str, Any]]) -> list[str]:
    """The parameters that are not the same in all, in the order of the notebooks'."""
    names = dict.fromkeys(name for given in parameters for name in given)
    return [name for name in names if len({repr(given.get(name)) for given in parameters if given}) > 1]


def in_order(settings: Sequence[Setting]) -> list[Setting]:
    """The best mean on the valid races first, of equals the first; those without a valid score last."""
    return sorted(settings, key=lambda setting: mean(setting.values("valid_exact") or [-1.0]), reverse=True)
