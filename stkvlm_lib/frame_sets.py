"""Sets of frames: a data folder read and checked, its splits, its statistics, and the drawing of splits by race."""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from stkvlm_lib.frames import FLAT_SPLIT, INFO_SUFFIX, SPLITS, VIEW_NAME, Frame, FramesError, View, read_frame


@dataclass
class FrameSet:
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


def read_frames(root: str | Path, *, skip_broken: bool = False, check_images: bool = False) -> FrameSet:
    """Read a data folder.

    skip_broken: leave out frames with a broken or missing file and list them in `.skipped` instead of raising.
    check_images: decode every picture now rather than when it is first used; skip_broken does so too.
    Raises FramesError for a folder without frames, a broken frame, or a race that stands in two splits.
    """
    root = Path(root)
    if not root.is_dir():
        raise FramesError(f"{root}: no such folder; give a folder with {'/, '.join(SPLITS)}/ or *{INFO_SUFFIX} files")
    folders = {split: root / split for split in SPLITS if (root / split).is_dir()}
    if not folders:
        folders = {FLAT_SPLIT: root}
    check_images = check_images or skip_broken
    result = FrameSet(root, {})
    for split, folder in folders.items():
        result.splits[split] = _read_split(folder, split, skip_broken, check_images, result.skipped)
    if not any(result.splits.values()):
        kept = f"; {len(result.skipped)} broken ones were skipped" if result.skipped else ""
        raise FramesError(
            f"{root}: no frames found (no *{INFO_SUFFIX} in {', '.join(map(str, folders.values()))}){kept}"
        )
    check_races_disjoint(result.splits)
    return result


def _read_split(folder: Path, split: str, skip_broken: bool, check_images: bool, skipped: list) -> list[Frame]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    pictures: dict[str, list[int]] = defaultdict(list)
    for name in names:
        if match := VIEW_NAME.match(name):
            pictures[match["frame"]].append(int(match["view"]))
    infos = [folder / name for name in names if name.endswith(INFO_SUFFIX)]

    def read(info: Path) -> Frame | FramesError:
        try:
            return read_frame(info, split, pictures[info.name.removesuffix(INFO_SUFFIX)], check_images)
        except FramesError as error:
            return error

    orphans = sorted(set(pictures) - {info.name.removesuffix(INFO_SUFFIX) for info in infos})
    results = [
        FramesError(f"{folder / (orphan + INFO_SUFFIX)}: missing, but its pictures are there") for orphan in orphans
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
