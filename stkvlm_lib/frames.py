"""What is on disk: frames, their views and detections, read and checked.

A data folder holds `train/ valid/ test/` (or only some of them), or the files of one set directly. A frame is
`NNNNN_info.json` and one picture a view, `NNNNN_VV_im.jpg`. Bundled, rendered and course data share this format.
"""

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from PIL import Image

SPLITS = ("train", "valid", "test")
FLAT_SPLIT = "all"
BOX_FRAME = (600, 400)
"""Width and height in pixels of the frame in which every detection box is given, whatever the picture's size."""
KART_CLASS = 1
_VIEW_NAME = re.compile(r"^(?P<frame>[0-9a-f]+)_(?P<view>\d\d)_im\.jpg$")
_INFO_SUFFIX = "_info.json"


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


@dataclass
class FrameFolder:
    """All frames of a data folder by split, with what was skipped (`(file, reason)`)."""

    root: Path
    splits: dict[str, list[Frame]]
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def views(self, split: str) -> list[View]:
        if split not in self.splits:
            raise FramesError(f"{self.root}: no split {split!r}; it has {', '.join(self.splits)}")
        return [view for frame in self.splits[split] for view in frame.views]

    @cached_property
    def by_image_file(self) -> dict[str, View]:
        return {view.image_file: view for split in self.splits for view in self.views(split)}

    def summary(self) -> list[dict]:
        """One row a split: races, frames, views, tracks, karts."""
        return [
            {
                "split": split,
                "races": len({f.race for f in frames}),
                "frames": len(frames),
                "views": sum(len(f.views) for f in frames),
                "tracks": len({f.track for f in frames}),
                "karts": len({k for f in frames for k in f.karts}),
            }
            for split, frames in self.splits.items()
        ]


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


def read_frames(root: str | Path, *, skip_broken: bool = False, check_images: bool = False) -> FrameFolder:
    """Read a data folder.

    skip_broken: leave out frames with a broken or missing file and list them in `.skipped` instead of raising.
    check_images: decode every picture now rather than when it is first used; skip_broken does so too.
    Raises FramesError for a folder without frames, a broken frame, or a race that stands in two splits.
    """
    root = Path(root)
    if not root.is_dir():
        raise FramesError(f"{root}: no such folder; give a folder with {'/, '.join(SPLITS)}/ or *{_INFO_SUFFIX} files")
    folders = {split: root / split for split in SPLITS if (root / split).is_dir()}
    if not folders:
        folders = {FLAT_SPLIT: root}
    check_images = check_images or skip_broken
    result = FrameFolder(root, {})
    for split, folder in folders.items():
        result.splits[split] = _read_split(folder, split, skip_broken, check_images, result.skipped)
    if not any(result.splits.values()):
        kept = f"; {len(result.skipped)} broken ones were skipped" if result.skipped else ""
        raise FramesError(
            f"{root}: no frames found (no *{_INFO_SUFFIX} in {', '.join(map(str, folders.values()))}){kept}"
        )
    check_races_disjoint(result.splits)
    return result


def _read_split(folder: Path, split: str, skip_broken: bool, check_images: bool, skipped: list) -> list[Frame]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    pictures: dict[str, list[int]] = defaultdict(list)
    for name in names:
        if match := _VIEW_NAME.match(name):
            pictures[match["frame"]].append(int(match["view"]))
    infos = [folder / name for name in names if name.endswith(_INFO_SUFFIX)]

    def read(info: Path) -> Frame | FramesError:
        try:
            return _read_frame(info, split, pictures[info.name.removesuffix(_INFO_SUFFIX)], check_images)
        except FramesError as error:
            return error

    orphans = sorted(set(pictures) - {info.name.removesuffix(_INFO_SUFFIX) for info in infos})
    results = [
        FramesError(f"{folder / (orphan + _INFO_SUFFIX)}: missing, but its pictures are there") for orphan in orphans
    ]
    with ThreadPoolExecutor(max_workers=4) as pool:
        results += list(pool.map(read, infos))
    frames = []
    for result in results:
        if isinstance(result, Frame):
            frames.append(result)
        elif skip_broken:
            path, _, reason = str(result).partition(": ")
            skipped.append((path, reason))
        else:
            raise result
    return frames


def _read_frame(info: Path, split: str, view_indices: Sequence[int], check_images: bool) -> Frame:
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
        frame_id=info.name.removesuffix(_INFO_SUFFIX),
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


def check_races_disjoint(splits: dict[str, Iterable[Frame]]) -> None:
    """Refuse a race that stands in two splits: its pictures are near-copies, so held-out scores would be false.

    Only `race_seed` can tell; without it a race is named after its split folder, which is then taken at its word.
    """
    home: dict[str, Frame] = {}
    for frames in splits.values():
        for frame in frames:
            other = home.setdefault(frame.race, frame)
            if other.split != frame.split:
                raise FramesError(
                    f"race {frame.race} stands in two splits: {other.split}/{other.frame_id} and "
                    f"{frame.split}/{frame.frame_id}; move all its frames into one of them"
                )


def split_by_race(frames: Sequence[Frame], seed: int, held_out: float = 0.15) -> dict[str, list[str]]:
    """Draw whole races into train, valid and test: {split: [race, ...]}, the same for any order of `frames`.

    held_out: share of the races for valid and again for test, at least one each. Needs three races.
    """
    races = sorted({frame.race for frame in frames})
    if len(races) < 3:
        raise FramesError(
            f"{len(races)} race(s) cannot be split into train, valid and test; "
            "add frames of other races, or arrange them in train/ valid/ test/ folders"
        )
    random.Random(f"split-{seed}").shuffle(races)
    n = max(1, round(len(races) * held_out))
    return {"train": sorted(races[2 * n :]), "valid": sorted(races[:n]), "test": sorted(races[n : 2 * n])}
