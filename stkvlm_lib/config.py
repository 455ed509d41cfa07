"""Every parameter of a run, checked, and the profiles. Notebooks hold the same parameters in upper case."""

import math
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from stkvlm_lib.cell_order import hint_at_order

ROOT = Path(__file__).resolve().parent.parent
"""The repository: relative paths in parameters count from here, whatever folder a command is started in."""
EMBEDDED = "embedded"
"""The name under which adapters record the base that ships in models/embedded."""
BASE = "base"
"""What COMPARE_RUN of the explorer says for the base without the adapter."""
MOST_SEED = 2**32 - 1
"""What numpy takes."""


class ConfigError(ValueError):
    """A parameter that is unknown or has an impossible value; the message names it and the valid ones."""


@dataclass(frozen=True)
class RunConfig:
    """What every notebook takes."""

    run_dir: str = ""
    frames_dir: str = ""
    skip_broken: bool = False
    seed: int = 0

    def __post_init__(self):
        _require(0 <= self.seed <= MOST_SEED, "SEED", self.seed, f"a whole number from 0 to {MOST_SEED}")

    @property
    def run_path(self) -> Path:
        """Where the run's files lie; empty means outputs/by-hand."""
        return resolve(self.run_dir or "outputs/by-hand")

    @property
    def frames_paths(self) -> tuple[Path, ...]:
        """The data folder, or several separated by `:` (`;` on Windows); empty means the bundled frames."""
        whole = resolve(self.frames_dir or "frames")
        if whole.is_dir():  # also one with a colon in its name
            return (whole,)
        return tuple(resolve(part) for part in self.frames_dir.split(os.pathsep) if part) or (whole,)


@dataclass(frozen=True)
class ExploreConfig(RunConfig):
    """Notebook 01."""


@dataclass(frozen=True)
class QaConfig(RunConfig):
    """Notebook 02."""

    workers: int = 1
    cluster: str = ""
    balance: float = 1.5
    extended_per_family: int = 0
    contrast_pictures: int = 100
    label_sample: int = 200
    export: bool = True

    def __post_init__(self):
        super().__post_init__()
        _require(self.workers >= 1, "WORKERS", self.workers, "a number of processes, from 1")
        _require(self.balance == 0 or self.balance >= 1, "BALANCE", self.balance, "a ratio from 1, or 0 for none")
        for name in ("extended_per_family", "contrast_pictures", "label_sample"):
            _require(getattr(self, name) >= 0, name.upper(), getattr(self, name), "a whole number from 0")


@dataclass(frozen=True)
class ModelConfig(RunConfig):
    """What notebooks 03 and 04 share: which base and how it is loaded."""

    base_model: str = ""
    base_revision: str = ""
    quantization: str = "nf4"
    eval_batch_size: int = 16

    def __post_init__(self):
        super().__post_init__()
        _require(self.quantization in ("nf4", "none"), "QUANTIZATION", self.quantization, "nf4 or none")
        _require(self.eval_batch_size > 0, "EVAL_BATCH_SIZE", self.eval_batch_size, "pictures answered at once, from 1")


LORA_PARTS = ("text", "text+connector", "text+connector+vision")
"""What an adapter can train. Image tokens are kept only where neither connector nor vision tower changes."""
REPORTERS = {
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "trackio": "trackio",
    "comet_ml": "comet_ml",
    "clearml": "clearml",
    "neptune": "neptune",
    "swanlab": "swanlab",
    "dvclive": "dvclive",
    "codecarbon": "codecarbon",
}
"""Logs that the Trainer writes to, and the module that each needs."""


