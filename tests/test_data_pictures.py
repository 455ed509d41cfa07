"""One place opens pictures: what a viewer shows, and a one-line refusal for all that is none."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from stkvlm_lib.config import ROOT
from stkvlm_lib.data import pictures
from stkvlm_lib.data.pictures import BrokenFile, decode_image, load_image

SOURCE = ROOT / "frames" / "test" / "800000_00_im.jpg"


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """(128, 192, 3) uint8"""
    with Image.open(SOURCE) as image:
        return np.asarray(image.convert("RGB"))


def read(path: Path) -> np.ndarray:
    image = decode_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def test_a_usual_picture_is_decoded_as_it_stands(pixels):
    assert (read(SOURCE) == pixels).all()


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [(2, "FLIP_LEFT_RIGHT"), (3, "ROTATE_180"), (4, "FLIP_TOP_BOTTOM"), (5, "TRANSPOSE")]
    + [(6, "ROTATE_90"), (7, "TRANSVERSE"), (8, "ROTATE_270")],
)
@pytest.mark.parametrize("ending", ["png", "tiff", "webp"])
def test_a_turned_picture_stands_upright(pixels, tmp_path, orientation, undo, ending):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = Image.fromarray(pixels).transpose(Image.Transpose[undo])
    turned.save(tmp_path / f"a.{ending}", exif=exif, **({"lossless": True} if ending == "webp" else {}))
    assert (read(tmp_path / f"a.{ending}") == pixels).all()


@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_sixteen_bits_are_scaled_to_eight(pixels, tmp_path, ending):
    grey = pixels[..., 1]
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / f"a.{ending}")
    assert (read(tmp_path / f"a.{ending}") == grey[..., None]).all()


def test_sixteen_bits_of_a_pgm_are_scaled_too(pixels, tmp_path):
    grey = pixels[..., 1]
    (tmp_path / "a.pgm").write_bytes(b"P5 192 128 65535\n" + (grey.astype(">u2") * 257).tobytes())
    assert (read(tmp_path / "a.pgm") == grey[..., None]).all()


def test_what_is_transparent_is_white(pixels, tmp_path):
    alpha = np.full(pixels.shape[:2], 255, np.uint8)
    alpha[:50] = 0
    Image.fromarray(np.dstack([pixels, alpha])).save(tmp_path / "a.png")
    seen = read(tmp_path / "a.png")
    assert (seen[:50] == 255).all() and (seen[50:] == pixels[50:]).all()


def test_palettes_with_a_transparent_colour(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=1)
    assert read(tmp_path / "a.png").tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_print_colours_come_out_as_those_of_a_screen(pixels, tmp_path):
    Image.fromarray(pixels).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read(tmp_path / "a.jpg").astype(int) - pixels).mean() < 3


@pytest.mark.parametrize("name", pictures.FORMATS)
def test_every_format_is_decoded_whatever_the_file_is_called(pixels, tmp_path, name):
    Image.fromarray(pixels).save(tmp_path / "a_im.jpg", format=name)
    assert read(tmp_path / "a_im.jpg").shape == pixels.shape


def write_text_bomb(path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 5_000_000, zip=True)
    Image.new("RGB", (4, 4)).save(path, format="PNG", pnginfo=text)


BROKEN = {
    "nothing": (lambda path: path.write_bytes(b""), "it is empty, or of no kind that is read"),
    "text": (lambda path: path.write_text("no picture"), "it is empty, or of no kind that is read"),
    "PostScript, which would start a program": (
        lambda path: Image.new("RGB", (4, 4)).save(path, format="EPS"),
        "it is empty, or of no kind that is read",
    ),
    "text bomb": (write_text_bomb, "too large"),
    "pixel bomb": (
        lambda path: Image.new("1", (9000, 6000)).save(path, format="PNG"),
        "9,000 x 6,000 px, over the limit",
    ),
    "a link to itself": (lambda path: path.symlink_to(path), "symbolic links"),
    "a folder": (lambda path: path.mkdir(), "Is a directory"),
    "grey of 32 bits": (
        lambda path: Image.fromarray(np.full((2, 2), 9, np.int32)).save(path, format="TIFF"),
        "range is not known: save it with 8 bit",
    ),
    "grey of floats": (
        lambda path: Image.fromarray(np.full((2, 2), 0.5, np.float32)).save(path, format="TIFF"),
        "range is not known: save it with 8 bit",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_no_picture_is_refused_in_one_line(tmp_path, what):
    write, words = BROKEN[what]
    path = tmp_path / "a\nb_im.jpg"
    write(path)
    for open_picture in (decode_image, load_image):
        with pytest.raises(BrokenFile, match=words) as error:
            open_picture(path)
        assert r"a\nb_im.jpg: picture cannot be decoded" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "tiff"])
def test_no_damage_comes_out_as_another_error(pixels, tmp_path, ending):
    """Bytes are overwritten all over the file; a decoder may get over it, or the picture is refused."""
    path = tmp_path / f"a.{ending}"
    Image.fromarray(pixels[:40, :60]).save(path)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 8):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            assert decode_image(path).mode == "RGB"
        except BrokenFile as error:
            assert str(path) in str(error)
