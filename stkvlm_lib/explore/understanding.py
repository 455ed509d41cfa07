"""How a question in a person's own words is understood, and what can be said of an answer to it."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

from stkvlm_lib.grammar.questions import FAMILIES, OTHER, normalise, read_question
from stkvlm_lib.grammar.reading import read_own_words
from stkvlm_lib.grammar.wordings import UNKNOWN

UNKNOWN_MEANS = "the picture does not show it, or the question is not one that this model was made for"
NOT_SEEN = "the question is one that this model was made for, but it does not see the answer in this picture"
LEAST_FAMILIAR = 0.5
"""Of how sure a model is of track and ego kart together. Below it: none of 50 frames of test and of 80 of the course, 8
of 80 of test_unseen; of pictures of other things 54 of 65 with a run's adapter, 22 of 42 with that of the course."""
STRANGE = "The model is unsure which track and kart this picture shows. If it is none of the game, no answer counts."


@dataclass(frozen=True)
class Understood:
    """A question as understood. family: `other` where it is of no known kind; karts: those it names, each one word.

    by_model: whether the model took it for that, because no rule reads its wording.
    """

    family: str
    karts: tuple[str, ...] = ()
    by_model: bool = False

    @property
    def is_known(self) -> bool:
        return self.family != OTHER

    @property
    def question(self) -> str:
        """The question in the wording of its family's template; empty where there is no family."""
        return FAMILIES[self.family].write(0, self.karts) if self.is_known else ""


def understand(question: str) -> Understood:
    """The family and the karts that a question is about, as the grammar reads it."""
    family, _, karts = read_question(as_asked(question))
    return Understood(family, karts)


@lru_cache(maxsize=1 << 10)
def as_asked(question: str) -> str:
    """How a question is put to a model: where the language of the game can read it, in a wording that its family lists,
    as a small model takes `we are behind` for `behind us`; else as it is. The course's own wording is none of these: it
    must be answered, also about a kart that is not there."""
    if read_question(question)[0] != OTHER or not (read := read_own_words(question)):
        return question
    family, karts = read
    return FAMILIES[family].write(1, karts)


def families_with(answer: str) -> list[str]:
    """The families that can be answered so; all of them where a model says that it cannot tell."""
    given = normalise(answer)
    return [name for name, family in FAMILIES.items() if given in (UNKNOWN, *map(normalise, family.said))]


def tasks_with(answer: str, karts: Iterable[str]) -> list[str]:
    """What a question that names some karts and is answered so may ask, as `grammar.wordings.read_task` reads it."""
    return [
        " ".join((family, *named))
        for family in families_with(answer)
        for named in permutations(karts, len(FAMILIES[family].slots))
    ]


def unknown_means(understood: Understood) -> str:
    """Why a model cannot tell: known where a rule reads the question, as a model reads something into any text."""
    return NOT_SEEN if understood.is_known and not understood.by_model else UNKNOWN_MEANS


def is_unknown(text: str) -> bool:
    """Whether a model says that it cannot tell."""
    return normalise(text) == UNKNOWN
