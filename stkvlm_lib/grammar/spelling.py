"""One plain form for everything that is asked: how a question is spelled never changes its answer.

Training and answering read questions in this form, so capitals, question marks, spaces, contractions, `color` for
`colour`, and the ways to write the name of a kart or a track make no difference.
"""

import re
import unicodedata
from functools import lru_cache

from stkvlm_lib.grammar.names import KARTS, TRACKS

_BETWEEN = r"[\W_]*"
_CONTRACTIONS = (
    (r"\b(what|who|where|how|that|there)'?s\b", r"\1 is"),
    (r"\b(which|here|it)'s\b", r"\1 is"),
    (r"\b(who|what|how|they|we|you)'re\b", r"\1 are"),
    (r"\b(\w+)'ve\b", r"\1 have"),
    (r"\b(\w+)'ll\b", r"\1 will"),
    (r"\b(\w+)'d\b", r"\1 would"),
    (r"\bi'm\b", "i am"),
    (r"\bcan't\b", "can not"),
    (r"\bwon't\b", "will not"),
    (r"\b(\w+)n't\b", r"\1 not"),
)
_SPELLINGS = (
    (r"\bcolor", "colour"),
    (r"\bgray", "grey"),
    (r"\bcenter", "centre"),
    (r"\boclock\b", "o clock"),
    *((rf"\b{_BETWEEN.join(name.split('_'))}\b", name) for name in (*KARTS, *TRACKS) if "_" in name),
)
_RULES = [(re.compile(pattern), to) for pattern, to in (*_CONTRACTIONS, *_SPELLINGS)]
_WORD = re.compile(r"\{(?:kart|a|b)\}|\w+")
"""A word, or the place of a kart in a wording."""


def plain(text: str) -> str:
    """Lower case, words with one space between them, no punctuation; `{kart}`, `{a}` and `{b}` stay as they are."""
    text = unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'").replace("`", "'")
    for pattern, to in _RULES:
        text = pattern.sub(to, text)
    return " ".join(_WORD.findall(text))


@lru_cache(1 << 12)
def one_word(name: str) -> str:
    """A kart's name as a question holds it."""
    return "_".join(plain(name).split())