@dataclass(frozen=True)
class FinetuneConfig(ModelConfig):
    """Notebook 03."""

    start_adapter: str = ""
    train_races: int = 0
    train_views: int = 0
    valid_views: int = 200
    mirror: bool = True
    questions_per_view: int = 12
    extended_per_view: int = 4
    worded_per_view: int = 4
    epochs: int = 1
    batch_size: int = 16
    learning_rate: float = 2e-3
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    lora_targets: str = "text"
    image_side: int = 0
    evaluations: int = 4
    processes: int = 1
    report_to: str = ""

    def __post_init__(self):
        super().__post_init__()
        _require(self.lora_targets in LORA_PARTS, "LORA_TARGETS", self.lora_targets, " or ".join(LORA_PARTS))
        _require(self.image_side >= 0, "IMAGE_SIDE", self.image_side, "a side in pixels, 0 for the base's own")
        _require(self.processes >= 0, "PROCESSES", self.processes, "a number of processes, 0 for one a GPU")
        for name in self.reporters:
            _require(name in REPORTERS, "REPORT_TO", name, f"empty or of {', '.join(REPORTERS)}")
        for name in ("epochs", "batch_size", "questions_per_view", "lora_rank", "lora_alpha", "evaluations"):
            _require(getattr(self, name) > 0, name.upper(), getattr(self, name), "a whole number from 1")
        _require(self.train_races >= 0, "TRAIN_RACES", self.train_races, "a number of races, 0 for all")
        for name in ("train_views", "valid_views"):
            _require(getattr(self, name) >= 0, name.upper(), getattr(self, name), "a number of pictures, 0 for all")
        for name in ("extended_per_view", "worded_per_view"):
            _require(getattr(self, name) >= 0, name.upper(), getattr(self, name), "a whole number from 0")
        _require(0 < self.learning_rate < 1, "LEARNING_RATE", self.learning_rate, "a number between 0 and 1")
        _require(0 <= self.lora_dropout < 1, "LORA_DROPOUT", self.lora_dropout, "a share from 0 to under 1")

    @property
    def reporters(self) -> list[str]:
        """The logs named, separated by spaces or commas."""
        return self.report_to.replace(",", " ").split()


@dataclass(frozen=True)
class ScoreConfig(ModelConfig):
    """Notebook 04, which needs the model."""

    adapter_dir: str = ""
    qa_file: str = ""
    mc_file: str = ""
    own_words_file: str = ""
    own_words_pictures: int = 3
    test_views: int = 0
    extended_scored: int = 100
    calibration_views: int = 100
    error_rate: float = 0.05
    bootstrap: int = 1000

    def __post_init__(self):
        super().__post_init__()
        _require(self.test_views >= 0, "TEST_VIEWS", self.test_views, "a number of pictures, 0 for all")
        most = self.extended_scored
        _require(most >= 0, "EXTENDED_SCORED", most, "a number of questions, 0 for all")
        views = self.calibration_views
        _require(views >= 0, "CALIBRATION_VIEWS", views, "a number of valid pictures, 0 for all")
        pictures = self.own_words_pictures
        _require(pictures >= 0, "OWN_WORDS_PICTURES", pictures, "a number of pictures a wording, 0 to leave it out")
        _require(0 < self.error_rate < 1, "ERROR_RATE", self.error_rate, "a share between 0 and 1, as 0.05")
        _require(self.bootstrap >= 100, "BOOTSTRAP", self.bootstrap, "a number of resamples from 100")

    @property
    def own_words_path(self) -> Path:
        """Wordings that no training has seen; empty means the bundled ones."""
        return resolve(self.own_words_file or "benchmarks/own_words.json")

    @property
    def adapter_path(self) -> Path:
        """The adapter to score; empty means the run's own."""
        return resolve(self.adapter_dir) if self.adapter_dir else self.run_path / "adapter"


@dataclass(frozen=True)
class ErrorConfig(RunConfig):
    """Notebook 05, which reads the answers alone."""

    compare_run: str = ""


@dataclass(frozen=True)
class ExplorerConfig(RunConfig):
    """Notebook 06, which looks at a run and is no step of one. compare_run: a run, or `base`."""

    adapter_dir: str = ""
    compare_run: str = ""
    base_model: str = ""
    picture: str = ""
    question: str = ""

    @property
    def run_path(self) -> Path:
        """The run to look at; empty means the newest."""
        return resolve(self.run_dir or "outputs/latest")

    @property
    def adapter_path(self) -> Path:
        """The adapter to ask; empty means the run's own."""
        return resolve(self.adapter_dir) if self.adapter_dir else self.run_path / "adapter"


@dataclass(frozen=True)
class CollectConfig:
    """Notebook 00, which makes frames and is no step of a run."""

    out_dir: str = "outputs/frames"
    images: int = 200
    tracks: str = ""
    seed: int = 0
    recipe: str = ""
    workers: int = 0

    def __post_init__(self):
        _require(self.images >= 1, "IMAGES", self.images, "a number of pictures from 1")
        _require(self.seed >= 0, "SEED", self.seed, "a whole number from 0")
        _require(self.workers >= 0, "WORKERS", self.workers, "a number of processes, 0 for one a core")

    @property
    def out_path(self) -> Path:
        return resolve(self.out_dir)

    @property
    def track_names(self) -> list[str]:
        """The tracks named, separated by spaces or commas; empty means all."""
        return self.tracks.replace(",", " ").split()

    @property
    def recipe_path(self) -> Path | None:
        return resolve(self.recipe) if self.recipe else None


