"""What a run folder holds, read for its report: what is missing or broken is named, and the rest is there."""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from stkvlm_lib.files import read_json, read_jsonl

if TYPE_CHECKING:
    from stkvlm_lib.scores.scoring import Prediction

EXPECTED = ("score_families", "score_worst", "score_typical")
"""Figures without which a report is not complete."""


@dataclass
class Artefacts:
    """What a run folder holds; `problems` names what could not be read.

    training: facts of the run's own training. adapter: what its adapter records of base and settings. changed:
    questions won and lost against another run. These are empty where the run has none.
    """

    folder: Path
    metrics: dict = field(default_factory=dict)
    manifest: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict)
    predictions: list["Prediction"] = field(default_factory=list)
    log: list[dict] = field(default_factory=list)
    training: dict = field(default_factory=dict)
    adapter: dict = field(default_factory=dict)
    changed: list[dict] = field(default_factory=list)
    figures: dict[str, bytes] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def run_id(self) -> str:
        return str(self.manifest.get("run_id", self.folder.name))


def read_artefacts(folder: Path) -> Artefacts:
    """Read what is there."""
    from stkvlm_lib.scores.scoring import read_predictions  # loads torch, which the rest of the report does without

    found = Artefacts(folder)

    def read(reader: Callable, name: str, empty: Any) -> Any:
        try:
            value = reader(folder / name)
            if isinstance(value, type(empty)):
                return value
            found.problems.append(f"{name}: holds a {type(value).__name__}, not a {type(empty).__name__}")
        except FileNotFoundError:
            found.problems.append(f"{name}: not there")
        except (OSError, ValueError, TypeError, AttributeError) as error:
            found.problems.append(f"{name}: not readable ({str(error).replace(f'{folder}/', '')})")
        return empty

    found.metrics = read(read_json, "metrics.json", {})
    found.predictions = read(read_predictions, "predictions.jsonl", [])
    found.manifest = read(read_json, "manifest.json", {})
    found.config = read(read_json, "config.json", {})
    if found.metrics.get("train_seconds") is not None or (folder / "train_log.jsonl").exists():
        found.log = read(read_jsonl, "train_log.jsonl", [])
    for name, kind in (("training.json", "training"), ("adapter/stkvlm.json", "adapter")):
        if (folder / name).exists():
            setattr(found, kind, read(read_json, name, {}))
    if found.metrics.get("comparison"):
        found.changed = read(read_jsonl, "comparison.jsonl", [])
    for path in sorted((folder / "figures").glob("*.png")):
        if data := read(_read_picture, f"figures/{path.name}", b""):
            found.figures[path.stem] = data
    named = {problem.split(":")[0] for problem in found.problems}
    for name in EXPECTED:
        if name not in found.figures and (file := f"figures/{name}.png") not in named:
            found.problems.append(f"{file}: not there")
    n, scored = len(found.predictions), found.metrics.get("n")
    if found.predictions and found.metrics and n != scored:
        found.problems.append(f"predictions.jsonl: {n} rows, but metrics.json says n = {scored}; score again")
    return found


def _read_picture(path: Path) -> bytes:
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        image.verify()
    return data
