"""A small run made by hand for the tests of the explorer: frames, questions, answers and an adapter nobody trained."""

import json
from pathlib import Path

from PIL import Image
from tiny import copy_frames, fresh

from stkvlm_lib.config import ROOT
from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.files import write_json, write_jsonl
from stkvlm_lib.qa.qa_sets import COURSE, Record, make_records
from stkvlm_lib.vlm.adapter import save_adapter


def make_run(folder: Path, *, adapter: bool = True) -> Path:
    """A run on a few bundled frames; every third question of test was answered wrong."""
    frames = folder.parent / f"{folder.name}-frames"
    copy_frames(copy_frames(frames, "valid", 2), "test", 6)
    read = read_frames(frames)
    for split in ("valid", "test"):
        write_jsonl(folder / "qa" / COURSE.format(split), map(vars, make_records(read, split)))
    write_jsonl(folder / "predictions.jsonl", map(answered, range(10_000), make_records(read, "test")))
    write_json(folder / "config.json", {"02": {"FRAMES_DIR": str(frames)}})
    if adapter:
        save_adapter(fresh(ROOT / "models" / "embedded"), folder / "adapter", Image.new("RGB", (150, 100)))
        record = json.loads((folder / "adapter" / "stkvlm.json").read_text())
        assert record["base"]["name"] == "embedded"
    return folder


def answered(number: int, record: Record) -> dict:
    """A line of predictions.jsonl, as far as the explorer reads it."""
    asked = {"image_file": record.image_file, "question": record.question, "answer": record.answer}
    if number % 3:
        return asked | {"prediction": record.answer, "correct": True, "confidence": 0.9}
    return asked | {"prediction": "nonsense", "correct": False, "confidence": 0.4}
