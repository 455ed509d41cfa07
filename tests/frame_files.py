"""Frames written by hand, as the course and the renderer write them."""

import json
from pathlib import Path

from PIL import Image

LINE_UP = ["tux", "gnu", "kiki"]
NOTHING = object()


def write_frame(folder: Path, frame_id: str, *, views: int = 2, pictures: int | None = None, **changes) -> Path:
    """A frame as the course writes it; `changes` replace keys, NOTHING removes one. Returns its info file."""
    folder.mkdir(parents=True, exist_ok=True)
    box = [1, 0, 260, 160, 340, 240]
    data = {"track": "abyss", "karts": LINE_UP, "detections": [[box]] * views} | changes
    info = folder / f"{frame_id}_info.json"
    info.write_text(json.dumps({key: value for key, value in data.items() if value is not NOTHING}))
    for view in range(views if pictures is None else pictures):
        Image.new("RGB", (30, 20), (40 * view, 90, 10)).save(folder / f"{frame_id}_{view:02d}_im.jpg")
    return info
