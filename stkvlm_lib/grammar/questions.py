"""The families of questions: wordings, possible answers, and the answer that a scene gives or why it gives none.

The first ten families are the course's, in the order of its table; `ask_all` asks just these in the course's wording.
`ask_extended` asks all families in varied wordings. Family ids and the order of wordings are stable; other programs
read them.

A family of your own is one entry in the table below, with what it answers in `answers`, and its phrases in
wordings.json; `pretrained=False`, as the embedded base has not met it. The tests then ask for what they check it by:
why it declines, and wordings in benchmarks/own_words.json that no training draws.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache, partial

from stkvlm_lib.grammar import answers
from stkvlm_lib.grammar.families import COURSE, UNKNOWN, Asked, Declined, Family
from stkvlm_lib.grammar.kart_colours import COLOURS
from stkvlm_lib.grammar.names import KARTS, TRACKS
from stkvlm_lib.grammar.scene import Reason, Scene
from stkvlm_lib.grammar.spelling import plain

OTHER = "other"
"""The family id of a question whose wording belongs to no family."""

_COUNTS = tuple(str(n) for n in range(1, 11))
_YES_NO = ("yes", "no")
_of_course = partial(Family, group=COURSE, always_told=True)
_FAMILIES = (
    _of_course(
        "ego",
        "What kart is the ego car?",
        ("Which kart is the ego car?", "What is the name of the ego car?", "Which kart does the camera follow?"),
        tuple(KARTS),
        lambda scene: scene.ego.name,
        needs_ego=True,
        names="karts",
    ),
    _of_course(
        "count",
        "How many karts are there in the scenario?",
        ("How many karts are in view?", "What is the number of karts in the picture?", "How many karts can you see?"),
        _COUNTS,
        answers.count,
    ),
    _of_course(
        "track",
        "What track is this?",
        ("Which track is this?", "What is the name of the track?", "On which track does this race take place?"),
        tuple(TRACKS),
        lambda scene: scene.track,
        names="track",
    ),
    _of_course(
        "left_right",
        "Is {kart} to the left or right of the ego car?",
        (
            "On which side of the ego car is {kart}, left or right?",
            "Is {kart} left or right of the ego car?",
            "Seen from the ego car, is {kart} on the left or on the right?",
        ),
        ("left", "right"),
        answers.left_right,
        answers.others,
        needs_ego=True,
    ),
    _of_course(
        "front_back",
        "Is {kart} in front of or behind the ego car?",
        (
            "Is {kart} ahead of or behind the ego car?",
            "Relative to the ego car, is {kart} in the front or in the back?",
            "Does {kart} drive in front of the ego car or in back of it?",
        ),
        ("front", "back"),
        answers.front_back,
        answers.others,
        needs_ego=True,
    ),
    _of_course(
        "where",
        "Where is {kart} relative to the ego car?",
        (
            "Where is {kart} as seen from the ego car?",
            "In which direction from the ego car is {kart}?",
            "What is the position of {kart} relative to the ego car?",
        ),
        ("front and left", "front and right", "back and left", "back and right"),
        answers.where,
        answers.others,
        needs_ego=True,
    ),
    *(
        _of_course(
            name,
            f"How many karts are {place} the ego car?",
            (
                f"How many karts do you see {place} the ego car?",
                f"What is the number of karts {place} the ego car?",
                f"Count the karts {place} the ego car.",
            ),
            _COUNTS[:9],
            answers.count_where(relation, value),
            needs_ego=True,
            besides={Reason.NONE: "0"},
        )
        for name, place, relation, value in (
            ("count_left", "to the left of", answers.left_right, "left"),
            ("count_right", "to the right of", answers.left_right, "right"),
            ("count_front", "in front of", answers.front_back, "front"),
            ("count_behind", "behind", answers.front_back, "back"),
        )
    ),
    Family(
        "ego_colour",
        "What colour is the ego car?",
        (
            "Which colour does the ego car have?",
            "What is the colour of the ego car?",
            "Name the colour of the ego car.",
        ),
        COLOURS,
        lambda scene: answers.colour(scene.ego),
        needs_ego=True,
        besides={Reason.NO_COLOUR: UNKNOWN},
    ),
    Family(
        "kart_colour",
        "What colour is {kart}?",
        ("Which colour does {kart} have?", "What is the colour of {kart}?", "Name the colour of {kart}."),
        COLOURS,
        lambda scene, kart: answers.colour(kart),
        answers.each,
        besides={Reason.NO_COLOUR: UNKNOWN},
    ),
    Family(
        "in_view",
        "Is {kart} in view?",
        ("Can you see {kart}?", "Is {kart} in the picture?", "Does the picture show {kart}?"),
        _YES_NO,
        lambda scene, kart: "yes" if kart in scene.karts else "no",
        subjects=answers.in_view_or_not,
        asks_absent=True,
    ),
    Family(
        "nearest",
        "Which kart other than the ego car is nearest to the camera?",
        (
            "Apart from the ego car, which kart is nearest to the camera?",
            "Which kart is nearest to the camera, not counting the ego car?",
            "Leaving out the ego car, which kart is closest to the camera?",
        ),
        tuple(KARTS),
        answers.nearest,
        needs_ego=True,
        names="karts",
    ),
    Family(
        "farthest",
        "Which kart is farthest from the camera?",
        (
            "Of all karts in view, which is farthest from the camera?",
            "Which kart has the greatest distance to the camera?",
            "Which kart in the picture is the most distant one?",
        ),
        tuple(KARTS),
        answers.farthest,
        names="karts",
    ),
    *(
        Family(
            f"{value}most",
            f"Which kart is farthest to the {value} in the picture?",
            (
                f"Which is the {value}most kart?",
                f"Of all karts in view, which is farthest to the {value}?",
                f"Which kart is nearest to the {value} edge of the picture?",
            ),
            tuple(KARTS),
            answers.outermost(value, opposite),
            names="karts",
        )
        for value, opposite in (("left", "right"), ("right", "left"))
    ),
    Family(
        "directly_front",
        "Which kart is directly in front of the ego car?",
        (
            "Which kart is straight ahead of the ego car?",
            "Which kart does the ego car follow directly?",
            "Name the kart right in front of the ego car.",
        ),
        tuple(KARTS),
        answers.directly_front,
        needs_ego=True,
        names="karts",
    ),
    Family(
        "more_side",
        "Are there more karts to the left or to the right of the ego car?",
        (
            "On which side of the ego car are there more karts, left or right?",
            "Are more karts left or right of the ego car?",
            "Which side of the ego car has more karts, the left or the right?",
        ),
        ("left", "right", "equal"),
        answers.more_side,
        needs_ego=True,
    ),
    Family(
        "left_of",
        "Is {a} to the left of {b}?",
        ("Is {a} left of {b}?", "Is {a} farther to the left than {b}?", "Does {a} stand to the left of {b}?"),
        _YES_NO,
        answers.left_of,
        answers.pairs,
    ),
    Family(
        "nearer",
        "Is {a} nearer to the camera than {b}?",
        ("Is {a} nearer than {b}?", "Is {a} closer to the camera than {b}?", "Does {a} drive nearer to us than {b}?"),
        _YES_NO,
        answers.nearer,
        answers.pairs,
    ),
    Family(
        "clock",
        "At which o'clock is {kart}, seen from the ego car?",
        (
            "At what hour of the clock is {kart} from the ego car?",
            "Which hour does a clock hand show that points from the ego car to {kart}?",
            "On a clock face around the ego car, at which hour is {kart}?",
        ),
        tuple(str(hour) for hour in range(1, 13)),
        answers.clock,
        answers.others,
        needs_ego=True,
        always_told=True,
        pretrained=False,
    ),
)
FAMILIES: dict[str, Family] = {family.name: family for family in _FAMILIES}
"""All families by their ids, the course's ten first."""
COURSE_FAMILIES: dict[str, Family] = {name: family for name, family in FAMILIES.items() if family.group == COURSE}
PRETRAINED: dict[str, Family] = {name: family for name, family in FAMILIES.items() if family.pretrained}
"""Those that the embedded base is trained on; the others it first meets in fine-tuning."""
NEVER_OF_COURSE = tuple(sorted({UNKNOWN}.union(*(family.besides.values() for family in FAMILIES.values()))))
"""Answers that the course's own wordings never get: `unknown`, and a count of none, which its files never ask for."""


