"""Patches of a picture, counted row after row, and the picture with one after another covered."""

import numpy as np
from PIL import Image

ROWS, COLUMNS = 8, 12
"""Squares in a picture of 3 to 2."""
PATCHES = ROWS * COLUMNS
BATCH = 12
"""How many covered pictures are answered at once; between batches one can cancel, and others are answered."""


def patch_box(number: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Corners of a patch in px of a picture of `size`; patches tile it without gaps."""
    row, column = divmod(number, COLUMNS)
    left, right = (round(size[0] * x / COLUMNS) for x in (column, column + 1))
    top, bottom = (round(size[1] * y / ROWS) for y in (row, row + 1))
    return left, top, right, bottom


def covered(image: Image.Image, start: int) -> list[Image.Image]:
    """The picture with one patch in its mean colour, for each of a batch of patches from the start-th on."""
    mean = tuple(np.asarray(image).mean((0, 1)).round().astype(int).tolist())
    pictures = []
    for number in range(start, min(start + BATCH, PATCHES)):
        pictures.append(image.copy())
        pictures[-1].paste(mean, patch_box(number, image.size))
    return pictures
