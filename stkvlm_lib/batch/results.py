"""What runs have come to, read from their folders, and grouped by setting: mean and spread over the seeds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from stkvlm_lib.batch.plan import BATCH_FILE
from stkvlm_lib.batch.states import FAILED, State
from stkvlm_lib.config import STEPS, ConfigError
from stkvlm_lib.files import one_line, read_json, read_jsonl, read_object
from stkvlm_lib.number_text import is_number

NOT_SETTINGS = ("SEED", "COMPARE_RUN")
"""Parameters by which runs of one setting may differ."""
MEASURES = {
    "valid_exact": "valid",
    "exact": "test",
    "train_seconds": "training time",
    "peak_memory_mb": "memory",
    "adapter_mb": "adapter",
}
"""Figure of a run -> what it is called."""


@dataclass(frozen=True)
class Result:
    """One run. problem: why it has no score, empty where it has one. figures: those of MEASURES and others by name."""

    folder: Path
    name: str
    setting: str
    seed: int
    parameters: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    log: list[dict] = field(default_factory=list)
    problem: str = ""


@dataclass(frozen=True)
class Setting:
    """Runs that differ by their seed alone."""

    name: str
    results: tuple[Result, ...]

    @property
    def scored(self) -> list[Result]:
        return [result for result in self.results if not result.problem]

    @cached_property
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
        groups.setdefault((_batch_of(result), result.setting or repr(result.parameters)), []).append(result)
    varied = varying([group[0].parameters for group in groups.values()])
    return _named(list(groups.values()), varied)


def _read(folder: Path) -> list[Result]:
    """The runs of a batch's folder, or the run that the folder is."""
    if not (folder / BATCH_FILE).is_file():
        planned = _planned(folder.parent).get(folder.name)
        return [read_result(folder, planned)]
    return [read_result(folder / name, planned) for name, planned in _planned(folder).items()]


def _planned(folder: Path) -> dict[str, dict]:
    """Run -> what a batch has planned for it; empty for a folder of no batch."""
    path = folder / BATCH_FILE
    found = read_object(path, "restore it").get("runs", {}) if path.is_file() else {}
    return {name: value for name, value in found.items() if isinstance(value, dict)} if isinstance(found, dict) else {}


def read_result(folder: Path, planned: Mapping[str, Any] | None = None) -> Result:
    """One run as far as it has come. planned: its entry in the batch's record."""
    planned = planned or {}
    try:
        config = {**planned, **_object(folder / "config.json")}
        metrics, training, manifest = (
            _object(folder / name) for name in ("metrics.json", "training.json", "manifest.json")
        )
        log = read_jsonl(folder / "train_log.jsonl") if (folder / "train_log.jsonl").is_file() else []
        problem = "" if is_number(metrics.get("exact")) and _is_complete(folder) else _why(folder)
    except (OSError, ValueError) as error:
        config, metrics, training, manifest, log, problem = dict(planned), {}, {}, {}, [], one_line(error)
    parameters = {}
    for step in STEPS:
        parameters |= config[step] if isinstance(config.get(step), dict) else {}
    steps = manifest.get("steps") if isinstance(manifest.get("steps"), dict) else {}
    figures = {**metrics, "valid_exact": training.get("valid_exact"), "wall_seconds": _wall(steps)}
    seed = planned.get("seed", parameters.get("SEED", 0))
    kept = {name: value for name, value in parameters.items() if name not in NOT_SETTINGS}
    return Result(folder, folder.name, str(planned.get("setting", "")), seed, kept, figures, log, problem)


def _object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path}: holds no JSON object")
    return value


def _is_complete(folder: Path) -> bool:
    """A run that the pipeline made has its last stamp, which notebook 04 run by hand leaves too."""
    return (folder / "stamps" / f"{max(STEPS)}.json").is_file() and (folder / "predictions.jsonl").is_file()


def _why(folder: Path) -> str:
    """Why a run has no score, from what its batch remembers of it."""
    path = folder.parent / "states" / f"{folder.name}.json"
    try:
        state = State(**read_object(path)) if path.is_file() else State()
    except (ValueError, TypeError):
        state = State()
    if state.state == FAILED:
        return state.reason or "failed"
    if not folder.is_dir():
        return "not begun"
    return "not finished" if state.state != "running" else "still running, or killed"


def _wall(steps: Mapping[str, Any]) -> float | None:
    """The seconds that a run's own steps took; those handed on to it do not count."""
    took = [entry.get("wall_seconds") for entry in steps.values() if isinstance(entry, dict) and "made_by" not in entry]
    return sum(filter(is_number, took)) if took else None


def _batch_of(result: Result) -> str:
    return str(result.folder.parent) if result.setting else ""


def varying(parameters: Sequence[Mapping[str, Any]]) -> list[str]:
    """The parameters that are not the same in all, in the order of the notebooks'."""
    names = dict.fromkeys(name for given in parameters for name in given)
    return [name for name in names if len({repr(given.get(name)) for given in parameters if given}) > 1]


def _named(groups: list[list[Result]], varied: Sequence[str]) -> list[Setting]:
    names = []
    for group in groups:
        first = group[0]
        told = ", ".join(f"{name} {first.parameters.get(name)}" for name in varied if first.parameters)
        names.append(first.setting or told or first.name)
    settings = []
    for name, group in zip(names, groups, strict=True):
        twice = names.count(name) > 1
        settings.append(Setting(f"{group[0].folder.parent.name}/{name}" if twice else name, tuple(group)))
    return settings


def chosen(settings: Sequence[Setting]) -> Setting | None:
    """The setting with the best mean on the valid races, the first of equals; None where no run was scored on them.

    Test has no say in it.
    """
    judged = [setting for setting in settings if setting.mean("valid_exact") is not None]
    return max(judged, key=lambda setting: setting.mean("valid_exact"), default=None)


def in_order(settings: Sequence[Setting]) -> list[Setting]:
    """The best on valid first, then those without a valid score."""

    def key(setting: Setting) -> float:
        value = setting.mean("valid_exact")
        return -1.0 if value is None else value

    return sorted(settings, key=key, reverse=True)
