"""Info files: read, and every value checked that something relies on; what cannot be is refused by file and key."""

import json
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from stkvlm_lib.data.frames import BOX_FRAME, INFO_SUFFIX, KART_CLASS, Frame
from stkvlm_lib.data.pictures import BrokenFile, decode_image
from stkvlm_lib.files import one_line, parse_json

RENDERED_SIZE = (300, 200)
"""Width and height of the picture in which `pixels` were counted, where an info file has no `image_size`."""
MEASURED = {"visible": 1.0, "pixels": 1e9, "distance": 1e6}
"""Keys of rendered frames: one list a view, aligned with its detections; the largest value that each may have."""
MAX_BYTES = 16 << 20
MAX_KARTS, MAX_DETECTIONS, MAX_NAME = 100, 1_000, 80
"""Limits that no race comes near: bytes of a file, karts, detections of a view, characters of a name."""
FAR = 10_000
"""px of the 600x400 frame: no corner of a box lies so far away."""
_LARGEST_SIDE = 100_000
"""px of a rendered picture."""
_compact = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True)
class Info:
    """What an info file says, checked. `rows`: the detections of each view as JSON text.

    outside: how many boxes lie wholly outside their picture; they are in no row, as nobody can see them.
    """

    track: str
    karts: tuple[str, ...]
    race_seed: int | str | None
    rows: tuple[str, ...]
    outside: int = 0


def read_info(path: Path) -> Info:
    """Read and check an info file. Raises BrokenFile saying what is wrong with it."""
    try:
        data = parse_json(path, MAX_BYTES)
    except (ValueError, OSError) as error:
        raise BrokenFile(path, f"not readable as JSON ({error}); restore it, or skip broken frames") from None
    try:
        return _checked(data)
    except ValueError as error:
        raise BrokenFile(path, str(error)) from None


def make_frame(path: Path, info: Info, split: str, pictures: Sequence[tuple[int, str]]) -> Frame:
    """The frame of an info file and the pictures beside it, each with its view: [(view, file name), ...].

    Raises BrokenFile when a view lacks its picture or has two.
    """
    n = len(info.rows)
    names = dict(pictures)
    if len(pictures) != n or set(names) != set(range(n)):
        raise BrokenFile(path, f"{n} detection lists but {len(pictures)} pictures beside it ({_differs(n, pictures)})")
    # without a seed, the folder, the track and the karts in order tell races apart, as in the course's data
    named = info.race_seed is not None
    race = f"race-{info.race_seed}" if named else f"{split}:{info.track}:{','.join(info.karts)}"
    frame_id = path.name.removesuffix(INFO_SUFFIX)
    frame = Frame(path.parent, split, frame_id, info.track, info.karts, race, rows=info.rows, outside=info.outside)
    ordered = tuple(names[view] for view in range(n))
    return frame if ordered == frame.picture_names else frame.moved(pictures=ordered)


def _differs(n: int, pictures: Sequence[tuple[int, str]]) -> str:
    """In what the pictures differ from one for each of n views."""
    names = dict(pictures)
    if twice := [name for view, name in pictures if names[view] != name]:
        return f"{one_line(twice[0])} is of a view that has another"
    missing = [f"{view:02d}" for view in range(n) if view not in names]
    if not missing:
        return "the counts differ"
    return f"picture of view {', '.join(missing[:5])}{' and more' if len(missing) > 5 else ''} is missing"


def check_pictures(frame: Frame) -> None:
    """Decode every picture from its file. Raises BrokenFile naming the first that is broken."""
    for name in frame.picture_names:
        decode_image(frame.folder / name)


def _checked(data: Any) -> Info:
    """What an info file holds. Raises ValueError saying what is wrong, and where in the file."""
    if not isinstance(data, dict):
        raise ValueError(f"holds a {type(data).__name__}, not an object with track, karts and detections")
    for key, kind in (("track", str), ("karts", list), ("detections", list)):
        if not isinstance(data.get(key), kind):
            raise ValueError(f"key {key!r} is missing or not a {kind.__name__}")
    for key, kind in (("karts", str), ("detections", list)):
        if not all(isinstance(item, kind) for item in data[key]):
            raise ValueError(f"key {key!r} holds something that is not a {kind.__name__}")
    track, karts, seed = data["track"], data["karts"], data.get("race_seed")
    _check_names(track, karts, seed)
    views = [_rows(view, rows, len(karts)) for view, rows in enumerate(data["detections"])]
    if any(key in data for key in MEASURED):
        columns = [_measured(data, key) for key in MEASURED]
        views = [
            [[*row, *measured] for row, *measured in zip(*view, strict=True)]
            for view in zip(views, *columns, strict=True)
        ]
    shown = [[row for row in rows if _is_inside(row)] for rows in views]
    return Info(track, tuple(karts), seed, tuple(map(_compact, shown)), sum(map(len, views)) - sum(map(len, shown)))


