"""Reads questions in people's own words by the patterns of the language: what these can say is read, and nothing else.

A slip of the keyboard, or a word that is not spelled out, is read as every word that it can stand for; the question is
read only where all of these together ask one thing.
"""

import re
import string
from collections.abc import Iterator
from functools import cache
from itertools import islice, permutations, product

from stkvlm_lib.grammar.names import KARTS, TRACKS
from stkvlm_lib.grammar.questions import FAMILIES, OTHER, read_question
from stkvlm_lib.grammar.spelling import plain
from stkvlm_lib.grammar.wordings import POLITE, Language, common_words, fill, language, read_pattern

Read = tuple[str, tuple[str, ...]]
"""A family's id, and the names of the karts asked about."""
_SHORTEST = 3
"""Letters; of shorter words nobody can tell what they are a slip of."""
_SPELLINGS = 64
"""The most ways to spell a question that are tried."""


def read_own_words(question: str) -> Read | None:
    """The one thing that a question asks by the patterns of the language, however spelled; None for all other text, and
    where two families can say it."""
    said = plain(question)
    return _only(_readings(language(), said)) or _only(
        {found for spelled in _spelled(said) for found in _readings(language(), spelled)}
    )


def several(question: str) -> list[str]:
    """The questions in a text that asks two or more; none where it does not, or where one of them cannot be read."""
    for between in (r"[?!.;]+(?=.)|\n", r",? and |, "):
        parts = [part.strip() for part in re.split(between, question) if part.strip(" ?!.,;")]
        if len(parts) > 1 and all(read_question(part)[0] != OTHER or read_own_words(part) for part in parts):
            return parts
    return []


def _only(readings: set[Read]) -> Read | None:
    return next(iter(readings)) if len(readings) == 1 else None


def _readings(language: Language, said: str) -> set[Read]:
    """Everything that a text in plain form can ask."""
    named = [word for word in said.split() if word in KARTS]
    begins = frozenset({0}) | _ends(language, f"<{POLITE}> ", said, frozenset({0}))
    return {
        (family.name, names)
        for family in FAMILIES.values()
        for names in permutations(named, len(family.slots))
        for pattern in language.patterns(family.name)
        if len(said) in _ends(language, fill(pattern, dict(zip(family.slots, names, strict=True))), said, begins)
    }


def _ends(language: Language, text: str, said: str, places: frozenset[int]) -> frozenset[int]:
    """Where what a pattern can say may end in a text, if it begins at one of these places."""
    for piece in read_pattern(text):
        if (options := language.options(piece)) is None:
            places = frozenset(_passed(piece, said, place) for place in places) - {-1}
        else:
            places = frozenset().union(*(_ends(language, option, said, places) for option in options))
        if not places:
            break
    return places


def _passed(literal: str, said: str, place: int) -> int:
    """The place in a text behind a literal that stands at `place`, -1 where it does not. Of several spaces one is said,
    and none at either end."""
    for sign in literal:
        if sign == " " and (place in (0, len(said)) or said[place - 1] == " "):
            continue
        if place >= len(said) or said[place] != sign:
            return -1
        place += 1
    return place


def _spelled(said: str) -> Iterator[str]:
    """The ways in which a text in plain form may have been meant, where a word of it is none of the language; at most
    _SPELLINGS."""
    meant = list(map(_meant, said.split()))
    return (" ".join(words) for words in islice(product(*meant), _SPELLINGS) if all(words))


@cache
def _meant(word: str) -> tuple[str, ...]:
    """The words that a word can stand for: itself, where it is one."""
    known = _known()
    if short := language().short.get(word):
        return (short,)
    if word in known or word in common_words() or len(word) < _SHORTEST or not word.isalpha():
        return (word,)
    return tuple(sorted(_one_slip(word) & known)) or (word,)


@cache
def _known() -> frozenset[str]:
    """Every word that a question of the game may hold."""
    return frozenset(language().vocabulary()) | set(KARTS) | set(TRACKS)


def _one_slip(word: str) -> set[str]:
    """What a word may stand for, if one letter was left out, put wrong or too many, or two were exchanged."""
    halves = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    letters = string.ascii_lowercase
    shorter = {a + b[1:] for a, b in halves if b}
    exchanged = {a + b[1] + b[0] + b[2:] for a, b in halves if len(b) > 1}
    longer = {a + letter + b for a, b in halves for letter in letters}
    return shorter | exchanged | longer | {a + letter + b[1:] for a, b in halves if b for letter in letters}
