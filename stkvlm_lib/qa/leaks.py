"""What must not stand in two splits: a race, a frame, a picture. Near-copies are counted and shown, not refused.

Copies are found by what is in the files: a frame by its track, karts and boxes, a picture by its decoded pixels, so
that another file name hides nothing. Near-copies differ in few bits of a difference hash (brighter than the pixel to
the left or not, on a 16x16 grid).
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from stkvlm_lib.data.frames import FLAT_SPLIT, Frame, View
from stkvlm_lib.data.pictures import decode_image
from stkvlm_lib.parallel import Workers

GRID = 16
BITS = GRID * GRID
NEAR = BITS // 10
"""Pictures whose hashes differ in at most this many bits count as near-copies."""
_CHUNK = 500


class LeakError(ValueError):
    """The same race, frame or picture in two splits; the message names both places."""


@dataclass(frozen=True)
class NearPair:
    """Two pictures of two splits and the number of hash bits (of 256) in which they differ."""

    bits: int
    first: View
    second: View


@dataclass(frozen=True)
class Comparison:
    """The pictures of one split against those of another.

    near: pictures of `second` with a near-copy in `first`; median: bits to the nearest picture, median over `second`.
    """

    first: str
    second: str
    pictures: int
    near: int
    median: float
    closest: tuple[NearPair, ...]

    def row(self) -> dict:
        """A line of a table."""
        return {
            "pictures of": self.second,
            "against": self.first,
            "n": self.pictures,
            "identical": 0,
            f"near-copies (≤ {NEAR} of {BITS} bits)": self.near,
            "bits to the nearest (median)": round(self.median),
        }


def check_leaks(splits: dict[str, Sequence[Frame]], workers: Workers | None = None, show: int = 6) -> list[Comparison]:
    """Refuse a race, frame or identical picture in two splits; -> each pair of splits compared for near-copies.

    `all`, from which others are drawn, is left out. show: closest pairs kept for each two splits, each of other races.
    Raises LeakError naming both places.
    """
    splits = {split: frames for split, frames in splits.items() if split != FLAT_SPLIT}
    places = [
        (frame, split, str(frame.folder / frame.frame_id)) for split, frames in splits.items() for frame in frames
    ]
    _check_home("race", ((frame.race, split, f"frame {place}") for frame, split, place in places))
    _check_home("frame", ((_content(frame), split, place) for frame, split, place in places))
    views = {split: [view for frame in frames for view in frame.views] for split, frames in splits.items()}
    hashes: dict[str, np.ndarray] = {}
    pictures = []
    for split, shown in views.items():
        digests, hashes[split] = _hashes(shown, workers or Workers(), split)
        pictures += [(digest, split, str(view.image_path)) for digest, view in zip(digests, shown, strict=True)]
    _check_home("picture", pictures)
    return [
        _compare(first, second, views, hashes, show)
        for first, second in combinations(splits, 2)
        if views[first] and views[second]
    ]


def _check_home(what: str, things: Iterable[tuple[str | None, str, str]]) -> None:
    """things: (key, split, place). Each thing, told by its key, belongs to the split where it was first met."""
    home: dict[str, tuple[str, str]] = {}
    for key, split, place in things:
        if key is None:
            continue
        other, first = home.setdefault(key, (split, place))
        if other != split:
            name = f"{what} {key}" if what == "race" else f"the same {what}"
            raise LeakError(
                f"{name} stands in two splits: {first} ({other}) and {place} ({split}); keep it in one of them"
            )


def _content(frame: Frame) -> str | None:
    """A key of what a frame says, None where it shows no object and so cannot be told from others."""
    boxes = [[(d.class_id, d.object_id, d.box) for d in view.detections] for view in frame.views]
    return repr((frame.track, frame.karts, boxes)) if any(boxes) else None


def _hashes(views: Sequence[View], workers: Workers, split: str) -> tuple[list[str], np.ndarray]:
    """-> a digest of each picture's pixels; their difference hashes, (N, 4) uint64."""
    paths = [view.image_path for view in views]
    chunks = [(paths[start : start + _CHUNK],) for start in range(0, len(paths), _CHUNK)]
    hashed = workers.run(_hash_files, chunks, f"compare pictures of {split}", len(chunks))
    found = [pair for chunk in hashed for pair in chunk]
    return [digest for digest, _ in found], np.array([bits for _, bits in found], np.uint64).reshape(-1, BITS // 64)


def _hash_files(paths: Sequence[Path]) -> list[tuple[str, np.ndarray]]:
    return [
        (hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest(), difference_hash(image))
        for image in map(decode_image, paths)
    ]


def difference_hash(image: Image.Image) -> np.ndarray:
    """(4,) uint64: one bit for each cell of a 16x16 grid, set where it is brighter than its left neighbour."""
    grey = np.asarray(image.convert("L").resize((GRID + 1, GRID), Image.Resampling.BOX), np.int16)
    return np.packbits(grey[:, 1:] > grey[:, :-1]).view(np.uint64)


def _compare(
    first: str, second: str, views: dict[str, list[View]], hashes: dict[str, np.ndarray], show: int
) -> Comparison:
    pairs = []
    for row, view in zip(hashes[second], views[second], strict=True):
        differing = np.bitwise_count(hashes[first] ^ row).sum(1, dtype=np.int64)
        nearest = int(differing.argmin())
        pairs.append(NearPair(int(differing[nearest]), views[first][nearest], view))
    bits = [pair.bits for pair in pairs]
    # of other races each: the views of one moment look alike and would fill the picture
    closest: dict[tuple[str, str], NearPair] = {}
    for pair in sorted(pairs, key=lambda pair: (pair.bits, pair.second.image_file)):
        closest.setdefault((pair.first.frame.race, pair.second.frame.race), pair)
    shown = tuple(closest.values())[:show]
    return Comparison(first, second, len(pairs), sum(n <= NEAR for n in bits), float(np.median(bits)), shown)
