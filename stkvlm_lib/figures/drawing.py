"""One view as a picture: enlarged without blur, its karts boxed, coloured by role and named.

Boxes are those of the labelling rule (px in the 150x100 frame), so what is drawn is what the answers count.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from stkvlm_lib.data.frames import KART_CLASS, View
from stkvlm_lib.figures.style import BLACK, GREEN, ORANGE, PURPLE, SKY, YELLOW
from stkvlm_lib.grammar.scene import IMAGE_SIZE, MIN_SIDE, Box, Kart, Scene, depth, is_kept, read_scene, scale_box, side

TOO_SMALL = f"under {MIN_SIDE} px"
ROLE_COLOURS = {
    "ego": YELLOW,
    "front and left": SKY,
    "front and right": ORANGE,
    "back and left": GREEN,
    "back and right": PURPLE,
    TOO_SMALL: "#C8C8C8",
}
"""Role of a kart -> its colour; the four zones are named as the answers to `Where is {kart} ...` are."""


@dataclass(frozen=True)
class Mark:
    """A kart's box (px in the 150x100 frame), name, role and visible share (0..1, None where the frames do not say)."""

    box: Box
    name: str
    role: str
    visible: float | None = None


def marks(view: View) -> list[Mark]:
    """Every kart of a view with its role; those too small for the rule first, to be drawn below the others."""
    karts = {d.object_id: d for d in view.detections if d.class_id == KART_CLASS}
    boxes = {number: scale_box(d.box) for number, d in karts.items()}
    names, shares = view.frame.karts, {number: d.visible for number, d in karts.items()}
    small = [Mark(box, names[n], TOO_SMALL, shares[n]) for n, box in boxes.items() if not is_kept(box)]
    scene = read_scene(view)
    shown = [*scene.others, scene.ego] if scene.ego else []
    return small + [Mark(kart.box, kart.name, role(kart, scene), shares[kart.object_id]) for kart in shown]


def role(kart: Kart, scene: Scene) -> str:
    """`ego`, or in which zone around the ego kart a kart is."""
    return "ego" if kart is scene.ego else f"{depth(kart, scene.ego)} and {side(kart, scene.ego)}"


