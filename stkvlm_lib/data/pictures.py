"""Pictures read from their files: the one place where one is opened, so that all see the same upright RGB pixels."""

import warnings
from pathlib import Path
from threading import Lock

import numpy as np
from cachetools import LRUCache, cached
from PIL import Image, ImageOps, UnidentifiedImageError

from stkvlm_lib.files import one_line

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded, whatever a file is called. Others may start programs (EPS) or hold no picture."""
MAX_PIXELS = 50_000_000
"""Larger pictures are refused: they fill the memory and say no more once scaled to what a model sees."""
CACHE_BYTES = 128 * 2**20
"""How much of decoded pictures is kept in memory, those used last."""
_CACHE: LRUCache = LRUCache(CACHE_BYTES, getsizeof=lambda image: image.width * image.height * 3)
_WHITE_16_BIT = 65535
warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit above is lower, and is told as an error


class FramesError(ValueError):
    """A data folder, frame or picture that cannot be used; the message names the file and the remedy."""


class BrokenFile(FramesError):
    """One file of a frame that cannot be used, and why; as a message also what to do."""

    def __init__(self, file: Path, reason: str):
        super().__init__(file, reason)  # both, so that it comes whole out of a worker process

    @property
    def file(self) -> str:
        """Its path, printable and in one line."""
        return one_line(self.args[0])

    @property
    def reason(self) -> str:
        return self.args[1]

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}; restore it, or correct it (SKIP_BROKEN leaves out such frames)"


def load_image(path: Path) -> Image.Image:
    """A picture as RGB, a copy of one's own. Pictures used lately come from memory unless their file has changed.

    Raises BrokenFile when it is missing or broken.
    """
    try:
        stat = path.stat()
    except OSError:
        return decode_image(path)
    return _kept_image(path, stat.st_mtime_ns, stat.st_size).copy()


@cached(_CACHE, key=lambda path, *version: (str(path), *version), lock=Lock())
def _kept_image(path: Path, mtime_ns: int, size: int) -> Image.Image:
    return decode_image(path)


def decode_image(path: Path) -> Image.Image:
    """A picture as a viewer shows it, decoded from its file: RGB, upright, 8 bit, on white where it is transparent.

    Raises BrokenFile when it is missing, broken, too large or of a kind that has no one look.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width:,} x {image.height:,} px, over the limit of {MAX_PIXELS:,} in all")
            ImageOps.exif_transpose(image, in_place=True)
            return _as_rgb(image)
    except FileNotFoundError:
        raise BrokenFile(path, "picture is missing") from None
    except UnidentifiedImageError:
        raise BrokenFile(path, "picture cannot be decoded (it is empty, or of no kind that is read)") from None
    except Exception as error:  # decoders raise what they like on broken data
        raise BrokenFile(path, f"picture cannot be decoded ({one_line(error)})") from None


def _as_rgb(image: Image.Image) -> Image.Image:
    """8 bit a channel. Raises ValueError where the range of the values is not known."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        grey = np.asarray(image).astype(np.float64) * (255 / _WHITE_16_BIT)
        return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"grey values of mode {image.mode}, whose range is not known: save it with 8 bit a channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
