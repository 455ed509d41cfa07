"""Sets of frames: one data folder or several, read and checked; statistics, and splits by race.

Bundled, rendered and course frames all come as a `FrameSet` from `read_frames`.
"""

import os
import posixpath
import random
from collections import Counter, UserDict, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from pathlib import Path

from stkvlm_lib.data import frame_statistics
from stkvlm_lib.data.frame_statistics import Rows, track_kart_pairs
from stkvlm_lib.data.frames import BOX_FRAME, FLAT_SPLIT, INFO_SUFFIX, SPLITS, Frame, FramesError, View
from stkvlm_lib.data.info_files import read_folder
from stkvlm_lib.data.pictures import BrokenFile
from stkvlm_lib.files import one_line
from stkvlm_lib.grouping import grouped

_MANY_BOXES = 20
"""So many boxes, and one kart near the middle of each view, do not lie in one quarter by chance."""


@dataclass(frozen=True, eq=False)
class FrameSet:
    """Frames by split. As a collection it holds views: `len` counts pictures, iteration gives them in a fixed order.

    root: the data folder, or several as FRAMES_DIR names them. skipped: (file, reason) of each frame left out.
    """

    root: Path
    splits: Mapping[str, tuple[Frame, ...]]
    skipped: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return sum(frame.view_count for frame in self.frames())

    def __iter__(self) -> Iterator[View]:
        return (view for frame in self.frames() for view in frame.views)

    def frames(self, split: str | None = None) -> list[Frame]:
        """The frames of a split, or of all. Raises FramesError for a split that is not there."""
        if split is None:
            return [frame for frames in self.splits.values() for frame in frames]
        if split not in self.splits:
            raise FramesError(f"{self.root}: no split {split!r}; it has {', '.join(self.splits)}")
        return list(self.splits[split])

    def views(self, split: str | None = None) -> list[View]:
        """The views of a split, or of all."""
        return [view for frame in self.frames(split) for view in frame.views]

    def races(self, split: str | None = None) -> dict[str, list[Frame]]:
        """The frames of each race, in their order."""
        return grouped(self.frames(split), attrgetter("race"))

    @cached_property
    def by_image_file(self) -> Mapping[str, View]:
        """Each view by its picture's name in question files; a frame is parsed when one of its views is asked for."""
        return _Pictures({f.image_file(view): (f, view) for f in self.frames() for view in range(f.view_count)})

    def find(self, image_file: str) -> View | None:
        """The view that a question file means, also by a path of Windows or with ./, or by another of the endings."""
        name = posixpath.normpath(image_file.replace("\\", "/"))
        return self.by_image_file.get(name) or self.by_image_file.get(self._by_stem.get(_stem(name), ""))

    @cached_property
    def _by_stem(self) -> dict[str, str]:
        return {_stem(name): name for name in self.by_image_file}

    def drawn_by_race(self, seed: int) -> "FrameSet":
        """A set without split folders with its races drawn into train, valid and test; any other as it is."""
        if FLAT_SPLIT not in self.splits:
            return self
        home = {race: split for split, races in split_by_race(self.frames(), seed).items() for race in races}
        splits = {split: [] for split in ("train", "valid", "test")}
        for frame in self.frames():
            splits[home[frame.race]].append(frame.moved(split=home[frame.race], prefix=frame.image_prefix))
        return replace(self, splits={split: tuple(frames) for split, frames in splits.items()})

    def outside(self) -> Rows:
        """One row a frame with boxes wholly outside their pictures, which therefore count for nothing."""
        return [
            {"file": one_line(frame.info_path), "boxes left out": frame.outside}
            for frame in self.frames()
            if frame.outside
        ]

    def summary(self) -> Rows:
        """One row a split: races, frames, views, tracks, karts. Parses nothing."""
        return frame_statistics.split_rows(self.splits)

    def statistics(self) -> dict[str, Rows]:
        """Three tables: tracks and karts with a column a split, and pairs (of track and kart, and in train)."""
        return {
            "tracks": frame_statistics.track_rows(self.splits),
            "karts": frame_statistics.kart_rows(self.splits),
            "pairs": frame_statistics.pair_rows(self.splits),
        }

    def line_ups(self, split: str | None = None) -> dict[str, Counter[str]]:
        """{track: {kart: number of races it drives there}}"""
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        frames = self.frames(split)
        for track, _, kart in sorted({(frame.track, frame.race, kart) for frame in frames for kart in frame.karts}):
            counts[track][kart] += 1
        return dict(counts)


