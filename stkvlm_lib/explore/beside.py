"""What stands beside a run's answers in the explorer: those of another run, or of the base without the adapter."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from stkvlm_lib.explore.filters import Given
from stkvlm_lib.explore.models import Askable

BASE_ALONE = "base alone"


@dataclass(frozen=True)
class Beside:
    """Answers by (image_file, question), and the model that gives more of them; None where it cannot be asked.

    name: as it is shown. alone: the model is asked without its adapter.
    """

    name: str
    answers: Mapping[tuple[str, str], Given] = field(default_factory=dict)
    model: Askable | None = None
    alone: bool = False


def base_alone(answers: Iterable[Given], model: Askable | None) -> Beside:
    """The base of a run, by what the run has recorded of its answers."""
    recorded = (given for given in answers if given.base_prediction is not None)
    said = by_question(replace(g, prediction=g.base_prediction, correct=g.base_correct) for g in recorded)
    return Beside(BASE_ALONE, said, model, alone=True)


def by_question(answers: Iterable[Given]) -> dict[tuple[str, str], Given]:
    return {(given.image_file, given.question): given for given in answers}
