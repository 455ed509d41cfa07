"""What frames hold, counted: tables of races, tracks, karts and views, as rows with a column a split."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter

from stkvlm_lib.data.frames import KART_CLASS, Frame
from stkvlm_lib.grouping import grouped

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
            "tracks": len(tracks_of(frames)),
            "karts": len(karts_of(frames)),
        }
        for split, frames in splits.items()
    ]


def track_rows(splits: Splits) -> Rows:
    """One row a track: its races of each split, how many karts drive there, its views."""
    return [
        {"track": track, **_races(splits, frames), "karts": len(karts_of(frames)), "views": _views(frames)}
        for track, frames in sorted(grouped(_all(splits), attrgetter("track")).items())
    ]


def kart_rows(splits: Splits) -> Rows:
    """One row a kart: its races of each split, on how many tracks, and the views in which it is detected."""
    frames, rows = _all(splits), []
    views = [view for frame in frames for view in frame.views]
    seen = Counter(v.frame.karts[d.object_id] for v in views for d in v.detections if d.class_id == KART_CLASS)
    for kart in sorted(karts_of(frames)):
        mine = [frame for frame in frames if kart in frame.karts]
        told = {"tracks": len(tracks_of(mine)), "views that show it": seen[kart]}
        rows.append({"kart": kart, **_races(splits, mine), **told})
    return rows


def pair_rows(splits: Splits) -> Rows:
    """One row a split: its (track, kart) pairs, and how many of them train has too."""
    found = {split: track_kart_pairs(frames) for split, frames in splits.items()}
    known = found.get("train", set())
    return [
        {"split": split, "track-kart pairs": len(pairs), "of these in train": len(pairs & known)}
        for split, pairs in found.items()
    ]


def tracks_of(frames: Iterable[Frame]) -> set[str]:
    return {frame.track for frame in frames}


def karts_of(frames: Iterable[Frame]) -> set[str]:
    return {kart for frame in frames for kart in frame.karts}


def track_kart_pairs(frames: Iterable[Frame]) -> set[tuple[str, str]]:
    return {(frame.track, kart) for frame in frames for kart in frame.karts}


def _all(splits: Splits) -> list[Frame]:
    return [frame for frames in splits.values() for frame in frames]


def _views(frames: Iterable[Frame]) -> int:
    return sum(frame.view_count for frame in frames)


def _races(splits: Splits, frames: Iterable[Frame]) -> dict[str, int]:
    races = {(frame.split, frame.race) for frame in frames}
    return {split: sum(home == split for home, _ in races) for split in splits}