def _stem(image_file: str) -> str:
    return posixpath.splitext(image_file)[0]


class _Pictures(UserDict):
    """Views by picture name, kept as (frame, index): those of a frame are made when the first is asked for."""

    def __getitem__(self, image_file: str) -> View:
        frame, view = self.data[image_file]
        return frame.views[view]


def read_frames(
    root: str | Path | Sequence[str | Path], *, skip_broken: bool = False, check_images: bool = False
) -> FrameSet:
    """Read a data folder, or several, which are then joined.

    skip_broken: leave out frames with a broken or missing file and list them in `.skipped` instead of raising.
    check_images: decode every picture now rather than when it is first used; skip_broken does so too.
    Raises FramesError for a folder without frames or with some that are in no split, a broken frame, or a race that
    stands in two splits.
    """
    roots = [Path(root)] if isinstance(root, str | Path) else [Path(one) for one in root]
    sets = [_read_folder(one, skip_broken, check_images or skip_broken) for one in roots]
    return sets[0] if len(sets) == 1 else join(sets)


def _read_folder(root: Path, skip_broken: bool, check_images: bool) -> FrameSet:
    if not root.is_dir():
        raise FramesError(f"{root}: no such folder; give a folder with {'/, '.join(SPLITS)}/ or *{INFO_SUFFIX} files")
    folders = {split: root / split for split in SPLITS if (root / split).is_dir()} or {FLAT_SPLIT: root}
    if left_out := [home for home in _homes(root, "") + _homes(root, "*/") if home not in folders.values()]:
        raise FramesError(
            f"{left_out[0]}: frames lie here that would be left out; move them into one of {'/, '.join(SPLITS)}/, "
            f"or out of {root}"
        )
    splits, skipped = {}, []
    for split, folder in folders.items():
        results = read_folder(folder, split, check_images)
        splits[split] = tuple(result for result in results if isinstance(result, Frame))
        errors = [result for result in results if isinstance(result, BrokenFile)]
        if errors and not skip_broken:
            raise errors[0]
        skipped += [(error.file, error.reason) for error in errors]
    if not any(frame.view_count for frames in splits.values() for frame in frames):
        kept = f"; {len(skipped)} broken ones were skipped" if skipped else ""
        below = "".join(f", but in {home}" for home in _homes(root, "*/*/")[:1])
        where = ", ".join(map(str, folders.values()))
        raise FramesError(
            f"{root}: no frames found (no *{INFO_SUFFIX} with pictures in {where}{below}){kept}; "
            "give the folder that holds them"
        )
    check_races_disjoint(splits)
    check_unseen(splits)
    folder = FrameSet(root, splits, tuple(skipped))
    check_box_frame(folder)
    return folder


def _homes(root: Path, below: str) -> list[Path]:
    """The folders with info files at a level below the root, `` or a pattern such as `*/`; hidden ones are no data."""
    found = [path.relative_to(root) for path in root.glob(f"{below}*{INFO_SUFFIX}")]
    return sorted({root / path.parent for path in found if not any(part.startswith(".") for part in path.parts)})


def check_races_disjoint(splits: Mapping[str, Iterable[Frame]]) -> None:
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


def check_unseen(splits: Mapping[str, Iterable[Frame]]) -> None:
    """Refuse a race of `test_unseen` in which a kart drives a track that it drives in train."""
    seen = track_kart_pairs(splits.get("train", ()))
    for frame in splits.get("test_unseen", ()):
        if again := sorted(kart for kart in frame.karts if (frame.track, kart) in seen):
            raise FramesError(
                f"test_unseen/{frame.frame_id}: {', '.join(again)} on {frame.track} is in train too; "
                "move the race to test/"
            )


