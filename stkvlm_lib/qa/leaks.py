"""What must not stand in two splits: a race, a frame, a picture. Near-copies are counted and shown, not refused.

Copies are found by what is in the files: a frame by its track, karts and boxes, a picture by its decoded pixels, so
that another file name hides nothing. Near-copies differ in few bits of a difference hash (brighter than the pixel to
the left or not, on a 16x16 grid).
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

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
    _check_home("race", ((f.race, s, f"frame {_place(f)}") for s, frames in splits.items() for f in frames))
    _check_home("frame", ((_content(f), s, _place(f)) for s, frames in splits.items() for f in frames))
    views = {split: [view for frame in frames for view in frame.views] for split, frames in splits.items()}
    hashes = {split: _hashes(shown, workers or Workers(), split) for split, shown in views.items()}
    digests = {split: zip(hashes[split][0], shown, strict=True) for split, shown in views.items()}
    _check_home("picture", ((digest, s, str(v.image_path)) for s, found in digests.items() for digest, v in found))
    return [
        _compare(first, views[first], hashes[first][1], second, views[second], hashes[second][1], show)
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


def _place(frame: Frame) -> str:
    return f"{frame.folder / frame.frame_id}"


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


def _hash_files(paths: Sequence) -> list[tuple[str, np.ndarray]]:
    return [(_digest(image), difference_hash(image)) for image in map(decode_image, paths)]


def _digest(image: Image.Image) -> str:
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()


def difference_hash(image: Image.Image) -> np.ndarray:
    """(4,) uint64: one bit for each cell of a 16x16 grid, set where it is brighter than its left neighbour."""
    grey = np.asarray(image.convert("L").resize((GRID + 1, GRID), Image.Resampling.BOX), np.int16)
    return np.packbits(grey[:, 1:] > grey[:, :-1]).view(np.uint64)


def _compare(
    first: str,
    views: Sequence[View],
    hashes: np.ndarray,
    second: str,
    others: Sequence[View],
    theirs: np.ndarray,
    n: int,
) -> Comparison:
    nearest = [_nearest(row, hashes) for row in theirs]
    pairs = [NearPair(bits, views[i], other) for (bits, i), other in zip(nearest, others, strict=True)]
    bits = [bits for bits, _ in nearest]
    closest = tuple(_apart(sorted(pairs, key=lambda pair: (pair.bits, pair.second.image_file)), n))
    return Comparison(first, second, len(others), sum(b <= NEAR for b in bits), float(np.median(bits)), closest)


def _nearest(row: np.ndarray, hashes: np.ndarray) -> tuple[int, int]:
    """-> bits to the nearest of `hashes`, its index."""
    bits = np.bitwise_count(hashes ^ row).sum(1, dtype=np.int64)
    index = int(bits.argmin())
    return int(bits[index]), index


def _apart(pairs: Iterable[NearPair], n: int) -> Iterator[NearPair]:
    """The first n pairs of different races: the views of one moment look alike and would fill the picture."""
    seen: Counter = Counter()
    for pair in pairs:
        races = pair.first.frame.race, pair.second.frame.race
        if not seen[races]:
            yield pair
        seen[races] += 1
        if len(seen) == n:
            return
