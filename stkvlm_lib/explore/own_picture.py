"""A picture of the reader's own in the explorer: it can be looked at and asked about, and nothing is known of it."""

import hashlib
from pathlib import Path

from stkvlm_lib.data.frames import Frame, View
from stkvlm_lib.data.pictures import BrokenFile

OWN = "own"
"""The split of such a picture; no data folder has it."""
LARGEST = 8_000_000
"""Bytes of its file: what a browser's connection takes at once is not much more."""


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


def is_own(view: View | None) -> bool:
    return view is not None and view.frame.split == OWN
