"""What a view shows under a set of rules: visible karts, the ego kart, who is where, and what cannot be told.

Two sets of rules. `COURSE_RULES` is the course's labelling rule, known from its graded question file, whose 120 answers
it reproduces (see README, "The labels"). `STRICT_RULES` gives the same answers or declines: it asks only what a person
could tell from the picture. Boxes are scaled from the 600x400 detection frame to 150x100 px with truncation, the one
place where that is done.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from math import sqrt

from stkvlm_lib.data.frames import BOX_FRAME, KART_CLASS, Detection, View
from stkvlm_lib.grammar.spelling import one_word

IMAGE_SIZE = (150, 100)
"""Width and height in px of the course's pictures, the frame of the rules below."""
MIN_SIDE = 5
"""A kart whose scaled width or height is under this many px is not counted as visible."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class RuleSet:
    """When a kart counts as visible, and how close is too close to call.

    name: what records call it. min_side: px of the scaled box, each side. declines: whether a doubtful question is
    declined with a reason; without, every question gets the rule's answer, and what follows is not used.
    speck: px of the scaled box, smaller and larger side; a kart under both is taken for no kart at all, unless
    speck_pixels of it are visible. min_pixels: visible px; min_visible: share 0..1 not covered by something nearer
    (pixels in the 600x400 frame; both, and speck_pixels, only where the frames say). level: px in the 150x100 frame.
    nearer: ratio of two distances; taller: ratio of two box heights, for frames without distances.
    """

    name: str
    min_side: int
    declines: bool = False
    speck: tuple[int, int] = (0, 0)
    speck_pixels: int = 0
    min_pixels: int = 0
    min_visible: float = 0.0
    level: float = 0.0
    nearer: float = 1.0
    taller: float = 1.0

    def sort(self, box: Box, detection: Detection) -> str:
        """Whether a detection with this scaled box belongs to the `karts`, the `unclear` ones or the `specks`."""
        side, longer = sorted((box[2] - box[0], box[3] - box[1]))
        plain = detection.pixels is not None and detection.pixels >= self.speck_pixels
        if side < self.speck[0] and longer < self.speck[1] and not plain:
            return "specks"
        hidden = detection.visible is not None and detection.visible < self.min_visible
        few = detection.pixels is not None and detection.pixels < self.min_pixels
        return "unclear" if side < self.min_side or hidden or few else "karts"


COURSE_RULES = RuleSet("course", MIN_SIDE)
STRICT_RULES = RuleSet(
    "strict",
    min_side=7,  # px of 150x100: below it enlarged crops no longer show which kart it is
    declines=True,
    speck=(3, 5),  # px of 150x100: nobody takes 2x4 px for a kart, so they cannot make a count doubtful; 2x7 can
    speck_pixels=100,  # px of 600x400, that is 6 px of 150x100: seen as a kart by eye when nothing covers it
    min_pixels=480,  # px of 600x400, that is 30 px of 150x100: what a kart of 7x7 px fills of its box
    min_visible=0.4,  # below it crops show the kart in front rather than the one asked about
    level=3.0,  # px of 150x100: truncation and mirroring move a centre by up to 1 px, two centres by 2
    nearer=1.2,  # a fifth farther is a sixth smaller on the picture, which the eye still tells
    taller=1.4,  # with it, boxes alone order two karts as their distances do for all but 1 of 2,186 pairs (1.2: 8)
)


class Reason(StrEnum):
    """Why a question is not asked of a scene."""

    NO_KART = "no kart in view"
    EGO_UNCLEAR = "the ego kart is barely visible"
    EGO_TIED = "two karts are about equally near the middle"
    EGO_NOT_FOLLOWED = "the kart nearest the middle is not the one the camera follows"
    UNCLEAR = "a kart that matters is barely visible"
    LEVEL = "too close to level"
    DEPTH_DOUBT = "place in the picture and distance disagree"
    BETWEEN_HOURS = "too close to the middle between two hours"
    EQUALLY_FAR = "about equally far"
    NONE = "none to name or count"
    TOO_FEW = "too few karts to compare"
    ASIDE = "not clearly straight ahead"
    NO_COLOUR = "a kart without one clear colour"
    SAME_NAME = "two karts of one name"
    ABSENT = "a kart asked about is not in view"
    ITSELF = "a kart would be compared with itself"
    UNKNOWN = "answer outside the family's set"


@dataclass(frozen=True)
class Kart:
    """A kart in view. `box`: (x1, y1, x2, y2) ints, px in the 150x100 frame; `centre`: midpoint of that box.

    distance: metres from the camera, None where the frames do not say.
    """

    object_id: int
    name: str
    box: Box
    distance: float | None = None

    @property
    def centre(self) -> tuple[float, float]:
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2


@dataclass(frozen=True)
class Scene:
    """Track, visible karts in the order of the detections, and the ego kart (None when there is none).

    rules: by which it was read. no_ego: why there is no ego kart. line_up: the names of all karts of the race.
    unclear: karts that are detected but do not count as visible, which makes questions that they touch doubtful;
    specks: those so small that only a question about them by name is (both are empty under rules that do not decline).
    """

    track: str
    karts: tuple[Kart, ...]
    ego: Kart | None
    rules: RuleSet = COURSE_RULES
    no_ego: Reason | None = Reason.NO_KART
    unclear: tuple[Kart, ...] = ()
    specks: tuple[Kart, ...] = ()
    line_up: tuple[str, ...] = ()

    @property
    def detected(self) -> tuple[Kart, ...]:
        return (*self.karts, *self.unclear, *self.specks)

    @property
    def others(self) -> tuple[Kart, ...]:
        return tuple(kart for kart in self.karts if kart is not self.ego)

    @cached_property
    def ambiguous(self) -> frozenset[str]:
        """Names that two karts of the race, or two detections of this view, go by, as questions write them: no
        question can use them."""
        written = map(one_word, self.line_up), (one_word(kart.name) for kart in self.detected)
        return frozenset(name for names in written for name, times in Counter(names).items() if times > 1)

    def find(self, name: str) -> Kart:
        """The detected kart of that name, however it is spelled; one without a box where there is none."""
        return next((kart for kart in self.detected if name in (kart.name, one_word(kart.name))), absent(name))


def absent(name: str) -> Kart:
    """Stands for a kart that is not in view."""
    return Kart(-1, name, (0, 0, 0, 0))


def scale_box(box: Box) -> Box:
    """600x400 -> 150x100 px, each corner truncated towards zero."""
    sx, sy = IMAGE_SIZE[0] / BOX_FRAME[0], IMAGE_SIZE[1] / BOX_FRAME[1]
    x1, y1, x2, y2 = box
    return int(x1 * sx), int(y1 * sy), int(x2 * sx), int(y2 * sy)


def is_kept(box: Box) -> bool:
    """Whether a scaled box is large enough for its kart to count as visible under the course rule."""
    return min(box_size(box)) >= MIN_SIDE


def box_size(box: Box) -> tuple[int, int]:
    """Width and height."""
    x1, y1, x2, y2 = box
    return x2 - x1, y2 - y1


def read_scene(view: View, transform: Callable[[Box], Box] | None = None, rules: RuleSet = COURSE_RULES) -> Scene:
    """Apply rules to a view; `transform` maps its 600x400 boxes first (mirroring, cropping)."""
    seen: dict[str, list[Kart]] = {"karts": [], "unclear": [], "specks": []}
    line_up = view.frame.karts
    for detection in view.detections:
        if detection.class_id == KART_CLASS:
            box = scale_box(transform(detection.box) if transform else detection.box)
            kart = Kart(detection.object_id, line_up[detection.object_id], box, detection.distance)
            seen[rules.sort(box, detection)].append(kart)
    found = _find_ego(seen["karts"], seen["unclear"], view.index, rules)
    ego, no_ego = (found, None) if isinstance(found, Kart) else (None, found)
    groups = {name: tuple(karts) for name, karts in seen.items() if rules.declines or name == "karts"}
    return Scene(view.frame.track, ego=ego, rules=rules, no_ego=no_ego, line_up=line_up, **groups)


def off_middle(kart: Kart) -> float:
    """Squared distance in px of a kart's centre from the middle of the picture."""
    (cx, cy), (width, height) = kart.centre, IMAGE_SIZE
    return (cx - width / 2) ** 2 + (cy - height / 2) ** 2