@dataclass(frozen=True)
class BatchConfig:
    """Notebook 07, which makes many runs and is no step of one."""

    batch_file: str = "benchmarks/batches/two-cores.yml"
    at_once: int = 0
    gpus: str = ""
    cluster: str = ""
    compare_to: str = ""
    bootstrap: int = 1000
    seed: int = 0

    def __post_init__(self):
        _require(self.at_once >= 0, "AT_ONCE", self.at_once, "a number of runs, 0 for one, or one a GPU")
        _require(self.bootstrap >= 100, "BOOTSTRAP", self.bootstrap, "a number of resamples from 100")
        _require(0 <= self.seed <= MOST_SEED, "SEED", self.seed, f"a whole number from 0 to {MOST_SEED}")

    @property
    def batch_path(self) -> Path:
        return resolve(self.batch_file)


STEPS: dict[str, tuple[str, type[RunConfig]]] = {
    "01": ("01_explore_data", ExploreConfig),
    "02": ("02_generate_qa", QaConfig),
    "03": ("03_finetune_qlora", FinetuneConfig),
    "04": ("04_evaluate", ScoreConfig),
    "05": ("05_error_analysis", ErrorConfig),
}
"""Step -> (notebook, its parameters), in the order in which they run."""
ALONE: dict[str, tuple[str, type]] = {"00": ("00_collect_frames", CollectConfig), "07": ("07_batch", BatchConfig)}
"""The same for notebooks that are no step of a run."""

PROFILES: dict[str, dict[str, Any]] = {
    "smoke": {
        "TRAIN_VIEWS": 320,
        "VALID_VIEWS": 16,
        "BATCH_SIZE": 8,
        "EPOCHS": 1,
        "EVALUATIONS": 1,
        "MIRROR": False,
        "TEST_VIEWS": 84,
        "EXTENDED_SCORED": 5,
        "OWN_WORDS_PICTURES": 1,
        "CALIBRATION_VIEWS": 16,
        "BOOTSTRAP": 200,
    },
    "cpu": {},
    # Others on this base, LoRA without 4 bit, the course's graded questions: 74.2 % at rate 2e-4, rank 16, alpha 64,
    # dropout 0.15, 8 questions a step, a quarter of a pass; 64 to 70 % at 5e-4, rank 8, 32 a step, a twentieth. Hence
    # rate and rank of the best; steps of up to 16 x 16 packed questions are less noisy: half the alpha, less dropout.
    "gpu": {
        "BASE_MODEL": "HuggingFaceTB/SmolVLM-256M-Instruct",
        "EPOCHS": 3,
        "LEARNING_RATE": 2e-4,
        "LORA_DROPOUT": 0.05,
        "EVAL_BATCH_SIZE": 32,
    },
}
"""Profile -> the parameters it sets; all others keep their defaults, which are those of `cpu`."""

C = TypeVar("C", bound=RunConfig | CollectConfig | BatchConfig)
_INJECTED = "# Parameters\n"
"""How the cell begins into which papermill writes the parameters that it was given."""


def read_parameters(namespace: dict[str, Any], kind: type[C]) -> C:
    """Build a configuration from a notebook's globals, at any time: what its cells define besides does not count.

    Parameters are the names that `kind` has, all that papermill was given, and other UPPER_CASE names or lower-case
    forms of parameters, which are taken for misspelt; not what a person's IPython start-up files define.
    Raises ConfigError for a parameter that `kind` does not have, or whose value has the wrong type, and where the
    notebook was opened in another checkout than the library's.
    """
    check_checkout(Path.cwd())
    hint_at_order()
    valid = {field.name.upper() for field in fields(kind)}
    injected, hidden = _injected_names(namespace.get("In", ())), _startup_names(namespace)

    def is_given(name: str, value: Any) -> bool:
        if name in valid or name in injected:
            return True
        plain = value is None or isinstance(value, bool | int | float | str | list | dict)
        return plain and name not in hidden and not name.startswith("_") and (name.isupper() or name.upper() in valid)

    return make_config({name: value for name, value in namespace.items() if is_given(name, value)}, kind)


def _injected_names(cells: Iterable[str]) -> set[str]:
    """The names that papermill's cells assign, of all cells that were run."""
    lines = [line for cell in cells if cell.startswith(_INJECTED) for line in cell.splitlines()]
    return {found[1] for line in lines if (found := re.match(r"(\w+) = ", line))}