def _check_names(track: str, karts: Sequence[str], seed: Any) -> None:
    if len(karts) > MAX_KARTS:
        raise ValueError(f"key 'karts' lists {len(karts):,} names, over the limit of {MAX_KARTS}")
    named = [("track", track), *(("karts", name) for name in karts)]
    if isinstance(seed, str):
        named.append(("race_seed", seed))
    elif seed is not None and (type(seed) is not int or abs(seed) > 2**128):
        raise ValueError(f"key 'race_seed' is {reprlib.repr(seed)}, neither a whole number nor a name")
    for key, name in named:
        if fault := _name_fault(name):
            raise ValueError(f"key {key!r}: the name {reprlib.repr(name)} {fault}")


def _name_fault(name: str) -> str:
    """Why questions cannot name something so; empty where they can. Names that the game does not have are fine."""
    if not name:
        return "is empty"
    if len(name) > MAX_NAME:
        return f"has {len(name):,} characters, over the limit of {MAX_NAME}"
    if not name.isprintable() or name != name.strip() or not any(map(str.isalnum, name)):
        return "has a character that cannot be shown, no letter, or a space at an end; write it as sara_the_racer"
    return ""


def _rows(view: int, rows: Sequence[Any], karts: int) -> list[list[int]]:
    """The detections of a view: class, object id, x1, y1, x2, y2 each."""
    if len(rows) > MAX_DETECTIONS:
        raise ValueError(f"view {view}: {len(rows):,} detections, over the limit of {MAX_DETECTIONS:,}")
    return [_row(view, row, karts) for row in rows]


def _row(view: int, row: Any, karts: int) -> list[int]:
    if not isinstance(row, list) or len(row) != 6 or not all(map(_is_number, row)):
        raise ValueError(
            f"view {view}: detection {reprlib.repr(row)} is not six numbers (class, object id, x1, y1, x2, y2)"
        )
    class_id, object_id, *box = map(int, row)
    if max(map(abs, box)) > FAR or box[2] < box[0] or box[3] < box[1]:
        raise ValueError(
            f"view {view}: box {reprlib.repr(box)} is none of a picture of {BOX_FRAME[0]}x{BOX_FRAME[1]} px"
        )
    if class_id == KART_CLASS and not 0 <= object_id < karts:
        raise ValueError(f"view {view}: unknown kart id {object_id}; `karts` lists {karts}")
    return [class_id, object_id, *box]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < inf


def _is_inside(row: Sequence[Any]) -> bool:
    """Whether any pixel of a detection's box is in the picture."""
    x1, y1, x2, y2 = row[2:6]
    return x1 < BOX_FRAME[0] and y1 < BOX_FRAME[1] and x2 >= 0 and y2 >= 0


def _measured(data: dict[str, Any], key: str) -> list[list[float | None]]:
    """A key of rendered frames, one list a view; all None where the file lacks it. Pixels are scaled to 600x400."""
    lengths = [len(rows) for rows in data["detections"]]
    if key not in data:
        return [[None] * n for n in lengths]
    views = data[key]
    if not isinstance(views, list) or [len(v) if isinstance(v, list) else v for v in views] != lengths:
        raise ValueError(
            f"{key!r} is not one list a view with one value a detection ({reprlib.repr(lengths)} values in this "
            "frame); render it again"
        )
    values = [value for view in views for value in view if value is not None]
    if not all(type(value) in (int, float) for value in values):
        raise ValueError(f"{key!r} holds something that is not a number; render it again")
    if wrong := [value for value in values if not 0 <= value <= MEASURED[key]]:
        raise ValueError(f"{key!r} holds {reprlib.repr(wrong[0])}, not 0 to {MEASURED[key]:,.0f}; render it again")
    return [[_scaled(data, value) for value in view] for view in views] if key == "pixels" else views


def _scaled(data: dict[str, Any], pixels: float | None) -> int | None:
    """Pixels of the rendered picture -> pixels of the 600x400 frame."""
    size = data.get("image_size", RENDERED_SIZE)
    sides = size if isinstance(size, list | tuple) else ()
    if len(sides) != 2 or not all(_is_number(side) and 1 <= side <= _LARGEST_SIDE for side in sides):
        raise ValueError(f"image_size {reprlib.repr(size)} is not the width and height of a picture")
    return None if pixels is None else round(pixels * BOX_FRAME[0] * BOX_FRAME[1] / (sides[0] * sides[1]))
