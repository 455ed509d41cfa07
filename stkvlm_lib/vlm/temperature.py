"""Honest confidence: temperatures for the logits, fitted on questions that neither trained nor are scored.

The course's ten forms have one of their own: they ask of every kart, where a pixel may decide, so that a model is more
often wrong in them than it thinks, and less often in all others, which leave out what is doubtful.
"""

from collections.abc import Mapping, Sequence

import torch

from stkvlm_lib.grammar.questions import is_exact, is_of_course
from stkvlm_lib.model_files import Temperatures
from stkvlm_lib.vlm.features import FeatureStore

TEMPERATURES = torch.logspace(-1, 2, 46, base=2)
"""From 0.5 to 4, each 4.7 % above the one before."""
LEAST = 50
"""Fewer questions than these fit nothing."""
Labelled = Sequence[tuple[str, str]]
"""Questions with their true answers."""


def fit_temperatures(store: FeatureStore, asked: Mapping[str, Labelled]) -> Temperatures:
    """Those of TEMPERATURES at which confidence in the answers given foretells best which of them are right (the least
    log loss), for the course's own wordings and for all others; 1.0 where there are fewer than LEAST questions.

    asked: questions about pictures of the store, unmirrored, with their true answers.
    """
    sure, right, of_course = [], [], []
    for chunk, features in store.batches([(name, False) for name in asked], "fit the temperatures"):
        labelled = [asked[name] for name, _ in chunk]
        given = store.answerer.answer_encoded(features, [[question for question, _ in group] for group in labelled])
        said = []
        for group, answers in zip(labelled, given, strict=True):
            said.append([(question, [answer.text]) for (question, _), answer in zip(group, answers, strict=True)])
            right += [is_exact(answer.text, truth) for (_, truth), answer in zip(group, answers, strict=True)]
            of_course += [is_of_course(question) for question, _ in group]
        sure += store.answerer.log_probabilities(features, said, TEMPERATURES)
    if not right:
        return Temperatures()
    sure, right, of_course = torch.stack(sure), torch.tensor(right), torch.tensor(of_course)
    course, other = (_fitted(sure[part], right[part]) for part in (of_course, ~of_course))
    return Temperatures(course, other)


def _fitted(sure: torch.Tensor, right: torch.Tensor) -> float:
    """As `best_temperature`; 1.0 where there are too few."""
    return float(TEMPERATURES[best_temperature(sure, right)]) if len(right) >= LEAST else 1.0


def best_temperature(log_probabilities: torch.Tensor, right: torch.Tensor) -> int:
    """The number of the temperature with the least log loss. log_probabilities: (N, temperatures); right: (N,) bool."""
    wrong = torch.log1p(-log_probabilities.double().exp().clamp(max=1 - 1e-7))
    loss = -torch.where(right[:, None], log_probabilities.double(), wrong).mean(0)
    return int(loss.argmin())
