"""What is on disk: frames, their views and detections, read and checked.

A data folder holds `train/ valid/ test/ test_unseen/` (or only some of them), or the files of one set directly. A frame
is `NNNNN_info.json` and one picture a view, `NNNNN_VV_im.jpg`. Bundled, rendered and course data share this format.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Self

from cachetools import LRUCache, cached
from PIL import Image, ImageOps

SPLITS = ("train", "valid", "test", "test_unseen")
"""The split folders of a data folder. `test_unseen`: races whose (track, kart) pairs never occur in train."""
FLAT_SPLIT = "all"
BOX_FRAME = (600, 400)
"""Width and height in pixels of the frame in which every detection box is given, whatever the picture's size."""
RENDERED_SIZE = (300, 200)
"""Width and height of the picture in which `pixels` were counted, where an info file has no `image_size`."""
KART_CLASS = 1
VIEW_NAME = re.compile(r"^(?P<frame>[0-9a-f]+)_(?P<view>\d\d)_im\.jpg$")
INFO_SUFFIX = "_info.json"
MEASURED = ("visible", "pixels", "distance")
"""Keys of rendered frames: one list a view, aligned with its detections."""
IMAGE_CACHE_BYTES = 128 * 2**20
"""How much of decoded pictures is kept in memory, those used last."""
_IMAGES: LRUCache = LRUCache(IMAGE_CACHE_BYTES, getsizeof=lambda image: image.width * image.height * 3)
_compact = json.JSONEncoder(separators=(",", ":")).encode


class FramesError(ValueError):
    """A data folder, frame or picture that cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True, slots=True)
class Detection:
    """One object in a view. `box`: (x1, y1, x2, y2) ints, px in the 600x400 frame, origin top left, y down.

    visible: share 0..1 of its pixels that nothing nearer covers; pixels: those one sees, in px of the 600x400 frame;
    distance: metres from the camera. Each is None where the info file does not say, as in the course's data.
    """

    class_id: int
    object_id: int
    box: tuple[int, int, int, int]
    visible: float | None = None
    pixels: int | None = None
    distance: float | None = None


@dataclass(frozen=True)
class View:
    """One picture of a frame, taken from behind kart `index`."""

    frame: "Frame" = field(repr=False)
    index: int
    detections: tuple[Detection, ...]

    @property
    def image_path(self) -> Path:
        return self.frame.folder / self.frame.picture_name(self.index)

    @cached_property
    def image_file(self) -> str:
        """The picture's path relative to the data folder, as the course's QA files write it."""
        return self.frame.image_file(self.index)

    def image(self, mirrored: bool = False) -> Image.Image:
        """The picture as RGB, or its left-right mirror image."""
        image = load_image(self.image_path)
        return ImageOps.mirror(image) if mirrored else image


@dataclass(frozen=True)
class Frame:
    """One moment of a race: its track, its karts by kart id, and one view a camera.

    prefix: what stands before a picture's name in `image_file`; None means the split folder, as in the course's files.
    rows: the detections of each view as checked JSON text, parsed when `views` is first used.
    """

    folder: Path
    split: str
    frame_id: str
    track: str
    karts: tuple[str, ...]
    race: str
    prefix: str | None = None
    rows: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @cached_property
    def views(self) -> list[View]:
        return [View(self, index, _detections(text)) for index, text in enumerate(self.rows)]

    @property
    def view_count(self) -> int:
        """The number of views, without parsing them."""
        return len(self.rows) or len(self.views)

    @property
    def info_path(self) -> Path:
        return self.folder / f"{self.frame_id}{INFO_SUFFIX}"

    def picture_name(self, view: int) -> str:
        return f"{self.frame_id}_{view:02d}_im.jpg"

    @property
    def image_prefix(self) -> str:
        if self.prefix is None:
            return "" if self.split == FLAT_SPLIT else f"{self.split}/"
        return self.prefix

    def image_file(self, view: int) -> str:
        """A picture's name in question files: its path relative to the data folder."""
        return f"{self.image_prefix}{self.picture_name(view)}"

    def moved(self, **changes: str) -> Self:
        """The same frame with another split, race or prefix."""
        other = replace(self, **changes)
        if not self.rows:
            other.views.extend(replace(view, frame=other) for view in self.views)
        return other


def load_image(path: Path) -> Image.Image:
    """A picture as RGB, a copy of one's own. Pictures used lately come from memory unless their file has changed.

    Raises FramesError naming the file when it is missing or broken.
    """
    try:
        stat = path.stat()
    except OSError:
        return decode_image(path)
    return _kept_image(path, stat.st_mtime_ns, stat.st_size).copy()


@cached(_IMAGES, key=lambda path, *version: (str(path), *version), lock=Lock())
def _kept_image(path: Path, mtime_ns: int, size: int) -> Image.Image:
    return decode_image(path)


