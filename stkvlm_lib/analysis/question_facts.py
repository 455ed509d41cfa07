"""What the frames say of each scored question: the karts it hangs on, how plain these are, how near it is to the rule.

Errors are understood by it: slices, error budget and ceiling read these facts and no picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import sqrt

from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.data.frame_statistics import track_kart_pairs
from stkvlm_lib.data.frames import KART_CLASS, FramesError, View
from stkvlm_lib.evaluation.predictions import Prediction
from stkvlm_lib.grammar.questions import FAMILIES, OTHER, answer, read_question
from stkvlm_lib.grammar.scene import MIN_SIDE, STRICT_RULES, Kart, Reason, box_size, off_middle, read_scene
from stkvlm_lib.qa.qa_sets import TRAIN

PIXEL = 1
"""px of the 150x100 frame: so near to a limit of the rule, truncation and a box's edge decide."""
SEES_ALL = ("count", "count_left", "count_right", "count_front", "count_behind", "more_side")
"""Families that hang on every kart of the picture, or every one on a side."""
_AXES = {"left_right": (0,), "front_back": (1,), "where": (0, 1), "left_of": (0,), "more_side": (0,)}
_AXES |= {"count_left": (0,), "count_right": (0,), "count_front": (1,), "count_behind": (1,)}
"""Family -> axes of the picture on which it compares centres."""
COUNTED = {"count_left": ("left_right", "left"), "count_right": ("left_right", "right")}
COUNTED |= {"count_front": ("front_back", "front"), "count_behind": ("front_back", "back")}
"""Relative count -> the family that asks the same of one kart, and the answer that is counted."""


@dataclass(frozen=True)
class Facts:
    """One question. Sizes in px of the 150x100 frame; None where it does not apply or the frames do not say.

    karts: in view under the course rule. size, visible: shorter side of the box and visible share (0..1) of the kart
    asked about, or of the ego kart where it is what is asked for; known: whether train has that kart on this track.
    pixel, small, hidden, level: how many of the karts it hangs on are within a pixel of the rule's limits, under the
    strict rule's size, under its visible share or pixels, under its distance from level; hard: in any of these ways.
    elsewhere: where the other karts stand, as answers of `where`. declined: why the strict rules would not ask it.
    """

    view: int
    karts: int
    size: int | None = None
    visible: float | None = None
    known: bool | None = None
    pixel: int = 0
    small: int = 0
    hidden: int = 0
    level: int = 0
    hard: int = 0
    elsewhere: frozenset[str] = frozenset()
    declined: Reason | None = None


def read_facts(predictions: Sequence[Prediction], folder: FrameSet) -> list[Facts]:
    """The facts of every question, in their order. Raises FramesError for a picture that is not in the folder."""
    train = track_kart_pairs(folder.frames(TRAIN)) if folder.splits.get(TRAIN) else None

    @cache
    def picture(image_file: str) -> _Picture:
        if image_file not in folder.by_image_file:
            raise FramesError(
                f"{folder.root}: no picture {image_file}; give the data folder the questions were made of"
            )
        return _Picture(folder.by_image_file[image_file], train)

    return [picture(p.image_file).facts(p.question) for p in predictions]


