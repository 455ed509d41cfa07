"""What a view shows under the course's labelling rule: kept karts, the ego kart, who is where.

Source of the rule: the course's graded question file, whose 120 answers it reproduces (see README, "The labels").
Boxes are scaled from the 600x400 detection frame to 150x100 px with truncation, the one place where that is done.
"""

from collections.abc import Callable
from dataclasses import dataclass

from stkvlm_lib.frames import BOX_FRAME, KART_CLASS, View

IMAGE_SIZE = (150, 100)
"""Width and height in px of the course's pictures, the frame of the rule below."""
MIN_SIDE = 5
"""A kart whose scaled width or height is under this many px is not counted as visible."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Kart:
    """A kept kart. `box`: (x1, y1, x2, y2) ints, px in the 150x100 frame; `centre`: midpoint of that box."""

    object_id: int
    name: str
    box: Box

    @property
    def centre(self) -> tuple[float, float]:
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2


@dataclass(frozen=True)
class Scene:
    """Track, kept karts in the order of the detections, and the ego kart (None when no kart is kept)."""

    track: str
    karts: tuple[Kart, ...]
    ego: Kart | None

    @property
    def others(self) -> tuple[Kart, ...]:
        return tuple(kart for kart in self.karts if kart is not self.ego)


def scale_box(box: Box) -> Box:
    """600x400 -> 150x100 px, each corner truncated towards zero."""
    sx, sy = IMAGE_SIZE[0] / BOX_FRAME[0], IMAGE_SIZE[1] / BOX_FRAME[1]
    x1, y1, x2, y2 = box
    return int(x1 * sx), int(y1 * sy), int(x2 * sx), int(y2 * sy)


def is_kept(box: Box) -> bool:
    """Whether a scaled box is large enough for its kart to count as visible."""
    x1, y1, x2, y2 = box
    return x2 - x1 >= MIN_SIDE and y2 - y1 >= MIN_SIDE


def read_scene(view: View, transform: Callable[[Box], Box] | None = None) -> Scene:
    """Apply the course rule to a view; `transform` maps its 600x400 boxes first (mirroring, cropping)."""
    karts = []
    for detection in view.detections:
        if detection.class_id != KART_CLASS:
            continue
        box = scale_box(transform(detection.box) if transform else detection.box)
        if is_kept(box):
            karts.append(Kart(detection.object_id, view.frame.karts[detection.object_id], box))
    return Scene(view.frame.track, tuple(karts), _ego(karts))


def _ego(karts: list[Kart]) -> Kart | None:
    """The kept kart whose centre is nearest the middle of the picture; ties go to the lower kart id."""
    mx, my = IMAGE_SIZE[0] / 2, IMAGE_SIZE[1] / 2

    def distance(kart: Kart) -> tuple[float, int]:
        cx, cy = kart.centre
        return (cx - mx) ** 2 + (cy - my) ** 2, kart.object_id

    return min(karts, key=distance, default=None)


def side(kart: Kart, ego: Kart) -> str:
    """`left` (level counts as left) or `right` of the ego kart."""
    return "left" if kart.centre[0] <= ego.centre[0] else "right"


def depth(kart: Kart, ego: Kart) -> str:
    """`front` (higher in the picture) or `back` (level counts as back) of the ego kart."""
    return "front" if kart.centre[1] < ego.centre[1] else "back"


def mirror_box(box: Box) -> Box:
    """The box in the left-right mirrored picture, px in the 600x400 frame."""
    x1, y1, x2, y2 = box
    last = BOX_FRAME[0] - 1
    return last - x2, y1, last - x1, y2
