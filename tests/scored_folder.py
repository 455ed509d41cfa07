"""A scored run as a folder made by hand: frames, and every file of answers that a run can have."""

from dataclasses import replace
from pathlib import Path

from frame_files import write_frame
from hand_made import answered

from stkvlm_lib.config import STEPS
from stkvlm_lib.data.frame_sets import FrameSet, read_frames
from stkvlm_lib.evaluation.predictions import (
    HEADLINE,
    ChoicePrediction,
    PairPrediction,
    Prediction,
    further_file,
    write_answers,
)
from stkvlm_lib.files import write_json, write_jsonl
from stkvlm_lib.grammar.questions import FAMILIES
from stkvlm_lib.grammar.wordings import UNKNOWN
from stkvlm_lib.parameters import upper
from stkvlm_lib.qa.contrast import KINDS

EGO, LEFT, RIGHT = [1, 0, 260, 160, 340, 240], [1, 1, 60, 100, 140, 170], [1, 2, 430, 260, 520, 330]
ALL = ("extended", "held_out_wordings", "own_words", "consistency", "mc", "test_unseen", "valid")
"""The names of all further files of answers."""


def make_frames(folder: Path) -> FrameSet:
    """A race in train, valid and test_unseen, three in test, of two views each: gnu front left, kiki back right."""
    races = {"train": [1], "valid": [2], "test": [3, 4, 5], "test_unseen": [6]}
    for split, numbers in races.items():
        for number in numbers:
            where = {"race_seed": number, "track": "mines" if split == "test_unseen" else "abyss"}
            write_frame(folder / split, f"{number}0000", **where, detections=[[EGO, LEFT, RIGHT], [EGO, LEFT]])
    return read_frames(folder)


def answers(frames: FrameSet, split: str, said: dict | None = None) -> list[Prediction]:
    """The ten forms about a split: in its first picture `said` is answered, all others are right."""
    asked = {"base_prediction": "gnu", "base_correct": False, "blind_prediction": "gnu", "blind_correct": False}
    asked |= {"closed_prediction": "gnu", "closed_correct": False, "closed_second": "tux", "closed_margin": 0.1}
    views = frames.views(split)
    rows = [p for i, view in enumerate(views) for p in answered(view, said if i == 0 else None, **asked)]
    return [replace(p, confidence=0.5 + i % 50 / 100) for i, p in enumerate(rows)]


SAID = {"ego": "<b>gnu", ("left_right", "gnu"): "right", "count": "9", "track": "mines"}
"""What is answered of the first scored picture: four wrong answers."""


def make_scored(folder: Path, further: tuple[str, ...] = ALL) -> Path:
    """A run folder without metrics.json, in a folder that also holds its frames."""
    frames = make_frames(folder.parent / f"{folder.name}-frames")
    scored = answers(frames, "test", SAID)
    write_answers(scored, folder / HEADLINE)
    for name in further:
        write_answers(further_answers(name, frames, scored), further_file(folder, name))
    settings = {step: upper(kind(seed=3, frames_dir=str(frames.root))) for step, (_, kind) in STEPS.items()}
    settings["03"] |= {"EPOCHS": 1, "LEARNING_RATE": 0.5}
    settings["04"] |= {"BOOTSTRAP": 100}
    config = {step: {k: v for k, v in given.items() if k != "RUN_DIR"} for step, given in settings.items()}
    write_json(folder / "config.json", config)
    steps = {"03": {"inputs": {"qa/train.jsonl": "0123abcd"}, "artefacts": {"adapter": "feed"}}}
    known = {"run_id": folder.name, "versions": {"torch": "2.0"}, "commit": "abc1234", "device": "CPU", "steps": steps}
    write_json(folder / "manifest.json", known)
    write_jsonl(folder / "train_log.jsonl", [{"step": 1, "loss": 1.0}])
    return folder


def further_answers(name: str, frames: FrameSet, scored: list[Prediction]) -> list:
    """The answers of a further file; a third of them wrong where they are made here."""
    if name in frames.splits:
        return answers(frames, name, {"ego": "gnu"})
    if name == "consistency":
        return [pair(p, kind, i) for i, p in enumerate(scored[::4]) for kind in KINDS]
    if name == "mc":
        return [choice(p, i) for i, p in enumerate(scored[::5])]
    nearer = [in_words(p, "nearer", 0, i) for i, p in enumerate(scored[::3])]
    if name == "extended":
        return nearer
    if name == "held_out_wordings":
        return [replace(p, correct=i % 2 == 0, prediction="tux" if i % 2 == 0 else "gnu") for i, p in enumerate(nearer)]
    own = [in_words(p, "nearer", len(FAMILIES["nearer"].wordings), i + 1) for i, p in enumerate(scored[::3])]
    asked = [in_words(p, "other", 0, i) for i, p in enumerate(scored[:4])]
    nothing = [replace(p, answer=UNKNOWN, prediction=UNKNOWN) for p in asked]
    return [*own, *nothing, *nearer]


def in_words(p: Prediction, family: str, wording: int, number: int) -> Prediction:
    """A question of its own about the same picture, every third answered wrong."""
    given = "tux" if number % 3 else "gnu"
    told = {"answer": "tux", "prediction": given, "correct": given == "tux", "prefix_correct": given == "tux"}
    return replace(p, question=f"Q{number}?", family=family, wording=wording, **told)


def pair(p: Prediction, kind: str, number: int) -> PairPrediction:
    """A contrast pair, every third a control."""
    differ, right = number % 3 > 0, (True, number % 2 == 0)
    given = tuple("left" if ok else "right" for ok in right)
    where = {"image_file": p.image_file, "other_file": p.image_file, "race": p.race, "track": p.track}
    asked = {"pair": f"{kind}{number}", "kind": kind, "family": "left_right", "question": "Is gnu left or right?"}
    return PairPrediction(**where, **asked, answers=("left", "left"), predictions=given, correct=right, differ=differ)


def choice(p: Prediction, number: int) -> ChoicePrediction:
    chosen = 0 if number % 3 else 1
    sentences = tuple(f"There are {n} karts." for n in range(5))
    where = {"image_file": p.image_file, "race": p.race, "track": p.track, "family": "count"}
    told = {"candidates": sentences, "correct_index": 0, "scores": (0.0,) * 5, "blind_chosen": 1}
    return ChoicePrediction(**where, **told, chosen=chosen, correct=chosen == 0, blind_correct=False)