def decode_image(path: Path) -> Image.Image:
    """A picture as RGB, decoded from its file. Raises FramesError naming the file when it is missing or broken."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise FramesError(f"{path}: picture is missing; restore it (SKIP_BROKEN leaves out such frames)") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise FramesError(
            f"{path}: picture cannot be decoded ({error}); restore it (SKIP_BROKEN leaves out such frames)"
        ) from None


@dataclass(frozen=True)
class Info:
    """What an info file says, checked. `rows`: the detections of each view as JSON text."""

    track: str
    karts: tuple[str, ...]
    race_seed: int | str | None
    rows: tuple[str, ...]


def read_info(path: Path) -> Info:
    """Read and check an info file. Raises FramesError naming the file and what is wrong with it."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise FramesError(f"{path}: not readable as JSON ({error}); restore it, or skip broken frames") from None
    if not isinstance(data, dict):
        raise FramesError(f"{path}: holds a {type(data).__name__}, not an object with track, karts and detections")
    for key, kind in (("track", str), ("karts", list), ("detections", list)):
        if not isinstance(data.get(key), kind):
            raise FramesError(f"{path}: key {key!r} is missing or not a {kind.__name__}")
    for key, kind in (("karts", str), ("detections", list)):
        if not all(isinstance(item, kind) for item in data[key]):
            raise FramesError(f"{path}: key {key!r} holds something that is not a {kind.__name__}")
    karts = data["karts"]
    views = [[_row(path, view, row, karts) for row in rows] for view, rows in enumerate(data["detections"])]
    if any(key in data for key in MEASURED):
        columns = [_measured(path, data, key) for key in MEASURED]
        views = [
            [[*row, *measured] for row, *measured in zip(*view, strict=True)]
            for view in zip(views, *columns, strict=True)
        ]
    return Info(data["track"], tuple(karts), data.get("race_seed"), tuple(map(_compact, views)))


def make_frame(path: Path, info: Info, split: str, view_indices: Sequence[int]) -> Frame:
    """The frame of an info file and the pictures beside it. Raises FramesError when a view lacks its picture."""
    n = len(info.rows)
    if sorted(view_indices) != list(range(n)):
        missing = [f"{view:02d}" for view in range(n) if view not in view_indices]
        what = f"picture of view {', '.join(missing)} is missing" if missing else "the counts differ"
        raise FramesError(f"{path}: {n} detection lists but {len(view_indices)} pictures beside it ({what})")
    # without a seed, the folder, the track and the karts in order tell races apart, as in the course's data
    named = info.race_seed is not None
    race = f"race-{info.race_seed}" if named else f"{split}:{info.track}:{','.join(info.karts)}"
    frame_id = path.name.removesuffix(INFO_SUFFIX)
    return Frame(path.parent, split, frame_id, info.track, info.karts, race, rows=info.rows)


def read_frame(info: Path, split: str, view_indices: Sequence[int], check_images: bool) -> Frame:
    """One frame from its info file and pictures; check_images decodes them now. Raises FramesError."""
    frame = make_frame(info, read_info(info), split, view_indices)
    if check_images:
        check_pictures(frame)
    return frame


def check_pictures(frame: Frame) -> None:
    """Decode every picture from its file. Raises FramesError naming the first that is broken."""
    for view in range(frame.view_count):
        decode_image(frame.folder / frame.picture_name(view))


def _row(info: Path, view: int, row: Sequence[Any], karts: Sequence[str]) -> list[int]:
    """class, object id, x1, y1, x2, y2"""
    try:
        class_id, object_id, x1, y1, x2, y2 = map(int, row)
    except (TypeError, ValueError, OverflowError):
        raise FramesError(
            f"{info}: view {view}: detection {row!r} is not six numbers (class, object id, x1, y1, x2, y2)"
        ) from None
    if class_id == KART_CLASS and not 0 <= object_id < len(karts):
        raise FramesError(f"{info}: view {view}: unknown kart id {object_id}; `karts` lists {len(karts)}")
    return [class_id, object_id, x1, y1, x2, y2]


def _measured(info: Path, data: dict[str, Any], key: str) -> list[list[float | None]]:
    """A key of rendered frames, one list a view; all None where the file lacks it. Pixels are scaled to 600x400."""
    lengths = [len(rows) for rows in data["detections"]]
    if key not in data:
        return [[None] * n for n in lengths]
    views = data[key]
    if not isinstance(views, list) or [len(v) if isinstance(v, list) else v for v in views] != lengths:
        raise FramesError(
            f"{info}: {key!r} is not one list a view with one value a detection ({lengths} values in this frame); "
            "render it again"
        )
    if not all(value is None or type(value) in (int, float) for view in views for value in view):
        raise FramesError(f"{info}: {key!r} holds something that is not a number; render it again")
    return [[_scaled(info, data, value) for value in view] for view in views] if key == "pixels" else views


def _scaled(info: Path, data: dict[str, Any], pixels: float | None) -> int | None:
    """Pixels of the rendered picture -> pixels of the 600x400 frame."""
    size = data.get("image_size", RENDERED_SIZE)
    try:
        width, height = size
        return None if pixels is None else round(pixels * BOX_FRAME[0] * BOX_FRAME[1] / (width * height))
    except (TypeError, ValueError, ZeroDivisionError):
        raise FramesError(f"{info}: image_size {size!r} is not the width and height of a picture") from None


def _detections(rows: str) -> tuple[Detection, ...]:
    """What `rows` of a frame holds for one view; the measured values stand last where there are any."""
    return tuple(Detection(row[0], row[1], tuple(row[2:6]), *row[6:]) for row in json.loads(rows))
