"""What is on disk: frames, their views and detections, read and checked.

A data folder holds `train/ valid/ test/` (or only some of them), or the files of one set directly. A frame is
`NNNNN_info.json` and one picture a view, `NNNNN_VV_im.jpg`. Bundled, rendered and course data share this format.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from PIL import Image

SPLITS = ("train", "valid", "test")
FLAT_SPLIT = "all"
BOX_FRAME = (600, 400)
"""Width and height in pixels of the frame in which every detection box is given, whatever the picture's size."""
KART_CLASS = 1
VIEW_NAME = re.compile(r"^(?P<frame>[0-9a-f]+)_(?P<view>\d\d)_im\.jpg$")
INFO_SUFFIX = "_info.json"


class FramesError(ValueError):
    """A data folder, frame or picture that cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True)
class Detection:
    """One object in a view. `box`: (x1, y1, x2, y2) ints, px in the 600x400 frame, origin top left, y down."""

    class_id: int
    object_id: int
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class View:
    """One picture of a frame, taken from behind kart `index`."""

    frame: "Frame" = field(repr=False)
    index: int
    detections: tuple[Detection, ...]

    @cached_property
    def image_path(self) -> Path:
        return self.frame.folder / f"{self.frame.frame_id}_{self.index:02d}_im.jpg"

    @cached_property
    def image_file(self) -> str:
        """The picture's path relative to the data folder, as the course's QA files write it."""
        prefix = "" if self.frame.split == FLAT_SPLIT else f"{self.frame.split}/"
        return f"{prefix}{self.image_path.name}"

    def image(self) -> Image.Image:
        return load_image(self.image_path)


@dataclass(frozen=True)
class Frame:
    """One moment of a race: its track, its karts by kart id, and one view a camera."""

    folder: Path
    split: str
    frame_id: str
    track: str
    karts: tuple[str, ...]
    race: str
    views: list[View] = field(default_factory=list, repr=False, compare=False)


def load_image(path: Path) -> Image.Image:
    """Open a picture as RGB. Raises FramesError naming the file when it is missing or broken."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise FramesError(f"{path}: picture is missing; restore it (SKIP_BROKEN leaves out such frames)") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise FramesError(
            f"{path}: picture cannot be decoded ({error}); restore it (SKIP_BROKEN leaves out such frames)"
        ) from None


def read_frame(info: Path, split: str, view_indices: Sequence[int], check_images: bool) -> Frame:
    try:
        data = json.loads(info.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise FramesError(f"{info}: not readable as JSON ({error}); restore it, or skip broken frames") from None
    if not isinstance(data, dict):
        raise FramesError(f"{info}: holds a {type(data).__name__}, not an object with track, karts and detections")
    for key, kind in (("track", str), ("karts", list), ("detections", list)):
        if not isinstance(data.get(key), kind):
            raise FramesError(f"{info}: key {key!r} is missing or not a {kind.__name__}")
    for key, kind in (("karts", str), ("detections", list)):
        if not all(isinstance(item, kind) for item in data[key]):
            raise FramesError(f"{info}: key {key!r} holds something that is not a {kind.__name__}")
    detections, karts = data["detections"], tuple(data["karts"])
    expected = list(range(len(detections)))
    if sorted(view_indices) != expected:
        missing = [f"{view:02d}" for view in expected if view not in view_indices]
        what = f"picture of view {', '.join(missing)} is missing" if missing else "the counts differ"
        raise FramesError(
            f"{info}: {len(detections)} detection lists but {len(view_indices)} pictures beside it ({what})"
        )
    frame = Frame(
        folder=info.parent,
        split=split,
        frame_id=info.name.removesuffix(INFO_SUFFIX),
        track=data["track"],
        karts=karts,
        race=_race_name(data, split),
    )
    for index, rows in enumerate(detections):
        frame.views.append(View(frame, index, tuple(_detection(info, index, row, karts) for row in rows)))
    if check_images:
        for view in frame.views:
            view.image()
    return frame


def _race_name(data: dict, split: str) -> str:
    """`race_seed` where a renderer wrote it, else (split folder, track, karts in order)."""
    if data.get("race_seed") is not None:
        return f"race-{data['race_seed']}"
    return f"{split}:{data['track']}:{','.join(data['karts'])}"


def _detection(info: Path, view: int, row: Sequence[int], karts: Sequence[str]) -> Detection:
    try:
        class_id, object_id, x1, y1, x2, y2 = (int(value) for value in row)
    except (TypeError, ValueError, OverflowError):
        raise FramesError(
            f"{info}: view {view}: detection {row!r} is not six numbers (class, object id, x1, y1, x2, y2)"
        ) from None
    if class_id == KART_CLASS and not 0 <= object_id < len(karts):
        raise FramesError(f"{info}: view {view}: unknown kart id {object_id}; `karts` lists {len(karts)}")
    return Detection(class_id, object_id, (x1, y1, x2, y2))