def _find_ego(karts: list[Kart], unclear: list[Kart], followed: int, rules: RuleSet) -> Kart | Reason:
    """The kart nearest the middle among all that the course rule keeps; ties go to the lower kart id.

    Rules that decline want it to be what a viewer would call so, too: clearly visible, and what the camera follows.
    """
    kept = [kart for kart in (*karts, *unclear) if is_kept(kart.box)]
    if not kept:
        return Reason.NO_KART
    ego = min(kept, key=lambda kart: (off_middle(kart), kart.object_id))
    if not rules.declines:
        return ego
    if ego.object_id != followed:
        return Reason.EGO_NOT_FOLLOWED
    reach = sqrt(off_middle(ego)) + rules.level
    if any(sqrt(off_middle(kart)) < reach for kart in kept if kart is not ego):
        return Reason.EGO_TIED
    return ego if any(ego is kart for kart in karts) else Reason.EGO_UNCLEAR


def side(kart: Kart, ego: Kart) -> str:
    """`left` (level counts as left) or `right` of the ego kart."""
    return "left" if kart.centre[0] <= ego.centre[0] else "right"


def depth(kart: Kart, ego: Kart) -> str:
    """`front` (higher in the picture) or `back` (level counts as back) of the ego kart."""
    return "front" if kart.centre[1] < ego.centre[1] else "back"


