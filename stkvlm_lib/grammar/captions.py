"""The course's caption sentences, and its multiple choice: five sentences about a picture, one of them true.

A caption states what a family of questions asks; its family names it. (The dense captions of pretraining are others.)
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from stkvlm_lib.grammar.families import Declined
from stkvlm_lib.grammar.names import COURSE_ONLY_KARTS, KARTS
from stkvlm_lib.grammar.questions import FAMILIES, OTHER
from stkvlm_lib.grammar.scene import Reason, Scene
from stkvlm_lib.grammar.spelling import one_word

CANDIDATES = 5
"""Sentences of an item, as in the course's files."""
_FORMS = {
    "ego": "{answer} is the ego car.",
    "count": "There are {answer} karts in the scene.",
    "track": "The track is {answer}.",
    "left_right": "{kart} is {answer} the ego car.",
    "front_back": "{kart} is {answer} the ego car.",
}
"""Family -> sentence, in the course's wording."""
_PLACES = {"left": "left of", "right": "right of", "front": "in front of", "back": "behind"}
_RELATIONS = ("left_right", "front_back")


@dataclass(frozen=True)
class Caption:
    """A true sentence about a scene. subject: the kart that it places, or `` for sentences about the whole scene."""

    family: str
    subject: str
    text: str


@dataclass(frozen=True)
class Choice:
    """An item of the multiple choice: five sentences, of which the one at `correct_index` is true."""

    family: str
    candidates: tuple[str, ...]
    correct_index: int


def captions(scene: Scene) -> Iterator[Caption | Declined]:
    """Every caption of a scene, and every one declined, by the rules of the scene."""
    for name in _FORMS:
        for names, told in FAMILIES[name].about(scene):
            kart = "".join(names)
            yield Declined(name, told) if isinstance(told, Reason) else Caption(name, kart, _state(name, told, kart))


def multiple_choice(scene: Scene, key: str, seed: int) -> Iterator[Choice | Declined]:
    """An item for every caption of a scene, and every one declined; seeded by item. key: names the scene.

    Declined are also captions of which too few false ones can be made, as where every kart that we know is in the race.
    """
    for caption in captions(scene):
        if isinstance(caption, Declined):
            yield caption
            continue
        rng = random.Random(f"choice-{seed}-{key}-{caption.family}-{caption.subject}")
        wrong = [text for text in dict.fromkeys(_wrong(scene, caption, rng)) if text != caption.text]
        candidates = [caption.text, *wrong[: CANDIDATES - 1]]
        if len(candidates) < CANDIDATES:
            yield Declined(caption.family, Reason.TOO_FEW)
            continue
        rng.shuffle(candidates)
        yield Choice(caption.family, tuple(candidates), candidates.index(caption.text))


def read_caption(text: str) -> tuple[str, str, str] | None:
    """(family, question, answer) that a caption states, the question in the family's own wording; None for other text.

    The answer need not be one of the family's: a file may name a track that we do not know.
    """
    for name, pattern in _PATTERNS:
        if match := pattern.fullmatch(text.strip()):
            asked = match.groupdict()
            told = asked.pop("answer")
            return name, FAMILIES[name].write(0, asked.values()), _ANSWERS.get(told, told)
    return None


def family_of_caption(text: str) -> str:
    """The family that a caption answers, or `other`."""
    found = read_caption(text)
    return found[0] if found else OTHER


def _state(family: str, answer: str, kart: str = "") -> str:
    return _FORMS[family].format(kart=one_word(kart), answer=_PLACES.get(answer) or one_word(answer))


def _pattern(family: str) -> re.Pattern:
    told = "|".join(_PLACES[a] for a in FAMILIES[family].answers) if family in _RELATIONS else r"\S+"
    form = re.escape(_FORMS[family]).replace("scene", "(?:scene|scenario)")  # the course writes both
    return re.compile(form.replace(r"\{kart\}", r"(?P<kart>\S+)").replace(r"\{answer\}", f"(?P<answer>{told})"))


_PATTERNS = [(name, _pattern(name)) for name in _FORMS]
_ANSWERS = {text: answer for answer, text in _PLACES.items()}


def _wrong(scene: Scene, caption: Caption, rng: random.Random) -> list[str]:
    """Sentences of the caption's kind that are false of the scene, the most plausible first, each once."""
    if caption.family in _RELATIONS:
        return _wrong_places(scene, caption, rng)
    told = FAMILIES[caption.family].answer_about(scene, ())
    if caption.family == "count":
        near = sorted((n for n in range(1, 11) if n != int(told)), key=lambda n: (abs(n - int(told)), n))[:6]
        wrong = [str(n) for n in rng.sample(near, len(near))]
    elif caption.family == "ego":
        wrong = _names(scene, told, rng)
    else:
        wrong = [track for track in FAMILIES["track"].answers if track != told]
        rng.shuffle(wrong)
    return [_state(caption.family, answer) for answer in wrong]


def _names(scene: Scene, ego: str, rng: random.Random) -> list[str]:
    """Karts that are not the ego kart: first those in view, then those of the race, then others."""
    in_view = {kart.name for kart in scene.detected}
    piles = [in_view, set(scene.line_up) - in_view, set(KARTS) - set(scene.line_up) - in_view - set(COURSE_ONLY_KARTS)]
    return [name for pile in piles for name in _shuffled(pile - {ego}, rng)]


def _wrong_places(scene: Scene, caption: Caption, rng: random.Random) -> list[str]:
    """The opposite; both places of a kart that is not in the race, so that a pair of opposites gives nothing away;
    what is false of the karts in view; and places of other karts that are not in the race."""
    opposite, others = [], []
    for name in _RELATIONS:
        family = FAMILIES[name]
        for kart in sorted(scene.others, key=lambda kart: kart.name):
            told = family.answer_about(scene, (kart,))
            if not isinstance(told, Reason):
                false = _state(name, next(a for a in family.answers if a != told), kart.name)
                (opposite if (name, kart.name) == (caption.family, caption.subject) else others).append(false)
    elsewhere = set(KARTS) - set(scene.line_up) - {kart.name for kart in scene.detected}
    strangers = _shuffled(elsewhere - set(COURSE_ONLY_KARTS), rng) + sorted(elsewhere & set(COURSE_ONLY_KARTS))
    pair = [_state(caption.family, told, name) for name in strangers[:1] for told in FAMILIES[caption.family].answers]
    places = [(name, answer) for name in _RELATIONS for answer in FAMILIES[name].answers]
    return opposite + pair + _shuffled(others, rng) + [_state(*rng.choice(places), name) for name in strangers[1:]]


def _shuffled(items, rng: random.Random) -> list[str]:
    return rng.sample(sorted(items), len(items))