class _Picture:
    """One view under both sets of rules. shown: the karts that count, and those detected that are too small for it."""

    def __init__(self, view: View, train: set[tuple[str, str]] | None):
        self.view, self.train = view, train
        self.scene, self.strict = read_scene(view), read_scene(view, rules=STRICT_RULES)
        self.visible = {d.object_id: d.visible for d in view.detections if d.class_id == KART_CLASS}
        kept = {kart.object_id for kart in self.scene.karts}
        small = (kart for kart in self.strict.detected if kart.object_id not in kept)
        self.shown = (*self.scene.karts, *(kart for kart in small if _shorter(kart) >= STRICT_RULES.speck[0]))

    def facts(self, question: str) -> Facts:
        family, _, names = read_question(question)
        view, karts = self.view.index, len(self.scene.karts)
        if family == OTHER:
            return Facts(view, karts)
        subject = self._subject(family, names)
        hangs_on = self._hangs_on(family, names)
        pixel = {k.object_id for k in hangs_on if self._is_pixel(family, k)}
        small = {k.object_id for k in hangs_on if _shorter(k) < STRICT_RULES.min_side}
        hidden = {k.object_id for k in hangs_on if self._is_hidden(k)}
        level = {k.object_id for k in hangs_on if _off_level(family, k, self.scene.ego) < STRICT_RULES.level}
        told = answer(question, self.strict)
        return Facts(
            view=view,
            karts=karts,
            size=_shorter(subject) if subject else None,
            visible=self.visible[subject.object_id] if subject else None,
            known=(self.scene.track, subject.name) in self.train if subject and self.train is not None else None,
            pixel=len(pixel),
            small=len(small),
            hidden=len(hidden),
            level=len(level),
            hard=len(pixel | small | hidden | level),
            elsewhere=self._zones_of_others(names),
            declined=told if isinstance(told, Reason) else None,
        )

    def _subject(self, family: str, names: Sequence[str]) -> Kart | None:
        """The kart asked about, else the ego kart where it is what is asked for; None where no kart is."""
        if names:
            return next((kart for kart in self.shown if kart.name == names[0]), None)
        return self.scene.ego if family in ("ego", "ego_colour") else None

    def _hangs_on(self, family: str, names: Sequence[str]) -> list[Kart]:
        """Whose place or presence decides the answer: those named, the ego kart asked for, or all that are counted."""
        if family in SEES_ALL:
            return [kart for kart in self.shown if self._may_count(family, kart)]
        named = [kart for kart in self.shown if kart.name in names]
        return [*named, self.scene.ego] if family in ("ego", "ego_colour") and self.scene.ego else named

    def _may_count(self, family: str, kart: Kart) -> bool:
        """Whether a kart is counted, or would be if a pixel were otherwise."""
        ego = self.scene.ego
        if family not in COUNTED or ego is None:
            return family in ("count", "more_side")
        relation, value = COUNTED[family]
        return kart is not ego and (self._told(relation, kart) == value or _off_level(family, kart, ego) <= PIXEL)

    def _told(self, family: str, kart: Kart) -> str:
        return str(FAMILIES[family].answer_about(self.scene, (kart,)))

    def _is_pixel(self, family: str, kart: Kart) -> bool:
        counted = family in SEES_ALL and MIN_SIDE - PIXEL <= _shorter(kart) < MIN_SIDE + PIXEL
        return counted or _off_level(family, kart, self.scene.ego) <= PIXEL or self._ego_is_pixel(family)

    def _ego_is_pixel(self, family: str) -> bool:
        """Whether another kart is within a pixel of being the one nearest the middle."""
        if not FAMILIES[family].needs_ego or self.scene.ego is None:
            return False
        reach = sqrt(off_middle(self.scene.ego)) + PIXEL
        return any(sqrt(off_middle(kart)) <= reach for kart in self.scene.others)

    def _is_hidden(self, kart: Kart) -> bool:
        return _shorter(kart) >= STRICT_RULES.min_side and kart not in self.strict.karts

    def _zones_of_others(self, names: Sequence[str]) -> frozenset[str]:
        """Where the karts stand that are neither asked about nor the ego kart."""
        others = self.scene.others if self.scene.ego and names else ()
        return frozenset(self._told("where", kart) for kart in others if kart.name not in names)


def _shorter(kart: Kart) -> int:
    return min(box_size(kart.box))


def _off_level(family: str, kart: Kart, ego: Kart | None) -> float:
    """The least distance in px of two centres that the family compares; infinite where it compares none."""
    axes = _AXES.get(family, ()) if ego is not None and kart is not ego else ()
    return min((abs(kart.centre[axis] - ego.centre[axis]) for axis in axes), default=float("inf"))
