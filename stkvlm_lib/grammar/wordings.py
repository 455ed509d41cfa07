"""A language for the game: the many ways in which people put the questions of the families, and what is none of them.

`wordings.json` holds it as patterns, which anyone can read and extend: `(a|b)` is a choice, `<part>` one of a list, and
`{kart}`, `{a}`, `{b}` stand for the karts asked about. What is drawn is in the plain form of `spelling.plain`. The
wordings of the course, those held out from training and those of the test sets are never drawn. `reading` reads what
is drawn here.
"""

import json
import random
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from itertools import chain, islice, zip_longest
from pathlib import Path

from stkvlm_lib.grammar.families import COURSE, UNKNOWN, Family
from stkvlm_lib.grammar.names import KARTS
from stkvlm_lib.grammar.questions import FAMILIES
from stkvlm_lib.grammar.scene import Reason, Scene
from stkvlm_lib.grammar.spelling import one_word, plain

TASK_OF = "task_of"
"""Before a question: what is asked, without words? See `Worded.task`."""
POLITE = "please"
"""The part that may stand before any question."""
_LANGUAGE = Path(__file__).with_name("wordings.json")
_TEST_WORDINGS = Path(__file__).with_name("test_wordings.json")
_TOKEN = re.compile(r"[()|]|<\w+>|[^()|<>]+")
Pieces = tuple["str | tuple[str, ...]", ...]
_MISSPELT = 0.12
"""Share of the wordings with a slip of the keyboard."""
_FIXED = 0.15
"""Share of the questions in a wording that the families list."""
_BESIDES = 0.3
"""Share of the questions asked whose answer is in `Family.besides`, as a count of none, which most pictures have."""
_TRIES = 1000


class GrammarError(ValueError):
    """A pattern that cannot be read; the message shows it."""


@cache
def read_pattern(text: str) -> Pieces:
    """The pieces of a pattern in order: a text, `<part>`, or a choice as a tuple of patterns.

    Raises GrammarError for unbalanced brackets and stray signs.
    """
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != text:
        raise GrammarError(f"{text!r}: `<` and `>` stand around the name of a part alone")
    pieces: list[str | tuple[str, ...]] = []
    options, depth = [""], 0
    for token in tokens:
        depth += (token == "(") - (token == ")")
        if depth < 0 or (depth == 0 and token == "|"):
            raise GrammarError(f"{text!r}: a choice stands in brackets, as (a|b); `{token}` is too many")
        if depth == 0 and token == ")":
            pieces.append(tuple(options))
        elif depth == 0:
            pieces.append(token)
        elif depth == 1 and token == "(":
            options = [""]
        elif depth == 1 and token == "|":
            options.append("")
        else:
            options[-1] += token
    if depth:
        raise GrammarError(f"{text!r}: a bracket is not closed")
    return tuple(pieces)


