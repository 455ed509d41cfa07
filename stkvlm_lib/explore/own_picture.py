"""A picture of the reader's own in the explorer: it can be looked at and asked about, and nothing is known of it."""

import hashlib
from pathlib import Path

from stkvlm_lib.data.frames import BOX_FRAME, Frame, View
from stkvlm_lib.data.pictures import BrokenFile

OWN = "own"
"""The split of such a picture; no data folder has it."""
LARGEST = 8_000_000
"""Bytes of its file: what a browser's connection takes at once is not much more."""
_SAME_SHAPE = 0.1
"""By how much the proportions of a picture may differ from those of the game's without a word."""


def own_view(name: str, content: bytes, folder: Path) -> View:
    """A view of a picture file given by its name and content; a copy is kept in `folder`.

    Raises ValueError for what is no picture, or too large a file.
    """
    if len(content) > LARGEST:
        raise ValueError(
            f"“{name}” has {len(content) / 1e6:.1f} MB; at most {LARGEST / 1e6:.0f} MB can be taken, make it smaller"
        )
    frame_id = hashlib.blake2b(content, digest_size=8).hexdigest()
    view = View(Frame(folder, OWN, frame_id, "", (), OWN), 0, ())
    view.image_path.write_bytes(content)
    try:
        view.image()
    except BrokenFile as error:  # its remedy is a notebook's parameter
        raise ValueError(f"“{name}”: {error.reason}; take another file, best JPEG or PNG") from None
    return view


def shape_told(width: int, height: int) -> str:
    """What to know of a picture of other proportions than the game's; empty for one of theirs."""
    stretch = width / height / (BOX_FRAME[0] / BOX_FRAME[1])
    if abs(stretch - 1) <= _SAME_SHAPE:
        return ""
    return (
        f"The picture has {width} x {height} px; the model sees it pressed into the shape of the game's frames, 3 to "
        "2. Crop it to that, for answers that count."
    )


def is_own(view: View | None) -> bool:
    return view is not None and view.frame.split == OWN
