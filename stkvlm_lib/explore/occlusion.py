"""Which parts of a picture an answer hangs on: cover one patch after another and ask again."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from stkvlm_lib.data.frames import View
from stkvlm_lib.explore.models import Askable
from stkvlm_lib.explore.patches import COLUMNS, PATCHES, patch_box
from stkvlm_lib.figures.drawing import font_of
from stkvlm_lib.figures.style import BLACK, VERMILLION
from stkvlm_lib.grammar.questions import normalise
from stkvlm_lib.grammar.scene import IMAGE_SIZE, read_scene

LEAST_FALL = 0.01
"""Of a probability: a smaller one is not worth a word."""


@dataclass(frozen=True)
class Patch:
    """What covering one patch does. number: see `patches`; probability: of the answer to the whole picture; answer:
    given now."""

    number: int
    answer: str
    probability: float


@dataclass(frozen=True)
class OcclusionMap:
    """An answer with its probability, and what becomes of it patch by patch, row after row."""

    answer: str
    probability: float
    patches: tuple[Patch, ...]

    @property
    def changing(self) -> tuple[Patch, ...]:
        """Patches whose covering changes the answer, the most effective first."""
        return tuple(p for p in self.by_effect if normalise(p.answer) != normalise(self.answer))

    @property
    def by_effect(self) -> list[Patch]:
        return sorted(self.patches, key=lambda patch: (patch.probability, patch.number))

    def drop(self, patch: Patch) -> float:
        """The share of the answer's probability that covering a patch takes away, 0..1 (0 where it adds)."""
        return max(0.0, 1 - patch.probability / self.probability) if self.probability else 0.0


def occlude(
    model: Askable,
    view: View,
    question: str,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> OcclusionMap | None:
    """Cover each patch with the picture's mean colour, ask again, and see what becomes of the answer.

    question: worded for the model. None when cancelled. Raises AskError.
    """
    picture = view.image_path
    whole = model.answer(picture, question, alone=False)
    patches: list[Patch] = []
    progress(0, PATCHES)
    while len(patches) < PATCHES:
        if cancelled():
            return None
        outcomes = model.cover(picture, question, whole.text, len(patches))
        patches += [Patch(number, *outcome) for number, outcome in enumerate(outcomes, len(patches))]
        progress(len(patches), PATCHES)
    return OcclusionMap(whole.text, whole.confidence, tuple(patches))


def describe(found: OcclusionMap, view: View) -> str:
    """What the map shows, in words."""
    n, changing, strongest = len(found.patches), found.changing, found.by_effect[0]
    answer = f"“{found.answer or '(nothing)'}” ({found.probability:.0%})"
    if not changing:
        if found.probability - strongest.probability < LEAST_FALL:
            return f"No single patch of {n} changes the answer {answer}, or makes it noticeably less likely."
        fall = f"{_place(strongest, view)} takes it down most, to {strongest.probability:.0%}"
        return f"No single patch of {n} changes the answer {answer}; {fall}."
    told = "; ".join(f"{_place(p, view)} makes it “{p.answer or '(nothing)'}”" for p in changing[:3])
    if len(changing) == 1:
        return f"One patch of {n} changes the answer {answer} when it is covered: {told}."
    more = f"; and {len(changing) - 3} more" if len(changing) > 3 else ""
    return f"{len(changing)} of {n} patches change the answer {answer} when one of them is covered: {told}{more}."


def _place(patch: Patch, view: View) -> str:
    """E.g. `row 3, column 5 (on gnu and tux)`, rows from the top, columns from the left."""
    left, top, right, bottom = patch_box(patch.number, IMAGE_SIZE)
    on = [
        kart.name
        for kart in read_scene(view).karts
        if min(kart.box[2], right) - max(kart.box[0], left) > 1 and min(kart.box[3], bottom) - max(kart.box[1], top) > 1
    ]
    where = f" (on {' and '.join(on)})" if on else ""
    row, column = divmod(patch.number, COLUMNS)
    return f"row {row + 1}, column {column + 1}{where}"


def draw_occlusion(image: Image.Image, found: OcclusionMap) -> Image.Image:
    """A map over an enlarged picture: the redder a patch the more probability it takes, with how much from a tenth on;
    framed where it changes the answer, with the answer given then."""
    boxes = {patch: patch_box(patch.number, image.size) for patch in found.patches}
    tint = Image.new("L", image.size)
    for patch, box in boxes.items():
        tint.paste(round(170 * found.drop(patch)), box)
    result = Image.composite(Image.new("RGB", image.size, VERMILLION), image, tint)
    drawing, changing, stroke = ImageDraw.Draw(result, "RGBA"), set(found.changing), max(1, image.width // 500)
    font = font_of(round(image.width * 0.014))
    for patch, (left, top, right, bottom) in boxes.items():
        drawing.rectangle((left, top, right, bottom), outline=(255, 255, 255, 40))
        if patch not in changing and found.drop(patch) >= 0.1:
            _write(drawing, (left, top, right, bottom), [f"−{found.drop(patch):.0%}"], font)
    for patch in found.changing:
        left, top, right, bottom = boxes[patch]
        for inset, colour in ((0, BLACK), (stroke, "#FFFFFF"), (3 * stroke, BLACK)):
            frame = left + inset, top + inset, right - inset, bottom - inset
            drawing.rectangle(frame, outline=colour, width=2 * stroke if inset == stroke else stroke)
        _write(drawing, boxes[patch], _lines(patch.answer or "(nothing)", right - left - 8 * stroke, font), font)
    return result


def _write(drawing: ImageDraw.ImageDraw, box: tuple, lines: list[str], font: ImageFont.FreeTypeFont) -> None:
    """Lines of white text in the middle of a box."""
    middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    style = {"anchor": "mm", "align": "center", "spacing": 0, "stroke_width": font.size // 6, "stroke_fill": BLACK}
    drawing.text(middle, "\n".join(lines), "#FFFFFF", font, **style)


def _lines(text: str, width: float, font: ImageFont.FreeTypeFont) -> list[str]:
    """A text broken after spaces and underscores where a line would be wider than so many px."""
    lines = [""]
    for part in re.findall(r"[^ _]+[ _]?", text):
        if lines[-1] and font.getlength(lines[-1] + part.strip()) > width:
            lines.append("")
        lines[-1] += part
    return [line.strip() for line in lines]
