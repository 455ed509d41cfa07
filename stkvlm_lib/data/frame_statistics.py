"""What frames hold, counted: tables of races, tracks, karts and views, as rows with a column a split."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from stkvlm_lib.data.frames import KART_CLASS, Frame

Splits = Mapping[str, Sequence[Frame]]
Rows = list[dict[str, int | str]]


def split_rows(splits: Splits) -> Rows:
    """One row a split: races, frames, views, tracks, karts."""
    return [
        {
            "split": split,
            "races": len({f.race for f in frames}),
            "frames": len(frames),
            "views": _views(frames),
            "tracks": len({f.track for f in frames}),
            "karts": len({k for f in frames for k in f.karts}),
        }
        for split, frames in splits.items()
    ]


def track_rows(splits: Splits) -> Rows:
    """One row a track: its races of each split, how many karts drive there, its views."""
    return [
        {
            "track": track,
            **_races(splits, frames),
            "karts": len({kart for frame in frames for kart in frame.karts}),
            "views": _views(frames),
        }
        for track, frames in _grouped(splits, lambda frame: [frame.track])
    ]


def kart_rows(splits: Splits) -> Rows:
    """One row a kart: its races of each split, on how many tracks, and the views in which it is detected."""
    seen: Counter[str] = Counter()
    for view in (view for frames in splits.values() for frame in frames for view in frame.views):
        seen.update(view.frame.karts[d.object_id] for d in view.detections if d.class_id == KART_CLASS)
    return [
        {
            "kart": kart,
            **_races(splits, frames),
            "tracks": len({frame.track for frame in frames}),
            "views that show it": seen[kart],
        }
        for kart, frames in _grouped(splits, lambda frame: frame.karts)
    ]


def pair_rows(splits: Splits) -> Rows:
    """One row a split: its (track, kart) pairs, and how many of them train has too."""
    found = {split: track_kart_pairs(frames) for split, frames in splits.items()}
    known = found.get("train", set())
    return [
        {"split": split, "track-kart pairs": len(pairs), "of these in train": len(pairs & known)}
        for split, pairs in found.items()
    ]


def track_kart_pairs(frames: Iterable[Frame]) -> set[tuple[str, str]]:
    return {(frame.track, kart) for frame in frames for kart in frame.karts}


def _views(frames: Iterable[Frame]) -> int:
    return sum(frame.view_count for frame in frames)


def _races(splits: Splits, frames: Iterable[Frame]) -> dict[str, int]:
    races = {(frame.split, frame.race) for frame in frames}
    return {split: sum(home == split for home, _ in races) for split in splits}


def _grouped(splits: Splits, keys: Callable[[Frame], Iterable[str]]) -> list[tuple[str, list[Frame]]]:
    """The frames of every key that `keys` gives for a frame, sorted by key."""
    groups: dict[str, list[Frame]] = defaultdict(list)
    for frames in splits.values():
        for frame in frames:
            for key in keys(frame):
                groups[key].append(frame)
    return sorted(groups.items())