def _startup_names(namespace: dict[str, Any]) -> set[str]:
    """What IPython's start-up files have defined, and is still as they left it."""
    shell = namespace.get("get_ipython", lambda: None)()
    before = getattr(shell, "user_ns_hidden", {})
    return {name for name, value in before.items() if namespace.get(name) is value}


def make_config(parameters: dict[str, Any], kind: type[C]) -> C:
    """UPPER_CASE parameters -> configuration. Raises ConfigError naming what is unknown or of the wrong type."""
    types = {field.name.upper(): field.type for field in fields(kind)}
    unknown = sorted(set(parameters) - set(types))
    if unknown:
        raise unknown_parameters(unknown, types)
    return kind(**{name.lower(): _cast(name, value, types[name]) for name, value in parameters.items()})


def unknown_parameters(names: Iterable[str], valid: Iterable[str]) -> ConfigError:
    """Names them, what they may have meant, and all valid ones."""
    valid = list(valid)
    meant = {name: get_close_matches(name, valid, 1) for name in names}
    said = [f"{name} (did you mean {close[0]}?)" if close else name for name, close in meant.items()]
    return ConfigError(f"unknown parameter {', '.join(said)}; valid ones are {', '.join(valid)}")


def check_reporters(config: FinetuneConfig) -> None:
    """Raises ConfigError where a log of REPORT_TO is not installed."""
    for name in config.reporters:
        if find_spec(REPORTERS[name]) is None:
            what = '-e ".[log]"' if name == "tensorboard" else REPORTERS[name]
            raise ConfigError(f"REPORT_TO={name}: it is not installed; pip install {what}, or leave it out")


def upper(config: RunConfig | CollectConfig | BatchConfig) -> dict[str, Any]:
    """The configuration as notebook parameters."""
    return {name.upper(): value for name, value in asdict(config).items()}


def check_checkout(folder: Path) -> None:
    """Raises ConfigError where this library is a mere copy without notebooks and frames, and where a folder lies in
    another checkout than it does, whose notebooks and files would be mixed with it unseen."""
    if not (ROOT / "pyproject.toml").is_file():
        raise ConfigError(
            f"stkvlm_lib in {ROOT} is a copy without its notebooks and frames; install it from its checkout "
            "with `pip install -e CHECKOUT`"
        )
    marks = ("pyproject.toml", "stkvlm_lib/config.py")
    holding = (place for place in (folder, *folder.parents) if all((place / mark).is_file() for mark in marks))
    checkout = next(holding, ROOT)
    if not checkout.samefile(ROOT):
        raise ConfigError(
            f"{folder} lies in the checkout {checkout}, but the stkvlm_lib of this environment is that of {ROOT}; "
            f"start it through {checkout}/run_all.sh, or call `pip install -e {checkout}` in this environment"
        )


def resolve(path: str | Path) -> Path:
    """An absolute path; relative ones count from the repository root."""
    path = Path(path).expanduser()
    return path if path.is_absolute() else ROOT / path


_MOST = 10**18
"""Whole numbers of this size and more are no counts, seeds or rates."""


def _cast(name: str, value: Any, kind: type) -> Any:
    """Accept what papermill and YAML deliver (`1e-4` arrives as text), refuse what would change the meaning.

    A number for a text is refused: papermill makes 20241126 of `2024_11_26` and inf of `7e23997`, and what was typed is
    lost.
    """
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)) and not _is_endless(value):
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and not _is_endless(value):
        return float(value)
    if isinstance(value, str):
        if kind is bool and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if kind is int and re.fullmatch(r"-?\d{1,18}", value):
            return int(value)
        if kind is float:
            try:
                number = float(value)
            except ValueError:
                number = math.nan
            if not _is_endless(number):
                return number
    if kind is str:
        raise ConfigError(
            f"{name}={value!r} is not text but {type(value).__name__}, so what was typed may be lost; give it to "
            f"papermill with `-r {name} VALUE` in place of -p, in a notebook or YAML file in quotes"
        )
    raise ConfigError(f"{name}={value!r:.80} is not of type {kind.__name__}")


def _is_endless(value: Any) -> bool:
    """Whether a value is NaN, infinite, or too large a number to be meant, which JSON or numpy could not hold."""
    return isinstance(value, int | float) and not abs(value) < _MOST


def _require(condition: bool, name: str, value: Any, wanted: str) -> None:
    if not condition:
        raise ConfigError(f"{name}={value!r}: must be {wanted}")
