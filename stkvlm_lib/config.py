"""Every parameter of a run, checked, and the profiles. Notebooks hold the same parameters in upper case."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
"""The repository: relative paths in parameters count from here, whatever folder a command is started in."""
EMBEDDED = "embedded"
"""The name under which adapters record the base that ships in models/embedded."""
BASE = "base"
"""What COMPARE_RUN of the explorer says for the base without the adapter."""
MOST_SEED = 2**32 - 1  # what numpy takes
MOST_GAME_SEED = 2**15 - 1  # what the game takes


class ConfigError(ValueError):
    """A parameter that is unknown or has an impossible value; the message names it and the valid ones."""


class Failure(RuntimeError):
    """What was asked for rightly, and yet could not be done; the message says why and what to do."""


_FROM_0, _FROM_1 = "a whole number from 0", "a whole number from 1"


def valid(default: Any, is_valid: Callable[[Any], bool], wanted: str) -> Any:
    """A parameter with its default, what its value must fulfil, and the same in words for who gives another."""
    return field(default=default, metadata={"is_valid": is_valid, "wanted": wanted})


def at_least(least: int) -> Callable[[int], bool]:
    return lambda value: value >= least


@dataclass(frozen=True)
class Parameters:
    """The parameters of a notebook. Raises ConfigError for a value that is none of those a field says it wants."""

    def __post_init__(self):
        for each in fields(self):
            value = getattr(self, each.name)
            if each.metadata and not each.metadata["is_valid"](value):
                raise ConfigError(f"{each.name.upper()}={value!r}: must be {each.metadata['wanted']}")


@dataclass(frozen=True)
class RunConfig(Parameters):
    """What every notebook takes."""

    run_dir: str = ""
    frames_dir: str = ""
    skip_broken: bool = False
    seed: int = valid(0, lambda seed: 0 <= seed <= MOST_SEED, f"{_FROM_0} to {MOST_SEED}")

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

    workers: int = valid(1, at_least(1), "a number of processes, from 1")
    cluster: str = ""
    balance: float = valid(1.5, lambda ratio: ratio == 0 or ratio >= 1, "a ratio from 1, or 0 for none")
    extended_per_family: int = valid(0, at_least(0), _FROM_0)
    contrast_pictures: int = valid(100, at_least(0), _FROM_0)
    label_sample: int = valid(200, at_least(0), _FROM_0)
    export: bool = True


AUTO = "auto"
PRECISIONS = ("fp32", "bf16", "fp16")
"""Floating points that a model can compute in; `auto` stands for the fastest that the device trains in."""


@dataclass(frozen=True)
class ModelConfig(RunConfig):
    """What notebooks 03 and 04 share: which base and how it is loaded."""

    base_model: str = ""
    base_revision: str = ""
    quantization: str = valid("nf4", lambda kind: kind in ("nf4", "none"), "nf4 or none")
    precision: str = valid(AUTO, lambda kind: kind in (AUTO, *PRECISIONS), f"{AUTO}, {', '.join(PRECISIONS)}")
    eval_batch_size: int = valid(16, at_least(1), "pictures answered at once, from 1")


LORA_PARTS = ("text", "text+connector", "text+connector+vision")
"""What an adapter can train. Image tokens are kept only where neither connector nor vision tower changes."""
REPORTERS = (
    *("tensorboard", "wandb", "mlflow", "trackio", "comet_ml"),
    *("clearml", "neptune", "swanlab", "dvclive", "codecarbon"),
)
"""Logs that the Trainer writes to; each needs the module of its name."""


@dataclass(frozen=True)
class FinetuneConfig(ModelConfig):
    """Notebook 03."""

    start_adapter: str = ""
    train_races: int = valid(0, at_least(0), "a number of races, 0 for all")
    train_views: int = valid(0, at_least(0), "a number of pictures, 0 for all")
    valid_views: int = valid(200, at_least(0), "a number of pictures, 0 for all")
    mirror: bool = True
    questions_per_view: int = valid(8, at_least(1), _FROM_1)
    extended_per_view: int = valid(4, at_least(0), _FROM_0)
    worded_per_view: int = valid(4, at_least(0), _FROM_0)
    epochs: int = valid(2, at_least(1), _FROM_1)
    batch_size: int = valid(16, at_least(1), _FROM_1)
    learning_rate: float = valid(2e-3, lambda rate: 0 < rate < 1, "a number between 0 and 1")
    lora_rank: int = valid(16, at_least(1), _FROM_1)
    lora_alpha: int = valid(32, at_least(1), _FROM_1)
    lora_dropout: float = valid(0.0, lambda share: 0 <= share < 1, "a share from 0 to under 1")
    lora_targets: str = valid("text", lambda parts: parts in LORA_PARTS, " or ".join(LORA_PARTS))
    image_side: int = valid(0, at_least(0), "a side in pixels, 0 for the base's own")
    evaluations: int = valid(4, at_least(1), _FROM_1)
    processes: int = valid(1, at_least(0), "a number of processes, 0 for one a GPU")
    report_to: str = valid("", lambda logs: set(_words(logs)) <= set(REPORTERS), f"empty or of {', '.join(REPORTERS)}")

    @property
    def reporters(self) -> list[str]:
        """The logs named, separated by spaces or commas."""
        return _words(self.report_to)


@dataclass(frozen=True)
class ScoreConfig(ModelConfig):
    """Notebook 04, which needs the model."""

    adapter_dir: str = ""
    qa_file: str = ""
    mc_file: str = ""
    own_words_file: str = ""
    own_words_pictures: int = valid(3, at_least(0), "a number of pictures a wording, 0 to leave it out")
    test_views: int = valid(0, at_least(0), "a number of pictures, 0 for all")
    extended_scored: int = valid(100, at_least(0), "a number of questions, 0 for all")
    calibration_views: int = valid(100, at_least(0), "a number of valid pictures, 0 for all")
    error_rate: float = valid(0.05, lambda share: 0 < share < 1, "a share between 0 and 1, as 0.05")
    bootstrap: int = valid(1000, at_least(100), "a number of resamples from 100")

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
        return resolve(self.run_dir or "outputs/latest").resolve()  # a later run moves the link

    @property
    def adapter_path(self) -> Path:
        """The adapter to ask; empty means the run's own."""
        return resolve(self.adapter_dir) if self.adapter_dir else self.run_path / "adapter"


