"""What a batch consists of: settings x seeds, read from a file or from flags, and refused where a run would be.

A batch file is a mapping with the keys of KEYS. `grid` crosses its lists; each mapping of `settings` is one setting
more; without either the batch has the one setting `base`.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from stkvlm_lib import pipeline, runs
from stkvlm_lib.config import MOST_SEED, PROFILES, ConfigError, did_you_mean
from stkvlm_lib.files import read_object
from stkvlm_lib.pipeline import Request, step_configs

KEYS = {
    "name": "the batch's folder in outputs/; default: the file's name",
    "profile": "smoke, cpu or gpu; default: gpu where there is a CUDA device, else cpu",
    "parameters": "parameters that are the same in all runs",
    "grid": "parameters with a list of values each, all of which are crossed",
    "settings": "named settings, each with its parameters, beside those of the grid",
    "seeds": "a list; default: 0 alone",
    "compare_to": "the setting that the others are compared with; default: the first",
}
BATCH_FILE = "batch.json"
"""In a batch's folder: what it consists of, by which the same command goes on."""
MOST_RUNS = 1000
SHARED_STEPS = ("01", "02")
"""Steps that need no model: made once for all runs in which they have the same parameters."""
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]{0,79}", re.ASCII)


@dataclass(frozen=True)
class PlannedRun:
    """One setting with one seed. outputs: the folder of all runs. parameters: all that it is given, without the
    profile's."""

    outputs: Path
    batch: str
    setting: str
    seed: int
    profile: str
    parameters: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.setting}-s{self.seed}"

    @property
    def folder(self) -> Path:
        return self.outputs / self.batch / self.name

    @property
    def run_id(self) -> str:
        return f"{self.batch}/{self.name}"

    @property
    def request(self) -> Request:
        """What the pipeline is asked for."""
        return Request(self.profile, self.parameters, self.run_id)

    @cached_property
    def recorded(self) -> dict[str, dict[str, Any]]:
        """Step -> its parameters as the run's config.json keeps them."""
        configs = step_configs(self.profile, self.parameters)
        return {step: runs.recorded_parameters(config) for step, config in configs.items()}

    @property
    def is_done(self) -> bool:
        return runs.are_done(self.folder)

    @property
    def has_shared(self) -> bool:
        """Whether its shared steps are done."""
        return runs.are_done(self.folder, SHARED_STEPS)


@dataclass(frozen=True)
class Batch:
    """Settings x seeds of one profile. settings: name -> the parameters that make it differ."""

    name: str
    profile: str
    parameters: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=lambda: {"base": {}})
    seeds: tuple[int, ...] = (0,)
    compare_to: str = ""

    @property
    def folder(self) -> Path:
        return runs.OUTPUTS / self.name

    @cached_property
    def runs(self) -> list[PlannedRun]:
        """All runs, seed by seed, so that what is done early already compares all settings."""
        return [
            PlannedRun(runs.OUTPUTS, self.name, name, seed, self.profile, self.parameters | given | {"SEED": seed})
            for seed in self.seeds
            for name, given in self.settings.items()
        ]

    def record(self) -> dict[str, Any]:
        """As BATCH_FILE holds it."""
        planned = {run.name: {"setting": run.setting, "seed": run.seed, **run.recorded} for run in self.runs}
        return asdict(self) | {"runs": planned}


def read_batch(path: str | Path, changes: Mapping[str, Any] | None = None) -> Batch:
    """The batch of a file. changes: what flags say besides; their parameters and grid are added to the file's.

    Raises FileNotFoundError or ConfigError naming file, place and remedy.
    """
    from stkvlm_lib.batch.yaml_text import read_yaml  # here, as commands are checked where no package is installed

    path = Path(path)
    given = read_yaml(path)
    for key, value in (changes or {}).items():
        both = isinstance(value, Mapping) and isinstance(given.get(key), Mapping)
        given[key] = {**given[key], **value} if both else value
    return make_batch({"name": path.stem} | given, str(path))


