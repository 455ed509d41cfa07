"""Questions in own words: wordings that no training has seen, beside the same questions in their family's template.

A file of them is a JSON object: of each family's id a list of wordings, with `{kart}` (or `{a}` and `{b}`) for the
karts asked about, and under `unknown` a list of questions that nothing in a picture answers. Truth follows the strict
rules, which ask only what a person could tell from the picture.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

from stkvlm_lib.config import ScoreConfig
from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.data.frames import View
from stkvlm_lib.evaluation.question_sets import reworded
from stkvlm_lib.files import read_json
from stkvlm_lib.grammar.families import Asked, Family, pick
from stkvlm_lib.grammar.questions import FAMILIES, OTHER, read_question
from stkvlm_lib.grammar.scene import STRICT_RULES, read_scene
from stkvlm_lib.grammar.wordings import UNKNOWN, fill
from stkvlm_lib.qa.qa_sets import CUSTOM_SPLIT, QaError, Record, make_record

REMEDY = "give a JSON object of family ids and `unknown`, each with a list of texts, in OWN_WORDS_FILE"
_KEY = "own words"
_SLOT = re.compile(r"\{(\w*)\}")


@dataclass(frozen=True)
class OwnWords:
    """wordings: {family: its wordings, places for karts left open}. unanswerable: whole questions."""

    wordings: Mapping[str, tuple[str, ...]]
    unanswerable: tuple[str, ...] = ()


def read_own_words(config: ScoreConfig) -> OwnWords:
    """OWN_WORDS_FILE, empty where OWN_WORDS_PICTURES is 0. Raises QaError or FileNotFoundError naming file and item."""
    if not config.own_words_pictures:
        return OwnWords({})
    path = config.own_words_path
    lists = read_json(path, REMEDY)
    if not isinstance(lists, dict) or not lists:
        raise QaError(f"{path}: {'an empty object' if lists == {} else 'not an object'}; {REMEDY}")
    if strange := sorted(set(lists) - {*FAMILIES, UNKNOWN}):
        raise QaError(f"{path}: no family {', '.join(strange)}; valid ones are {', '.join((*FAMILIES, UNKNOWN))}")
    texts = {name: tuple(_checked(path, name, lists[name])) for name in (*FAMILIES, UNKNOWN) if name in lists}
    unanswerable = texts.pop(UNKNOWN, ())
    if not any(texts.values()):
        raise QaError(f"{path}: no wording of a family; {REMEDY}")
    return OwnWords(texts, unanswerable)


def _checked(path: Path, name: str, texts: object) -> Iterator[str]:
    """The texts of a family or of `unknown`, each with the places for karts that it needs."""
    if not isinstance(texts, list):
        raise QaError(f"{path}: {name} is not a list; {REMEDY}")
    slots = FAMILIES[name].slots if name in FAMILIES else ()
    for number, text in enumerate(texts):
        where = f"{path}: {name}, item {number}"
        if not isinstance(text, str) or not text.strip():
            raise QaError(f"{where} is {text!r:.40}; give a text")
        if sorted(_SLOT.findall(text)) != sorted(slots):
            wanted = " and ".join(f"{{{slot}}}" for slot in slots) or "no place for a kart"
            raise QaError(f"{where}, {text!r:.80}, needs {wanted}, once each")
        yield text


def questions(
    frames: FrameSet, config: ScoreConfig, split: str, words: OwnWords, records: Sequence[Record]
) -> list[Record]:
    """Each wording about OWN_WORDS_PICTURES of the scored pictures, the unanswerable questions, and the former again
    in their template. The parts are told apart by family and wording.

    records: what is scored of the split. None for questions of the user's own, and where nothing is to be asked.
    """
    if split == CUSTOM_SPLIT:
        return []
    views = DrawnViews(frames, (record.image_file for record in records), config.seed)
    pairs = draw_pairs(views, words, config.own_words_pictures)
    nothing = draw_unanswerable(views, words, config.own_words_pictures)
    return [*(own for own, _ in pairs), *nothing, *(template for _, template in pairs)] if pairs else []


class DrawnViews:
    """The views of some pictures in a drawn order, the same for any order of their names; parsed when reached."""

    def __init__(self, frames: FrameSet, image_files: Iterable[str], seed: int):
        self.seed = seed
        self._views = frames.by_image_file
        self._names = sorted(set(image_files), key=lambda name: self.pick(1 << 64, name))

    def pick(self, n: int, *key: str) -> int:
        """A number from 0 to n - 1 that follows from seed and key."""
        return pick(n, _KEY, self.seed, *key)

    def of(self, key: str) -> Iterator[View]:
        """All of them, from a place on that follows from the key."""
        start = self.pick(len(self._names), key)
        for name in chain(self._names[start:], self._names[:start]):
            yield self._views[name]


def draw_pairs(views: DrawnViews, words: OwnWords, n: int) -> list[tuple[Record, Record]]:
    """Every wording about n pictures, fewer where its family can be asked of fewer; -> the question in own words, and
    the same one in its family's template.

    A family goes on to other pictures from wording to wording, and begins again when all have been taken.
    """
    pairs = []
    for name, texts in words.wordings.items():
        pool = list(islice(_questions(views, FAMILIES[name]), n * len(texts)))
        for number, text in enumerate(texts):
            turn = (pool[(number * n + i) % len(pool)] for i in range(min(n, len(pool))))
            pairs += [(_in_own_words(template, text, number), template) for template in turn]
    return pairs


def draw_unanswerable(views: DrawnViews, words: OwnWords, n: int) -> list[Record]:
    """Every unanswerable question about n pictures."""
    asked = words.unanswerable
    return [_record(view, question, UNKNOWN, OTHER) for question in asked for view in islice(views.of(question), n)]


def _questions(views: DrawnViews, family: Family) -> Iterator[Record]:
    """One question of a family, in its template, about each picture that it can be asked of."""
    for view in views.of(family.name):
        scene = read_scene(view, rules=STRICT_RULES)
        found = [a for a in family.ask(scene, view.image_file, views.seed) if isinstance(a, Asked)]
        if found:
            asked = found[views.pick(len(found), family.name, view.image_file)]
            yield reworded(_record(view, asked.question, asked.answer, family.name), 0)


def _record(view: View, question: str, answer: str, family: str) -> Record:
    return make_record(view, question, answer, family, view.frame.split, STRICT_RULES.name)


def _in_own_words(record: Record, text: str, number: int) -> Record:
    """The same question in other words, whose number follows those of the family's own wordings."""
    family = FAMILIES[record.family]
    names = dict(zip(family.slots, read_question(record.question)[2], strict=True))
    return replace(record, question=fill(text, names), wording=len(family.wordings) + number)
