"""How a question in a person's own words is understood, and what can be said of an answer to it."""

from collections.abc import Callable
from dataclasses import dataclass

from stkvlm_lib.grammar.questions import FAMILIES, OTHER, normalise, read_question
from stkvlm_lib.grammar.wordings import UNKNOWN

UNKNOWN_MEANS = "the picture does not show it, or the question is not one that this model was made for"
_ANSWERS = {normalise(answer) for family in FAMILIES.values() for answer in family.answers} | {UNKNOWN}


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

    def __str__(self) -> str:
        if not self.is_known:
            return "a question of no known kind"
        karts = " and ".join(self.karts)
        return f"a question of the kind “{self.family}”{f' about {karts}' if karts else ''}"


def understand(
    question: str, read_by_model: Callable[[str], tuple[str, tuple[str, ...]] | None] = lambda question: None
) -> Understood:
    """The family and the karts that a question is about, as the grammar reads it, else as the model does.

    read_by_model: question -> (family, karts), or None where the model takes it for no question of the game.
    """
    family, _, karts = read_question(question)
    if family != OTHER:
        return Understood(family, karts)
    read = read_by_model(question)
    return Understood(*read, by_model=True) if read else Understood(OTHER)


def is_known_answer(text: str) -> bool:
    """Whether a text is an answer of any family, or `unknown`."""
    return normalise(text) in _ANSWERS


def is_unknown(text: str) -> bool:
    """Whether a model says that it cannot tell."""
    return normalise(text) == UNKNOWN