def make_batch(given: Mapping[str, Any], where: str) -> Batch:
    """A checked batch of the keys in KEYS. where: what errors name as their place. Raises ConfigError."""
    if unknown := [str(key)[:60] for key in given if key not in KEYS]:
        said = ", ".join(key + did_you_mean(key, KEYS) for key in unknown)
        raise ConfigError(f"{where}: unknown key {said}; a batch has {', '.join(KEYS)}")
    name, profile = given.get("name"), given.get("profile") or pipeline.default_profile()
    _check_name(name, f"{where}: name")
    if name == "latest":
        raise ConfigError(f"{where}: name: 'latest' is the link to the newest run; choose another")
    if profile not in PROFILES:
        raise ConfigError(f"{where}: profile {profile!r:.60}: valid ones are {', '.join(PROFILES)}")
    fixed, seeds = _mapping(given, "parameters", where), _seeds(given.get("seeds", [0]), where)
    settings = _settings(_mapping(given, "grid", where), _mapping(given, "settings", where), where)
    if len(settings) * len(seeds) > MOST_RUNS:
        raise ConfigError(f"{where}: {len(settings) * len(seeds):,} runs; a batch has at most {MOST_RUNS:,}")
    compare_to = given.get("compare_to") or next(iter(settings))
    if compare_to not in settings:
        raise ConfigError(f"{where}: compare_to {compare_to!r:.60} is no setting; there are {', '.join(settings)}")
    batch = Batch(name, profile, fixed, settings, seeds, compare_to)
    _check_settings(batch, where)
    return batch


def _check_name(name: Any, where: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"{where} {name!r:.60}: must be of at most 80 letters, digits, '.', '_', '+' and '-'")


def _mapping(given: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    value = given.get(key) or {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: {key} must be a mapping of names and values, not {value!r:.60}")
    if strange := [name for name in value if not isinstance(name, str)]:
        raise ConfigError(f"{where}: {key} has the name {strange[0]!r:.60}; put it in quotes")
    if "SEED" in value:
        raise ConfigError(f"{where}: {key} sets SEED; list the seeds under `seeds`")
    return dict(value)


def _seeds(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or any(type(n) is not int or not 0 <= n <= MOST_SEED for n in value):
        raise ConfigError(f"{where}: seeds {value!r:.60}: must be a list of whole numbers from 0, such as [0, 1, 2]")
    if len(set(value)) < len(value):
        raise ConfigError(f"{where}: seeds {value!r:.60}: a seed stands twice")
    return tuple(value)


def _settings(grid: dict[str, Any], named: dict[str, Any], where: str) -> dict[str, dict[str, Any]]:
    """Those of the grid, then the named ones. Raises ConfigError where two have one name."""
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{where}: grid: {name} must have a list of values, such as [8, 16], not {values!r:.60}")
    if (size := math.prod(map(len, grid.values()))) > MOST_RUNS:  # before it is crossed, which could take all memory
        raise ConfigError(f"{where}: the grid has {size:,} settings; a batch has at most {MOST_RUNS:,} runs")
    crossed = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())] if grid else []
    found: dict[str, dict[str, Any]] = {}
    for name, parameters in [*((setting_name(point), point) for point in crossed), *named.items()]:
        if name in found:
            raise ConfigError(f"{where}: two settings are named {name}; take one out or name it otherwise")
        _check_name(name, f"{where}: settings:")
        found[name] = _mapping({name: parameters}, name, f"{where}: settings")
    return found or {"base": {}}


def setting_name(parameters: Mapping[str, Any]) -> str:
    """What a point of a grid is called, e.g. `lora_rank-8_epochs-2`."""
    parts = (f"{name.lower()}-{value}" for name, value in parameters.items())
    return re.sub(r"[^\w.+-]+", "-", "_".join(parts), flags=re.ASCII)[:80]


def _check_settings(batch: Batch, where: str) -> None:
    """Refuse what the pipeline would refuse, and two settings that are one. Raises ConfigError naming the setting."""
    known: dict[str, str] = {}
    for run in batch.runs[: len(batch.settings)]:
        place = f"{where}: setting {run.setting}" if batch.settings[run.setting] else where
        try:
            pipeline.check_request(run.request)
            recorded = repr(run.recorded)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from None
        if recorded in known:
            raise ConfigError(f"{where}: the settings {known[recorded]} and {run.setting} are the same; leave one out")
        known[recorded] = run.setting


def check_same(batch: Batch) -> None:
    """Raises ConfigError where the batch's folder holds runs of other parameters; more settings or seeds may come."""
    if not (batch.folder / BATCH_FILE).is_file() and (batch.folder / "config.json").is_file():
        raise ConfigError(f"{batch.folder} is a run, no batch; take another --name")
    before = planned_runs(batch.folder)
    for run in batch.runs:
        old = before.get(run.name, {})
        changed = [
            f"{name} {old[step].get(name)!r}, now {value!r}"
            for step, values in run.recorded.items()
            for name, value in values.items()
            if step in old and old[step].get(name) != value
        ]
        if changed:
            raise ConfigError(f"{run.run_id} was planned with {'; '.join(dict.fromkeys(changed))}: take another --name")


def planned_runs(folder: Path) -> dict[str, dict[str, Any]]:
    """Run -> what the batch of a folder has planned for it; empty for the folder of no batch."""
    return read_object(folder / BATCH_FILE, "restore it, or take another --name", missing_ok=True).get("runs", {})