def enlarged(view: View, width: int = 640) -> Image.Image:
    """The picture with every pixel a square, at the whole multiple of its size nearest to `width` px; one that is wider
    is shrunk to `width`."""
    image = view.image()
    if image.width > width:
        return image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.BOX)
    factor = max(1, round(width / image.width))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def draw_overlay(
    view: View,
    width: int = 640,
    *,
    text: float = 0.022,
    zones: bool = True,
    zone_names: bool = False,
    names: set[str] | None = None,
    shares: bool = False,
    limit: bool = False,
) -> Image.Image:
    """The enlarged picture with its karts marked.

    text: height of the names as a share of the width. zones: draw the lines through the ego kart's centre; zone_names:
    write at their ends what lies on either side. names: the karts to name, None for all kept ones. shares: with the
    share of each that is visible. limit: draw the size under which a kart does not count.
    """
    image = enlarged(view, width)
    scale = image.width / IMAGE_SIZE[0], image.height / IMAGE_SIZE[1]
    drawing, stroke, font = ImageDraw.Draw(image), max(1, image.width // 320), font_of(round(image.width * text))
    found = [(mark, tuple(v * scale[i % 2] for i, v in enumerate(mark.box))) for mark in marks(view)]
    taken: list[tuple] = []
    for mark, (x1, y1, x2, y2) in found:
        if zones and mark.role == "ego":
            centre = (x1 + x2) / 2, (y1 + y2) / 2
            _dashed(drawing, (centre[0], 0, centre[0], image.height), "#FFFFFF", stroke)
            _dashed(drawing, (0, centre[1], image.width, centre[1]), "#FFFFFF", stroke)
            if zone_names:
                taken += _zone_names(drawing, image.size, centre, font, [box for _, box in found])
    if limit:
        taken.append(_limit(drawing, image.size, scale, font, stroke))
    for mark, box in found:
        _box(drawing, box, mark.role, stroke)
    kept = [(mark, box) for mark, box in found if mark.role != TOO_SMALL and (names is None or mark.name in names)]
    named = [(mark.role, _label(mark, shares), box) for mark, box in kept]
    _names(drawing, image.size, named, font, taken)
    return image


def _label(mark: Mark, shares: bool) -> str:
    name = " ".join(mark.name.split())  # a name is one line, whatever a file says
    return f"{name} {mark.visible:.0%}" if shares and mark.visible is not None else name


def _zone_names(
    drawing: ImageDraw.ImageDraw, size: tuple, centre: tuple, font: ImageFont.FreeTypeFont, boxes: list[tuple]
) -> list[tuple]:
    """Name the four zones near the level line and as far out as they cover no box; one that would cover a box wherever
    it stood is left out. Returns where they stand."""
    (width, height), (cx, cy) = size, centre
    gap, h, places = font.size // 3, sum(font.getmetrics()), []
    for zone in ("front and left", "front and right", "back and left", "back and right"):
        w = round(font.getlength(zone))
        front = zone.startswith("front")
        first, last = (round(cy - h - gap), 0) if front else (round(cy + gap), round(height - h))
        levels = range(first, last - 1, -h) if front else range(first, last + 1, h)
        if zone.endswith("left"):
            starts = range(gap, round(cx - w - gap), font.size)
        else:
            starts = range(width - w - gap, round(cx + gap), -font.size)
        found = ((x, y, x + w, y + h) for y in levels for x in starts)
        place = next((place for place in found if not any(_overlap(place, box) for box in boxes)), None)
        if place is None:
            continue  # no room for it
        drawing.text(place[:2], zone, ROLE_COLOURS[zone], font, stroke_width=font.size // 8, stroke_fill=BLACK)
        places.append(place)
    return places


def _limit(drawing: ImageDraw.ImageDraw, size: tuple, scale: tuple, font: ImageFont.FreeTypeFont, stroke: int) -> tuple:
    """A square of the least size that counts, in the lower left corner; returns where it stands with its text."""
    gap, w, h = font.size // 2, MIN_SIDE * scale[0], MIN_SIDE * scale[1]
    y = size[1] - gap - h
    _dashed_box(drawing, (gap, y, gap + w, y + h), ROLE_COLOURS[TOO_SMALL], stroke)
    text, at = f"{MIN_SIDE} px", (gap + w + gap / 2, y + h / 2)
    drawing.text(at, text, ROLE_COLOURS[TOO_SMALL], font, "lm", stroke_width=font.size // 8, stroke_fill=BLACK)
    return gap, y, at[0] + font.getlength(text), y + h


def _box(drawing: ImageDraw.ImageDraw, box: tuple, role: str, stroke: int) -> None:
    x1, y1, x2, y2 = box
    if role == TOO_SMALL:
        box = (x1, y1, max(x2, x1 + 3 * stroke), max(y2, y1 + 3 * stroke))
        _dashed_box(drawing, box, ROLE_COLOURS[role], stroke)
        return
    drawing.rectangle((x1 - stroke, y1 - stroke, x2 + stroke, y2 + stroke), outline=BLACK, width=3 * stroke)
    drawing.rectangle(box, outline=ROLE_COLOURS[role], width=stroke * (2 if role == "ego" else 1))


def _dashed_box(drawing: ImageDraw.ImageDraw, box: tuple, colour: str, stroke: int) -> None:
    x1, y1, x2, y2 = box
    for edge in ((x1, y1, x2, y1), (x2, y1, x2, y2), (x1, y2, x2, y2), (x1, y1, x1, y2)):
        _dashed(drawing, edge, colour, stroke)


def _dashed(drawing: ImageDraw.ImageDraw, line: tuple, colour: str, stroke: int) -> None:
    """A dashed line over a dark one, so that it shows on bright and on dark ground."""
    x1, y1, x2, y2 = line
    length = max(abs(x2 - x1), abs(y2 - y1), 1)
    dash = 4 * stroke
    for number, start in enumerate(range(0, round(length), dash)):
        a, b = start / length, min(1, (start + dash) / length)
        ends = (x1 + (x2 - x1) * a, y1 + (y2 - y1) * a, x1 + (x2 - x1) * b, y1 + (y2 - y1) * b)
        drawing.line(ends, fill=BLACK if number % 2 else colour, width=stroke)


def _names(
    drawing: ImageDraw.ImageDraw, size: tuple, named: list, font: ImageFont.FreeTypeFont, taken: list[tuple]
) -> None:
    """Write each (role, name, box) on a plate beside its box, the ego kart's first, where it covers none of `taken`."""
    for role, name, box in reversed(named):
        pad = font.size // 5
        w, h = round(font.getlength(name)) + 2 * pad, sum(font.getmetrics())
        place = min(_places(box, w, h, size), key=lambda p: sum(_overlap(p, other) for other in taken))
        taken.append(place)
        drawing.rectangle(place, fill=ROLE_COLOURS[role], outline=BLACK)
        drawing.text((place[0] + pad, place[1]), name, BLACK, font)


def _places(box: tuple, w: float, h: float, size: tuple) -> Iterator[tuple]:
    """Where a name of w x h px could stand, best first: above, below, right, left, then further up and down."""
    x1, y1, x2, y2 = box
    gap, middle = h * 0.15, (x1 + x2 - w) / 2
    level = (y1 + y2 - h) / 2
    corners = [(middle, y1 - h - gap), (middle, y2 + gap), (x2 + gap, level), (x1 - w - gap, level)]
    corners += [(middle, y1 - n * h - gap) for n in (2, 3)] + [(middle, y2 + n * h + gap) for n in (1, 2)]
    for x, y in corners:
        x, y = min(max(x, gap), size[0] - w - gap), min(max(y, gap), size[1] - h - gap)
        yield x, y, x + w, y + h


def _overlap(a: tuple, b: tuple) -> float:
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


@lru_cache
def font_of(size: int) -> ImageFont.FreeTypeFont:
    """The font of names on pictures, so many px high (at least 6)."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans-Bold.ttf"), max(6, size))