class Language:
    """The wordings of a language file. words: what stands for any word in text that is no question of the game."""

    def __init__(self, data: dict, words: Sequence[str] = ()):
        self._data = data
        self._words = tuple(words)

    def patterns(self, family: str) -> list[str]:
        """The patterns of a family, or of what is `unknown`."""
        said = self._data["unknown"]["questions"] if family == UNKNOWN else self._data["families"].get(family)
        if not said:
            raise GrammarError(f"{family}: no wordings of people's own; list some under `families` in {_LANGUAGE}")
        return said

    def draw(self, family: str, rng: random.Random) -> str:
        """A wording of a family in plain form, its places for karts left open; none that is kept for tests."""
        for _ in range(_TRIES):
            said = self._say(rng.choice(self.patterns(family)), rng)
            if rng.random() < 0.4:
                said = f"{self._say(f'<{POLITE}>', rng)} {said}"
            said = _spaced(said)
            if rng.random() < _MISSPELT:
                said = plain(misspelt(said, rng))
            if said and not is_kept_back(said):
                return said
        raise GrammarError(f"{family}: the language has no wording beside those kept for tests; add patterns")

    def unanswerable(self, rng: random.Random, absent: Sequence[str] = ()) -> str:
        """A text that no picture answers, in plain form: about other things than the game's questions, about karts
        that are not in it, about karts that are not in view (`absent`), or no question at all."""
        named = [name for name, family in FAMILIES.items() if family.slots and not family.asks_absent]
        for _ in range(_TRIES):
            kind = rng.random()
            if kind < 0.5:
                said = self._say(rng.choice(self.patterns(UNKNOWN)), rng).replace("{kart}", rng.choice(KARTS))
            elif kind < 0.75 or not absent:
                said = self._about(
                    rng.choice([*named, "in_view"]), self._say(rng.choice(self._data["unknown"]["name"]), rng), rng
                )
            else:
                said = self._about(rng.choice(named), rng.choice(absent), rng)
            if not is_kept_back(said := plain(_spaced(said))):
                return said
        raise GrammarError("the language has nothing unanswerable beside what is kept for tests; add patterns")

    def _about(self, family: str, name: str, rng: random.Random) -> str:
        """A wording of a family about a kart of this name, and some kart of the game where it takes two."""
        slots = FAMILIES[family].slots
        names = {slot: rng.choice(KARTS) for slot in slots} | {rng.choice(slots): one_word(name)}
        return fill(self.draw(family, rng), names)

    def _say(self, text: str, rng: random.Random) -> str:
        """One of the texts of a pattern, spaces not yet in order."""
        said = []
        for piece in read_pattern(text):
            if isinstance(piece, tuple):
                said.append(self._say(rng.choice(piece), rng))
            else:
                said.append(self._part(piece[1:-1], rng) if piece[0] == "<" else piece)
        return "".join(said)

    def _part(self, name: str, rng: random.Random) -> str:
        parts, unknown = self._data["parts"], self._data.get("unknown", {})
        if name in parts:
            return self._say(rng.choice(parts[name]), rng)
        if name == "word":
            return rng.choice(self._words or tuple(unknown["script"]))
        if name == "number":
            return str(rng.randrange(1, 100))
        if name in ("letters", "letter"):
            return "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9) if name == "letters" else 1))
        if name in ("name", "script", "scripts"):
            return self._say(rng.choice(unknown[name.removesuffix("s")]), rng)
        raise GrammarError(f"<{name}>: there is no such part; valid ones are {', '.join(parts)}")

    def options(self, piece: str | tuple[str, ...]) -> Sequence[str] | None:
        """The patterns between which a piece chooses, each once; None where it is a text."""
        if isinstance(piece, str) and piece[0] != "<":
            return None
        return list(dict.fromkeys(piece if isinstance(piece, tuple) else self._data["parts"][piece[1:-1]]))

    @property
    def short(self) -> Mapping[str, str]:
        """What people write for words that they do not spell out, as `u` for `you`."""
        return self._data.get("short", {})

    @property
    def rephrased(self) -> Sequence[tuple[str, str]]:
        """Patterns of `re` with what stands for their text: other ways to say a part of a question, only ever read."""
        return self._data.get("rephrased", [])

    def vocabulary(self) -> Iterator[str]:
        """Every word of its patterns."""
        lists = (*self._data["parts"].values(), *self._data["families"].values(), self.patterns(UNKNOWN))
        for text in (text for texts in lists for text in texts):
            yield from re.findall(r"[^\W\d]+", re.sub(r"<\w+>|\{\w+\}", " ", text))


@dataclass(frozen=True)
class Worded:
    """A question in drawn words about a scene, in plain form, with its answer. family: `unknown` where it is none of
    the game's; names: of the karts asked about."""

    family: str
    names: tuple[str, ...]
    question: str
    answer: str

    @property
    def task(self) -> str:
        """What is asked, without words: the family's id and the names of the karts."""
        return " ".join((self.family, *self.names))


def read_task(text: str) -> tuple[str, tuple[str, ...]] | None:
    """(family, names of karts) of a task as `Worded.task` writes it; None for `unknown` and for other text."""
    name, *names = text.split() or [""]
    known = name in FAMILIES and len(names) == len(FAMILIES[name].slots)
    return (name, tuple(names)) if known else None