@dataclass(frozen=True)
class CollectConfig(Parameters):
    """Notebook 00, which makes frames and is no step of a run."""

    out_dir: str = "outputs/frames"
    images: int = valid(200, at_least(1), "a number of pictures from 1")
    tracks: str = ""
    seed: int = valid(0, lambda seed: 0 <= seed <= MOST_GAME_SEED, f"{_FROM_0} to {MOST_GAME_SEED}")
    recipe: str = ""
    workers: int = valid(0, at_least(0), "a number of processes, 0 for one a core")

    @property
    def track_names(self) -> list[str]:
        """The tracks named, separated by spaces or commas; empty means all."""
        return _words(self.tracks)

    @property
    def recipe_path(self) -> Path | None:
        return resolve(self.recipe) if self.recipe else None


@dataclass(frozen=True)
class BatchConfig(Parameters):
    """Notebook 07, which makes many runs and is no step of one."""

    batch_file: str = "benchmarks/batches/two-cores.yml"
    at_once: int = valid(0, at_least(0), "a number of runs, 0 for one, or one a GPU")
    gpus: str = ""
    cluster: str = ""
    compare_to: str = ""
    bootstrap: int = valid(1000, at_least(100), "a number of resamples from 100")
    seed: int = valid(0, lambda seed: 0 <= seed <= MOST_SEED, f"{_FROM_0} to {MOST_SEED}")

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
ALONE: dict[str, tuple[str, type[Parameters]]] = {
    "00": ("00_collect_frames", CollectConfig),
    "07": ("07_batch", BatchConfig),
}
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
        "QUESTIONS_PER_VIEW": 12,
        "LEARNING_RATE": 2e-4,
        "LORA_DROPOUT": 0.05,
        "EVAL_BATCH_SIZE": 32,
    },
}
"""Profile -> the parameters it sets; all others keep their defaults, which are those of `cpu`."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean A, B or C?)` of the at most three known names that resemble one most; empty where none does."""
    *others, last = get_close_matches(name, list(known), 3) or [""]
    meant = f"{', '.join(others)} or {last}" if others else last
    return f" (did you mean {meant}?)" if meant else ""


def check_reporters(config: FinetuneConfig) -> None:
    """Raises ConfigError where a log of REPORT_TO is not installed."""
    for name in config.reporters:
        if find_spec(name) is None:
            what = '-e ".[log]"' if name == "tensorboard" else name
            raise ConfigError(f"REPORT_TO={name}: it is not installed; pip install {what}, or leave it out")


def resolve(path: str | Path) -> Path:
    """An absolute path; relative ones count from the repository root."""
    path = Path(path).expanduser()
    return path if path.is_absolute() else ROOT / path


def from_root(path: Path) -> Path:
    """A path as one names it in the repository: relative where it lies in it."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _words(text: str) -> list[str]:
    """Names separated by spaces or commas."""
    return text.replace(",", " ").split()
