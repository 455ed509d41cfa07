"""Honest confidence: one temperature for all logits, fitted on questions that neither trained nor are scored."""

from collections.abc import Mapping, Sequence

import torch

from stkvlm_lib.grammar.questions import is_exact
from stkvlm_lib.vlm.features import FeatureStore

TEMPERATURES = torch.logspace(-1, 2, 46, base=2)
"""From 0.5 to 4, each 4.7 % above the one before."""
LEAST = 50
"""Fewer questions than these fit nothing."""
Labelled = Sequence[tuple[str, str]]
"""Questions with their true answers."""


def fit_temperature(store: FeatureStore, asked: Mapping[str, Labelled]) -> float:
    """The one of TEMPERATURES at which confidence in the answers given foretells best which of them are right (the
    least log loss); 1.0 for fewer than LEAST questions.

    asked: questions about pictures of the store, unmirrored, with their true answers.
    """
    if sum(map(len, asked.values())) < LEAST:
        return 1.0
    sure, right = [], []
    for chunk, features in store.batches([(name, False) for name in asked], "fit the temperature"):
        labelled = [asked[name] for name, _ in chunk]
        given = store.answerer.answer_encoded(features, [[question for question, _ in group] for group in labelled])
        said = []
        for group, answers in zip(labelled, given, strict=True):
            said.append([(question, [answer.text]) for (question, _), answer in zip(group, answers, strict=True)])
            right += [is_exact(answer.text, truth) for (_, truth), answer in zip(group, answers, strict=True)]
        sure += store.answerer.log_probabilities(features, said, TEMPERATURES)
    return float(TEMPERATURES[best_temperature(torch.stack(sure), torch.tensor(right))])


def best_temperature(log_probabilities: torch.Tensor, right: torch.Tensor) -> int:
    """The number of the temperature with the least log loss. log_probabilities: (N, temperatures); right: (N,) bool."""
    wrong = torch.log1p(-log_probabilities.double().exp().clamp(max=1 - 1e-7))
    loss = -torch.where(right[:, None], log_probabilities.double(), wrong).mean(0)
    return int(loss.argmin())