def ask_worded(
    scene: Scene,
    n: int,
    rng: random.Random,
    otherwise: Scene | None = None,
    families: Mapping[str, Family] = FAMILIES,
) -> list[Worded]:
    """At most n questions about a scene, these families in turn, each in a drawn wording; those that the base has never
    met come first, so that none is left out.

    otherwise: the same picture read by rules that decline nothing: what they say to questions that `scene` declines, of
    families that are always told. Other questions that it declines are not asked.
    """
    drawn = sorted(rng.sample(list(families.values()), len(families)), key=lambda family: family.pretrained)
    told = {family.name: _told(family, scene, otherwise, rng) for family in drawn}
    turns = chain.from_iterable(zip_longest(*([(family, *row) for row in told[family.name]] for family in drawn)))
    asked = []
    for family, names, answer in islice(filter(None, turns), n):
        question = fill(_wording(family, rng), dict(zip(family.slots, names, strict=True)))
        asked.append(Worded(family.name, names, question, answer))
    return asked


def unanswerable(scene: Scene, rng: random.Random) -> Worded:
    """A question that no picture answers, or not that of this scene, since the kart asked about is not in it."""
    absent = sorted({*KARTS, *scene.line_up} - {kart.name for kart in scene.detected})
    return Worded(UNKNOWN, (), language().unanswerable(rng, absent), UNKNOWN)


def _told(
    family: Family, scene: Scene, otherwise: Scene | None, rng: random.Random
) -> list[tuple[tuple[str, ...], str]]:
    """Names of the karts that a family can ask about, and the answer, in a drawn order."""
    told: dict[tuple[str, ...], str] = {}
    for each in (otherwise if family.always_told else None, scene):  # the scene prevails
        if each is None or (family.needs_ego and each.ego is None):
            continue
        for subject in family.subjects(each, lambda n, *key: rng.randrange(n)):
            answer = family.answer_about(each, subject)
            if rng.random() < _BESIDES:
                answer = family.besides.get(answer, answer)
            if not isinstance(answer, Reason):
                told[tuple(one_word(kart.name) for kart in subject)] = answer
    return rng.sample(list(told.items()), len(told))


def _wording(family: Family, rng: random.Random) -> str:
    """Mostly a drawn one, now and then one of those that the files hold and training may see."""
    if rng.random() < _FIXED:
        first = 1 if family.group == COURSE else 0
        return plain(rng.choice(family.wordings[first : family.held_out]))
    return language().draw(family.name, rng)


@cache
def language() -> Language:
    """The language that ships, with the common words of the embedded base's tokenizer as its <word>."""
    return Language(json.loads(_LANGUAGE.read_text("utf-8")), common_words())


@cache
def common_words() -> tuple[str, ...]:
    """Common English words that no question of the families holds, in alphabetical order."""
    data = json.loads(_LANGUAGE.read_text("utf-8"))
    used = set(Language(data).vocabulary()) | set(KARTS)
    words = Path(__file__).with_name("common_words.txt").read_text("utf-8").split()
    return tuple(word for word in words if word not in used)


def _spaced(text: str) -> str:
    return " ".join(text.split())


def fill(wording: str, names: dict[str, str]) -> str:
    """A wording with the names of karts in its places."""
    for slot, name in names.items():
        wording = wording.replace(f"{{{slot}}}", name)
    return wording


def misspelt(text: str, rng: random.Random) -> str:
    """The text with two letters of one longer word exchanged, or one of them doubled, left out or put wrong; names of
    karts and their places stay."""
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if len(word) > 3 and word.isalpha() and word not in KARTS]
    if not long:
        return text
    i = rng.choice(long)
    word, at = words[i], rng.randrange(1, len(words[i]) - 1)
    other = rng.choice(string.ascii_lowercase)
    words[i] = rng.choice(
        (
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at] + word[at:],
            word[:at] + word[at + 1 :],
            word[:at] + other + word[at + 1 :],
        )
    )
    return " ".join(words)


def fingerprint(wording: str) -> str:
    """Tells a wording in plain form, its places for karts left open, without showing it."""
    return blake2b(wording.encode(), digest_size=6).hexdigest()


@cache
def _kept_back() -> frozenset[str]:
    fixed = (
        wording
        for family in FAMILIES.values()
        for n, wording in enumerate(family.wordings)
        if n == family.held_out or (n == 0 and family.group == COURSE)
    )
    return frozenset(json.loads(_TEST_WORDINGS.read_text("utf-8"))) | {fingerprint(plain(text)) for text in fixed}


def is_kept_back(wording: str) -> bool:
    """Whether a wording in plain form must never be trained on: the course's own as the files word them, the one of
    each family held out from training, and those of the test sets, known by their fingerprints in test_wordings.json.
    """
    return fingerprint(wording) in _kept_back()
