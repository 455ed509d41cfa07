"""A scored run as its folder holds it, and what an analysis of it is. What is missing or broken is named, not fatal."""

import io
from collections.abc import Callable
from dataclasses import fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from matplotlib.figure import Figure
from PIL import Image

from stkvlm_lib.analysis.intervals import Bootstrap
from stkvlm_lib.analysis.measured import Measured
from stkvlm_lib.analysis.question_facts import Facts, read_facts
from stkvlm_lib.analysis.sections import Section, Shown
from stkvlm_lib.config import ConfigError, ErrorConfig, ScoreConfig
from stkvlm_lib.data.frame_sets import FrameSet, read_frames
from stkvlm_lib.evaluation.predictions import HEADLINE, Prediction, further_file, read_answers
from stkvlm_lib.files import read_json
from stkvlm_lib.parameters import make_config
from stkvlm_lib.runs import compared_run
from stkvlm_lib.typed import TypedError, read_rows

T = TypeVar("T")


NO_PICTURES = "Not known without the pictures that were scored, and their labels: name their folder in FRAMES_DIR."


class Analysis(Measured):
    """The figures of one subject, with its words.

    KEY: theirs in metrics.json; empty for what only shows answers. NONE: what is said where a run has nothing of it.
    """

    KEY: ClassVar[str] = ""
    NONE: ClassVar[str] = "Nothing to show: this run has none of it."

    @classmethod
    def measure(cls, run: "ScoredRun") -> Self | None:
        """The figures from a run's answers; None where it has none to measure, empty for what only shows answers."""
        return cls()

    @classmethod
    def read(cls, metrics: dict) -> Self | None:
        """The figures from metrics.json, None where it has none. Raises TypedError."""
        return cls.from_json(metrics[cls.KEY], cls.KEY) if cls.KEY and cls.KEY in metrics else None

    def into_metrics(self) -> dict[str, Any]:
        """Their part of metrics.json."""
        return {self.KEY: self.as_json()} if self.KEY else {}

    def section(self, run: "ScoredRun") -> Section | None:
        """What is shown of them; None where there is nothing to show."""
        raise NotImplementedError


A = TypeVar("A", bound=Analysis)


def _what_is_in(name: str, kind: type[T], reader: Callable[[Path], Any] = read_json, needed: bool = True) -> T:
    """A property of a run: what one of its files holds, a dict or list, as `ScoredRun._read` reads it when asked."""
    return cached_property(lambda run: run._read(reader, name, kind(), needed))


