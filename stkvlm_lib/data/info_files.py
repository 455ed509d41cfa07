"""Folders of frames: info files read, and every value checked that something relies on.

What cannot be is refused by file and key.
"""

import json
import os
import reprlib
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stkvlm_lib.data.frames import BOX_FRAME, INFO_SUFFIX, KART_CLASS, VIEW_NAME, Frame
from stkvlm_lib.data.pictures import BrokenFile, decode_image
from stkvlm_lib.files import one_line, parse_json
from stkvlm_lib.number_text import is_finite

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


def read_folder(folder: Path, split: str, check_images: bool) -> list[Frame | BrokenFile]:
    """Each frame of a folder or what is wrong with it: pictures without an info file first, then by frame id."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if _is_data(entry))
    pictures: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for name in names:
        if match := VIEW_NAME.match(name):
            pictures[match["frame"]].append((int(match["view"]), name))
    frame_ids = [name.removesuffix(INFO_SUFFIX) for name in names if name.endswith(INFO_SUFFIX)]
    missing = [
        BrokenFile(folder / f"{frame_id}{INFO_SUFFIX}", "missing, but its pictures are there")
        for frame_id in sorted(set(pictures) - set(frame_ids))
    ]

    def read(frame_id: str) -> Frame | BrokenFile:
        try:
            frame = read_frame(folder / f"{frame_id}{INFO_SUFFIX}", split, pictures.get(frame_id, []))
            for name in frame.picture_names if check_images else ():
                decode_image(folder / name)
            return frame
        except BrokenFile as error:
            return error

    if not check_images:
        return missing + list(map(read, frame_ids))
    with ThreadPoolExecutor(max_workers=4) as pool:  # decoding a picture lets other threads run
        return missing + list(pool.map(read, frame_ids))


def _is_data(entry: os.DirEntry) -> bool:
    """Whether an entry of a folder may belong to a frame: hidden files do not, as those that macOS adds (`._...`)."""
    try:
        return not entry.name.startswith(".") and entry.is_file()
    except OSError:  # a link that leads back to itself: reading it says so
        return True


def read_frame(path: Path, split: str, pictures: Sequence[tuple[int, str]]) -> Frame:
    """The frame of an info file and the pictures beside it, each with its view: [(view, file name), ...].

    Raises BrokenFile saying what is wrong with the file, or which view lacks its picture or has two.
    """
    try:
        data = parse_json(path, MAX_BYTES)
    except (ValueError, OSError) as error:
        raise BrokenFile(path, f"not readable as JSON ({error})") from None
    try:
        views = _checked_views(data)
    except ValueError as error:
        raise BrokenFile(path, str(error)) from None
    n, names = len(views), dict(pictures)
    if len(pictures) != n or set(names) != set(range(n)):
        differs = _differs(path.name.removesuffix(INFO_SUFFIX), n, pictures)
        raise BrokenFile(path, f"{n} detection lists but {len(pictures)} pictures beside it ({differs})")
    track, karts, seed = data["track"], tuple(data["karts"]), data.get("race_seed")
    # without a seed, the folder, the track and the karts in order tell races apart, as in the course's data
    race = f"{split}:{track}:{','.join(karts)}" if seed is None else f"race-{seed}"
    shown = [[row for row in rows if _is_inside(row)] for rows in views]
    outside = sum(map(len, views)) - sum(map(len, shown))
    frame_id, rows = path.name.removesuffix(INFO_SUFFIX), tuple(map(_compact, shown))
    frame = Frame(path.parent, split, frame_id, track, karts, race, rows=rows, outside=outside)
    ordered = tuple(names[view] for view in range(n))
    return frame if ordered == frame.picture_names else frame.moved(pictures=ordered)


def _differs(frame_id: str, n: int, pictures: Sequence[tuple[int, str]]) -> str:
    """In what the pictures differ from one for each of n views."""
    names = dict(pictures)
    faults = {
        "of a view that has another": [name for view, name in pictures if names[view] != name],
        "missing": [f"{frame_id}_{view:02d}_im.jpg" for view in range(n) if view not in names],
        "of no view": [name for view, name in pictures if view >= n],
    }
    fault, files = next((fault, files) for fault, files in faults.items() if files)
    return f"{fault}: {one_line(', '.join(files[:5]))}{' and more' if len(files) > 5 else ''}"


def _checked_views(data: Any) -> list[list[list]]:
    """The detections of each view: class, object id, x1, y1, x2, y2 and what was measured, if anything, of each.

    Raises ValueError saying what is wrong, and where in the file.
    """
    if not isinstance(data, dict):
        raise ValueError(f"holds a {type(data).__name__}, not an object with track, karts and detections")
    for key, kind in (("track", str), ("karts", list), ("detections", list)):
        if not isinstance(data.get(key), kind):
            raise ValueError(f"key {key!r} is missing or not a {kind.__name__}")
    for key, kind in (("karts", str), ("detections", list)):
        if not all(isinstance(item, kind) for item in data[key]):
            raise ValueError(f"key {key!r} holds something that is not a {kind.__name__}")
    _check_names(data["track"], data["karts"], data.get("race_seed"))
    views = [_rows(view, rows, len(data["karts"])) for view, rows in enumerate(data["detections"])]
    if not any(key in data for key in MEASURED):
        return views
    columns = [_measured(data, key) for key in MEASURED]
    return [
        [[*row, *measured] for row, *measured in zip(*view, strict=True)] for view in zip(views, *columns, strict=True)
    ]


def _check_names(track: str, karts: Sequence[str], seed: Any) -> None:
    """Refuse names that no question can use. Names that the game does not have are fine."""
    if len(karts) > MAX_KARTS:
        raise ValueError(f"key 'karts' lists {len(karts):,} names, over the limit of {MAX_KARTS}")
    named = [("track", track), *(("karts", name) for name in karts)]
    if isinstance(seed, str):
        named.append(("race_seed", seed))
    elif seed is not None and (type(seed) is not int or abs(seed) > 2**128):
        raise ValueError(f"key 'race_seed' is {reprlib.repr(seed)}, neither a whole number nor a name")
    for key, name in named:
        if not name:
            fault = "is empty"
        elif len(name) > MAX_NAME:
            fault = f"has {len(name):,} characters, over the limit of {MAX_NAME}"
        elif not name.isprintable() or name != name.strip() or not any(map(str.isalnum, name)):
            fault = "has a character that cannot be shown, no letter, or a space at an end; write it as sara_the_racer"
        else:
            continue
        raise ValueError(f"key {key!r}: the name {reprlib.repr(name)} {fault}")


def _rows(view: int, rows: Sequence[Any], karts: int) -> list[list[int]]:
    """The detections of a view: class, object id, x1, y1, x2, y2 each."""
    if len(rows) > MAX_DETECTIONS:
        raise ValueError(f"view {view}: {len(rows):,} detections, over the limit of {MAX_DETECTIONS:,}")
    return [_row(view, row, karts) for row in rows]


def _row(view: int, row: Any, karts: int) -> list[int]:
    if not isinstance(row, list) or len(row) != 6 or not all(map(is_finite, row)) or row[0] % 1 or row[1] % 1:
        raise ValueError(
            f"view {view}: detection {reprlib.repr(row)} is not six numbers "
            "(class and object id, which are whole, x1, y1, x2, y2)"
        )
    class_id, object_id, *box = map(int, row)
    if max(map(abs, box)) > FAR or box[2] < box[0] or box[3] < box[1]:
        raise ValueError(
            f"view {view}: box {reprlib.repr(box)} is none of a picture of {BOX_FRAME[0]}x{BOX_FRAME[1]} px"
        )
    if class_id == KART_CLASS and not 0 <= object_id < karts:
        raise ValueError(f"view {view}: unknown kart id {object_id}; `karts` lists {karts}")
    return [class_id, object_id, *box]


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
            f"{key!r} is not one list a view with one value a detection ({reprlib.repr(lengths)} values in this frame)"
        )
    values = [value for view in views for value in view if value is not None]
    if not all(type(value) in (int, float) for value in values):
        raise ValueError(f"{key!r} holds something that is not a number")
    if wrong := [value for value in values if not 0 <= value <= MEASURED[key]]:
        raise ValueError(f"{key!r} holds {reprlib.repr(wrong[0])}, not 0 to {MEASURED[key]:,.0f}")
    if key != "pixels":
        return views
    area = _picture_area(data)
    return [[None if n is None else round(n * BOX_FRAME[0] * BOX_FRAME[1] / area) for n in view] for view in views]


def _picture_area(data: dict[str, Any]) -> float:
    """How many pixels the rendered picture has in which `pixels` were counted."""
    size = data.get("image_size", RENDERED_SIZE)
    sides = size if isinstance(size, list | tuple) else ()
    if len(sides) != 2 or not all(is_finite(side) and 1 <= side <= _LARGEST_SIDE for side in sides):
        raise ValueError(f"image_size {reprlib.repr(size)} is not the width and height of a picture")
    return sides[0] * sides[1]