def check_box_frame(folder: FrameSet) -> None:
    """Refuse boxes that all lie in the top left quarter: they are in pixels of the pictures, or in shares of them."""
    width, height = BOX_FRAME
    corners = (detection.box[2:] for view in folder for detection in view.detections)
    if any(x > width / 2 or y > height / 2 for x, y in corners):
        return
    if (n := sum(len(view.detections) for view in folder)) >= _MANY_BOXES:
        raise FramesError(
            f"{folder.root}: all {n:,} boxes lie in the top left quarter of the {width}x{height} px in which boxes are "
            f"given, whatever the size of the pictures; scale them to {width}x{height}"
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


def join(sets: Sequence[FrameSet]) -> FrameSet:
    """Several sets as one, the same for any order of `sets`. A picture's name begins with its set's short name.

    Refused: sets with and without split folders together, and one race (seed, track, karts) in different splits.
    Frames of `test_unseen` with a (track, kart) pair that another set has in train are left out, listed in `.skipped`.
    """
    names = _short_names([one.root for one in sets])
    sets = sorted(sets, key=lambda one: names[one.root])
    _check_joinable(sets)
    races = _race_names(sets, names)
    seen = track_kart_pairs(frame for one in sets for frame in one.splits.get("train", ()))
    splits: dict[str, list[Frame]] = {s: [] for s in (*SPLITS, FLAT_SPLIT) if any(s in one.splits for one in sets)}
    skipped = [skip for one in sets for skip in one.skipped]
    for one in sets:
        for frame in one.frames():
            if frame.split == "test_unseen" and not seen.isdisjoint(track_kart_pairs([frame])):
                reason = "a (track, kart) pair of this unseen race is in train of another set"
                skipped.append((str(frame.info_path), reason))
                continue
            prefix = f"{names[one.root]}/{frame.image_prefix}"
            splits[frame.split].append(frame.moved(prefix=prefix, race=races[one.root, frame.race]))
    root = Path(os.pathsep.join(str(one.root) for one in sets))
    return FrameSet(root, {split: tuple(frames) for split, frames in splits.items() if frames}, tuple(skipped))


def _short_names(roots: Sequence[Path]) -> dict[Path, str]:
    """The last part of each folder's path, with as many before it as tell it from the others."""
    if len({root.resolve() for root in roots}) < len(roots):
        raise FramesError(f"{', '.join(map(str, roots))}: the same folder twice; name each once")
    names = {}
    for root in roots:
        parts, others = root.absolute().parts, [other.absolute().parts for other in roots if other != root]
        length = next(n for n in range(1, len(parts) + 1) if all(other[-n:] != parts[-n:] for other in others))
        names[root] = "/".join(parts[-length:])
    return names


def _check_joinable(sets: Sequence[FrameSet]) -> None:
    flat = [str(one.root) for one in sets if FLAT_SPLIT in one.splits]
    if flat and len(flat) < len(sets):
        raise FramesError(
            f"{', '.join(flat)}: has no split folders, as the others have; move its races into train/ valid/ test/"
        )
    home: dict[tuple, list[tuple[Path, Frame]]] = defaultdict(list)
    for one in sets:
        for race, (frame, *_) in one.races().items():
            places = home[race.removeprefix(f"{frame.split}:"), frame.track, frame.karts]
            for root, other in places:
                if root != one.root and other.split != frame.split:
                    raise FramesError(
                        f"the race of {other.info_path} stands in {frame.info_path} too, in another split; "
                        "its pictures are near-copies: leave one of the sets out, or move the race"
                    )
            places.append((one.root, frame))


def _race_names(sets: Sequence[FrameSet], names: Mapping[Path, str]) -> dict[tuple[Path, str], str]:
    """A race keeps its name unless another set gives it to a race of another track or line-up."""
    firsts = {(one.root, race): frames[0] for one in sets for race, frames in one.races().items()}
    meant: dict[str, set] = defaultdict(set)
    for (_, race), frame in firsts.items():
        meant[race].add((frame.track, frame.karts))
    return {(root, race): race if len(meant[race]) == 1 else f"{names[root]}/{race}" for root, race in firsts}