class ScoredRun:
    """A run folder, read as far as is asked for. problems: what could not be read.

    metrics: figures to begin with, in place of those in metrics.json. frames: the pictures, in place of those that the
    run names. compare_run: the run to compare it with, in place of the one that it was compared with.
    """

    metrics = _what_is_in("metrics.json", dict)
    manifest = _what_is_in("manifest.json", dict)
    config = _what_is_in("config.json", dict)
    """The parameters by step."""
    training = _what_is_in("training.json", dict, needed=False)
    """Facts of the run's own training; empty where it has none."""
    adapter = _what_is_in("adapter/stkvlm.json", dict, needed=False)
    """What the run's own adapter records of base and settings; empty where it has none."""
    predictions = _what_is_in(HEADLINE, list, read_answers)
    """The answers to the scored questions."""

    def __init__(
        self, folder: Path, *, metrics: dict | None = None, frames: FrameSet | None = None, compare_run: str = ""
    ):
        self.folder = Path(folder)
        self.problems: list[str] = []
        if metrics is not None:
            self.metrics = metrics
        if frames is not None:
            self.frames = frames
        if compare_run:
            self.compare_run = compare_run
        self._figures: dict[type[Analysis], Analysis | None] = {}

    def figures(self, kind: type[A]) -> A | None:
        """The figures of an analysis: those of metrics.json, else measured from the answers."""
        if kind not in self._figures:
            self._figures[kind] = None
            try:
                self._figures[kind] = kind.read(self.metrics) or (kind.measure(self) if self.predictions else None)
            except TypedError as error:
                self.problems.append(f"metrics.json: {error}")
            except (OSError, ValueError) as error:
                self.problems.append(str(error))
        return self._figures[kind]

    def answers(self, name: str, kind: type[T] = Prediction) -> list[T]:
        """The answers to a further set of questions; none where it was not asked."""
        file = further_file(self.folder, name).name
        return self._read(lambda path: read_answers(path, kind), file, [], needed=False)

    def parameters(self, step: str) -> dict:
        """Those of one step; empty where they are not recorded."""
        return as_object(self.config.get(step))

    def parameter(self, name: str) -> Any:
        """A parameter's value in the last step that recorded it."""
        steps = [step for step in sorted(self.config) if name in self.parameters(step)]
        return self.parameters(steps[-1])[name] if steps else None

    @cached_property
    def log(self) -> list[dict]:
        """The rows of the training's log; none without a training."""
        trained = self.metrics.get("train_seconds") is not None
        return self._read(partial(read_rows, kind=dict), "train_log.jsonl", [], needed=trained)

    @cached_property
    def settings(self) -> ScoreConfig:
        """How the run was scored, as far as it says."""
        known = {f.name.upper() for f in fields(ScoreConfig)}
        given = {name: value for name, value in self.parameters("04").items() if name in known}
        try:
            return make_config(given | {"RUN_DIR": str(self.folder)}, ScoreConfig)
        except ConfigError as error:
            self.problems.append(f"config.json: {error}")
            return ScoreConfig(run_dir=str(self.folder))

    @cached_property
    def compare_run(self) -> str:
        """The run that it is compared with; empty for none. Notebook 04 has named it in older runs."""
        return str(self.parameters("05").get("COMPARE_RUN") or self.parameters("04").get("COMPARE_RUN") or "")

    @cached_property
    def compared_answers(self) -> list[Prediction]:
        """Those of the run that it is compared with. Raises ConfigError, OSError or ValueError."""
        return read_answers(compared_run(self.compare_run) / HEADLINE)

    @cached_property
    def frames(self) -> FrameSet | None:
        """The pictures asked about; None where they are not there."""
        try:
            frames = read_frames(self.settings.frames_paths, skip_broken=self.settings.skip_broken)
        except (OSError, ValueError) as error:
            self.problems.append(f"frames: {error}")
            return None
        strange = next((p.image_file for p in self.predictions if p.image_file not in frames.by_image_file), None)
        if strange:
            self.problems.append(f"frames: no picture {strange} in {frames.root}; name the run's own in FRAMES_DIR")
            return None
        return frames

    @cached_property
    def facts(self) -> list[Facts]:
        """What the frames say of each scored question; none where they are not there."""
        return read_facts(self.predictions, self.frames) if self.frames and self.predictions else []

    @cached_property
    def interval(self) -> Bootstrap:
        """Intervals of means over the scored questions."""
        return self.interval_of(self.predictions)

    def interval_of(self, rows: list) -> Bootstrap:
        return Bootstrap(rows, self.settings.bootstrap, self.settings.seed)

    @property
    def split(self) -> str:
        return str(self.metrics.get("split", "scored"))

    @property
    def run_id(self) -> str:
        return str(self.manifest.get("run_id", self.folder.name))

    def gallery(self, name: str, caption: str, draw: Callable[[FrameSet], Figure], alt: str = "") -> list[Shown]:
        """A figure of pictures: drawn, or as an earlier report left it where the pictures are not there."""
        if self.frames:
            return [Shown(name, draw(self.frames), caption, alt)]
        return [Shown(name, data, caption, alt)] if (data := self.picture(name)) else []

    def pictures(self) -> list[str]:
        """The names of the figures that lie in the run folder."""
        return sorted(path.stem for path in (self.folder / "figures").glob("*.png"))

    def picture(self, name: str) -> bytes:
        """A figure that lies in the run folder, empty where it does not."""
        return self._read(_read_picture, f"figures/{name}.png", b"", needed=False)

    def _read(self, reader: Callable[[Path], Any], name: str, empty: T, needed: bool = True) -> T:
        """What a file holds, `empty` where it is not there, or broken, which is named. needed: so is that it is not
        there."""
        if not needed and not (self.folder / name).exists():
            return empty
        try:
            value = reader(self.folder / name)
            if isinstance(value, type(empty)):
                return value
            problem = f"holds a {type(value).__name__}, not a {type(empty).__name__}"
        except FileNotFoundError:
            problem = "not there"
        except (OSError, ValueError, TypeError, AttributeError) as error:
            problem = f"not readable ({str(error).replace(f'{self.folder}/', '')})"
        self.problems.append(f"{name}: {problem}")
        return empty


def as_object(value: Any) -> dict:
    """A part of a JSON file that should be an object; empty where it is something else."""
    return value if isinstance(value, dict) else {}


def _read_picture(path: Path) -> bytes:
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        image.verify()
    return data


def open_scored(config: ErrorConfig) -> ScoredRun:
    """The run of notebook 05. Pictures are those of FRAMES_DIR where it names some, else those the run was scored on.

    Raises FramesError for frames and ConfigError for a COMPARE_RUN that are not there.
    """
    if config.compare_run:
        compared_run(config.compare_run)
    frames = read_frames(config.frames_paths, skip_broken=config.skip_broken) if config.frames_dir else None
    return ScoredRun(config.run_path, frames=frames, compare_run=config.compare_run)
