"""The course's ten question families: wording and answer of a scene, in the order of the table below.

Adding a family means adding one entry to FAMILIES. Family ids are stable; other programs read them.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from stkvlm_lib.scene import Kart, Scene, depth, side

KARTS = [
    "adiumy",
    "amanda",
    "beastie",
    "emule",
    "gavroche",
    "gnu",
    "hexley",
    "kiki",
    "konqi",
    "nolok",
    "pidgin",
    "puffy",
    "sara_the_racer",
    "sara_the_wizard",
    "suzanne",
    "tux",
    "wilber",
    "xue",
]
"""The 18 karts of the course; the game itself has all but beastie and hexley."""
TRACKS = [
    "abyss",
    "black_forest",
    "candela_city",
    "cocoa_temple",
    "cornfield_crossing",
    "fortmagma",
    "gran_paradiso_island",
    "hacienda",
    "lighthouse",
    "mines",
    "minigolf",
    "olivermath",
    "overworld",
    "ravenbridge_mansion",
    "sandtrack",
    "scotland",
    "snowmountain",
    "snowtuxpeak",
    "stk_enterprise",
    "tutorial",
    "volcano_island",
    "xr591",
    "zengarden",
]
"""The union of the course's 21 tracks and the game's (mines, stk_enterprise)."""
OTHER = "other"
"""The family id of a question whose wording belongs to no family."""


@dataclass(frozen=True)
class Family:
    """One kind of question.

    template: the wording; `{kart}` stands for a kart's name where the question is about one kart.
    answer: (scene, ego, asked kart or None) -> answer, or None where the question is not asked of that scene.
    """

    name: str
    template: str
    answers: tuple[str, ...]
    answer: Callable[[Scene, Kart | None, Kart | None], str | None]

    @property
    def about_kart(self) -> bool:
        return "{kart}" in self.template

    @cached_property
    def pattern(self) -> re.Pattern:
        return re.compile(re.escape(self.template).replace(r"\{kart\}", r"(?P<kart>\S+)"))

    def ask(self, scene: Scene) -> Iterator[tuple[str, str]]:
        """All (question, answer) pairs of this family for a scene."""
        subjects = scene.others if self.about_kart else (None,)
        for kart in subjects:
            answer = self.answer(scene, scene.ego, kart)
            if answer is not None:
                yield self.template.format(kart=kart.name if kart else ""), answer


def _count_where(relation: Callable[[Kart, Kart], str], value: str):
    def answer(scene: Scene, ego: Kart | None, _: None) -> str | None:
        count = sum(relation(kart, ego) == value for kart in scene.others)
        return str(count) if count else None  # a count of zero is never asked

    return answer


_COUNTS = tuple(str(n) for n in range(1, 11))
_FAMILIES = (
    Family("ego", "What kart is the ego car?", tuple(KARTS), lambda s, ego, _: ego.name if ego else None),
    Family(
        "count",
        "How many karts are there in the scenario?",
        _COUNTS,
        lambda s, ego, _: str(len(s.karts)) if ego else None,
    ),
    Family("track", "What track is this?", tuple(TRACKS), lambda s, ego, _: s.track),
    Family(
        "left_right",
        "Is {kart} to the left or right of the ego car?",
        ("left", "right"),
        lambda s, ego, kart: side(kart, ego),
    ),
    Family(
        "front_back",
        "Is {kart} in front of or behind the ego car?",
        ("front", "back"),
        lambda s, ego, kart: depth(kart, ego),
    ),
    Family(
        "where",
        "Where is {kart} relative to the ego car?",
        ("front and left", "front and right", "back and left", "back and right"),
        lambda s, ego, kart: f"{depth(kart, ego)} and {side(kart, ego)}",
    ),
    Family("count_left", "How many karts are to the left of the ego car?", _COUNTS[:9], _count_where(side, "left")),
    Family("count_right", "How many karts are to the right of the ego car?", _COUNTS[:9], _count_where(side, "right")),
    Family("count_front", "How many karts are in front of the ego car?", _COUNTS[:9], _count_where(depth, "front")),
    Family("count_behind", "How many karts are behind the ego car?", _COUNTS[:9], _count_where(depth, "back")),
)
FAMILIES: dict[str, Family] = {family.name: family for family in _FAMILIES}


def ask_all(scene: Scene) -> Iterator[tuple[str, str, str]]:
    """Every (family, question, answer) of a scene, families in their fixed order."""
    for family in FAMILIES.values():
        for question, answer in family.ask(scene):
            yield family.name, question, answer


def family_of(question: str) -> str:
    """The family id of a question by its wording, or `other`."""
    for family in FAMILIES.values():
        if family.pattern.fullmatch(question.strip()):
            return family.name
    return OTHER


def normalise(answer: str) -> str:
    """The form in which answers are compared: lower case, without surrounding space."""
    return answer.strip().lower()