def ask_all(scene: Scene) -> Iterator[tuple[str, str, str]]:
    """Every (family, question, answer) of the course's ten families, in their fixed order and the course's wording."""
    for family in COURSE_FAMILIES.values():
        for names, answer in family.about(scene):
            if not isinstance(answer, Reason):
                yield family.name, family.write(0, names), answer


def ask_extended(scene: Scene, key: str, seed: int, held_out: bool = False) -> Iterator[Asked | Declined]:
    """Every question of every family, each in one drawn wording, and every question declined (see Family.ask)."""
    for family in FAMILIES.values():
        yield from family.ask(scene, key, seed, held_out)


@lru_cache(maxsize=1 << 16)
def read_question(question: str) -> tuple[str, int, tuple[str, ...]]:
    """(family id, number of the wording, names of the karts asked about), or (`other`, 0, ()), however spelled."""
    spelled = plain(question)
    for family in FAMILIES.values():
        if found := family.read(spelled):
            return family.name, *found
    return OTHER, 0, ()


def is_of_course(question: str) -> bool:
    """Whether a question is one of the course's ten forms in the course's wording, about karts of the game: it has an
    answer by the course's rule, so that `unknown` is none."""
    name, wording, names = read_question(question)
    return name in COURSE_FAMILIES and wording == 0 and set(names) <= set(KARTS)


def family_of(question: str) -> str:
    """The family id of a question by its wording, or `other`."""
    return read_question(question)[0]


def answer(question: str, scene: Scene) -> str | Reason:
    """What a scene answers to a question of any family and wording, or why it does not; ValueError for other text."""
    name, _, names = read_question(question)
    if name == OTHER:
        raise ValueError(f"{question!r}: the wording belongs to no family")
    return FAMILIES[name].answer_about(scene, tuple(map(scene.find, names)))


def normalise(answer: str) -> str:
    """The form in which answers are compared: lower case, without surrounding space."""
    return answer.strip().lower()


def is_exact(given: str, answer: str) -> bool:
    """Strict match, the rule of every score: the whole answer, lower-cased and stripped."""
    return normalise(given) == normalise(answer)


def in_order(families: Iterable[str]) -> list[str]:
    """Families in their fixed order, unknown ones last."""
    known = list(FAMILIES)
    return sorted(families, key=lambda name: (known.index(name) if name in known else len(known), name))
