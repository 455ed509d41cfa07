"""Pictures with karts at given places, and all questions about them as somebody answered."""

import json
from pathlib import Path

from PIL import Image

from stkvlm_lib.analysis.scored_run import ScoredRun
from stkvlm_lib.config import ScoreConfig
from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.data.frames import Frame, View
from stkvlm_lib.evaluation.predictions import Prediction, is_prefix
from stkvlm_lib.grammar.questions import ask_all, is_exact, read_question
from stkvlm_lib.grammar.scene import read_scene

KARTS = ("tux", "gnu", "kiki", "puffy", "konqi")
TUX = (70, 45, 80, 55)
"""In the middle: the ego kart."""


def make_view(boxes: dict, *, race: str = "r1", split: str = "test", folder: Path = Path("data"), **measured) -> View:
    """boxes: {kart: (x1, y1, x2, y2)}, px of 150x100. measured: {kart: (visible, pixels, distance)}."""
    rows = [[1, KARTS.index(kart), *(4 * v for v in box), *measured.get(kart, ())] for kart, box in boxes.items()]
    return Frame(folder, split, f"{race}0001", "abyss", KARTS, race, rows=(json.dumps(rows),)).views[0]


def frame_set(*views: View, train: tuple[str, ...] = KARTS) -> FrameSet:
    """The views as a set; `train`: who drives on their track in train, () for a set without a train split."""
    splits: dict[str, tuple[Frame, ...]] = {}
    for view in views:
        splits[view.frame.split] = (*splits.get(view.frame.split, ()), view.frame)
    if train:
        splits["train"] = (Frame(Path("data"), "train", "t0001", "abyss", train, "t", rows=("[]",)),)
    return FrameSet(Path("data"), splits)


def draw_picture(view: View) -> View:
    """Write its picture, so that it can be shown."""
    view.image_path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (150, 100), "#406080").save(view.image_path)
    return view


def answered(view: View, said: dict | None = None, **changes) -> list[Prediction]:
    """The ten forms about a view, right but for `said`: {family: answer} or {(family, kart): answer}."""
    said, rows = said or {}, []
    for family, question, truth in ask_all(read_scene(view)):
        names = read_question(question)[2]
        given = said.get((family, *names), said.get(family, truth))
        values = {
            "image_file": view.image_file,
            "question": question,
            "answer": truth,
            "prediction": given,
            "family": family,
            "correct": is_exact(given, truth),
            "prefix_correct": is_prefix(given, truth),
            "confidence": 0.9,
            "race": view.frame.race,
            "track": view.frame.track,
        }
        rows.append(Prediction(**{**values, **changes}))
    return rows


def scored_run(rows: list[Prediction], folder: Path = Path("data"), **known) -> ScoredRun:
    """A run with these answers. known: what else is there to read of it, by its name in ScoredRun."""
    run = ScoredRun(folder, metrics={})
    for name, value in {"predictions": rows, "settings": ScoreConfig(bootstrap=100), "frames": None, **known}.items():
        setattr(run, name, value)
    return run