def sure_side(kart: Kart, other: Kart, rules: RuleSet) -> str | Reason:
    """`side`, declined where the centres stand nearly above each other."""
    if rules.declines and abs(kart.centre[0] - other.centre[0]) < rules.level:
        return Reason.LEVEL
    return side(kart, other)


def sure_depth(kart: Kart, other: Kart, rules: RuleSet) -> str | Reason:
    """`depth`, declined where the centres are nearly level, and where what is higher in the picture is not clearly
    farther away (by distance where the frames give it, else by the lower edges, on which karts stand)."""
    answer = depth(kart, other)
    if not rules.declines:
        return answer
    if abs(kart.centre[1] - other.centre[1]) < rules.level:
        return Reason.LEVEL
    if kart.distance is not None and other.distance is not None:
        near, far = sorted((kart.distance, other.distance))
        if far < near * rules.nearer:
            return Reason.DEPTH_DOUBT
        farther = kart.distance > other.distance
    else:
        farther = kart.box[3] < other.box[3]
    return answer if farther == (answer == "front") else Reason.DEPTH_DOUBT


def sure_nearer(kart: Kart, other: Kart, rules: RuleSet) -> bool | Reason:
    """Whether a kart is nearer to the camera than another.

    Without distances the nearer kart must both reach lower in the picture and be taller than karts differ in build.
    """
    if kart.distance is not None and other.distance is not None:
        near, far = sorted((kart.distance, other.distance))
        return kart.distance == near if far > near and far >= near * rules.nearer else Reason.EQUALLY_FAR
    (_, top, _, low), (_, other_top, _, other_low) = kart.box, other.box
    if low > other_low and low - top >= (other_low - other_top) * rules.taller:
        return True
    if other_low > low and other_low - other_top >= (low - top) * rules.taller:
        return False
    return Reason.EQUALLY_FAR


def mirror_box(box: Box) -> Box:
    """The box in the left-right mirrored picture, px in the 600x400 frame."""
    x1, y1, x2, y2 = box
    last = BOX_FRAME[0] - 1
    return last - x2, y1, last - x1, y2
