"""What is on disk: frames, their views and detections.

A data folder holds `train/ valid/ test/ test_unseen/` (or only some of them), or the files of one set directly. A frame
is `NNNNN_info.json` and one picture a view, `NNNNN_VV_im.jpg` (or `.jpeg`, `.png`, in any case). Bundled, rendered and
course data share this format.
"""

import json
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from PIL import Image, ImageOps

from stkvlm_lib.data.pictures import FramesError as FramesError  # what reading frames raises is looked for here
from stkvlm_lib.data.pictures import load_image

SPLITS = ("train", "valid", "test", "test_unseen")
"""The split folders of a data folder. `test_unseen`: races whose (track, kart) pairs never occur in train."""
FLAT_SPLIT = "all"
BOX_FRAME = (600, 400)
"""Width and height in pixels of the frame in which every detection box is given, whatever the picture's size."""
KART_CLASS = 1
VIEW_NAME = re.compile(r"^(?P<frame>[0-9a-f]+)_(?P<view>[0-9][0-9])_im\.(jpe?g|png)\Z", re.IGNORECASE)
INFO_SUFFIX = "_info.json"


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
    rows: the detections of each view as checked JSON text, parsed when `views` is first used. outside: how many boxes
    were left out of them that lie wholly outside their picture. pictures: file names where they are not the usual ones.
    """

    folder: Path
    split: str
    frame_id: str
    track: str
    karts: tuple[str, ...]
    race: str
    prefix: str | None = None
    rows: tuple[str, ...] = field(default=(), repr=False, compare=False)
    outside: int = field(default=0, repr=False, compare=False)
    pictures: tuple[str, ...] = field(default=(), repr=False)

    @cached_property
    def views(self) -> list[View]:
        return [View(self, index, _detections(text)) for index, text in enumerate(self.rows)]

    @property
    def view_count(self) -> int:
        """The number of views, without parsing them."""
        return len(self.rows)

    @property
    def info_path(self) -> Path:
        return self.folder / f"{self.frame_id}{INFO_SUFFIX}"

    def picture_name(self, view: int) -> str:
        return self.pictures[view] if self.pictures else f"{self.frame_id}_{view:02d}_im.jpg"

    @property
    def picture_names(self) -> tuple[str, ...]:
        """The file name of each view's picture."""
        return tuple(map(self.picture_name, range(self.view_count)))

    @property
    def image_prefix(self) -> str:
        if self.prefix is None:
            return "" if self.split == FLAT_SPLIT else f"{self.split}/"
        return self.prefix

    def image_file(self, view: int) -> str:
        """A picture's name in question files: its path relative to the data folder."""
        return f"{self.image_prefix}{self.picture_name(view)}"

    def moved(self, **changes: Any) -> Self:
        """The same frame with another split, race or prefix, or other names of its pictures; nothing of it parsed."""
        return replace(self, **changes)


def _detections(rows: str) -> tuple[Detection, ...]:
    """What `rows` of a frame holds for one view; the measured values stand last where there are any."""
    return tuple(Detection(row[0], row[1], tuple(row[2:6]), *row[6:]) for row in json.loads(rows))
