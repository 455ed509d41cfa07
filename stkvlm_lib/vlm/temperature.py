"""Honest confidence: one temperature for all logits, fitted on questions that neither trained nor are scored."""

from collections.abc import Mapping, Sequence

import torch

from stkvlm_lib.grammar.questions import is_exact
from stkvlm_lib.vlm.answering import AnswerModel
from stkvlm_lib.vlm.features import Picture

TEMPERATURES = torch.logspace(-1, 2, 46, base=2)
"""From 0.5 to 4, each 4.7 % above the one before."""
LEAST = 50
"""Fewer questions than these fit nothing."""
Labelled = Sequence[tuple[str, str]]
"""Questions with their true answers."""


def fit_temperature(
    answerer: AnswerModel, features: Mapping[Picture, torch.Tensor], asked: Mapping[str, Labelled], at_once: int
) -> float:
    """The one of TEMPERATURES at which confidence in the answers given foretells best which of them are right (the
    least log loss); 1.0 for fewer than LEAST questions.

    features: image tokens (tokens, D) of each picture; asked: questions about each picture, unmirrored, with their
    true answers; at_once: pictures answered together.
    """
    if sum(map(len, asked.values())) < LEAST:
        return 1.0
    names, sure, right = list(asked), [], []
    for start in range(0, len(names), at_once):
        part = names[start : start + at_once]
        tokens = torch.stack([features[name, False] for name in part]).to(answerer.device)
        given = answerer.answer_encoded(tokens, [[question for question, _ in asked[name]] for name in part])
        said = [
            [(question, answer.text) for (question, _), answer in zip(asked[name], answers, strict=True)]
            for name, answers in zip(part, given, strict=True)
        ]
        sure += answerer.answer_log_probabilities(tokens, said, TEMPERATURES)
        right += [
            is_exact(answer.text, truth)
            for name, answers in zip(part, given, strict=True)
            for (_, truth), answer in zip(asked[name], answers, strict=True)
        ]
    return float(TEMPERATURES[best_temperature(torch.stack(sure), torch.tensor(right))])


def best_temperature(log_probabilities: torch.Tensor, right: torch.Tensor) -> int:
    """The number of the temperature with the least log loss. log_probabilities: (N, temperatures); right: (N,) bool."""
    wrong = torch.log1p(-log_probabilities.double().exp().clamp(max=1 - 1e-7))
    loss = -torch.where(right[:, None], log_probabilities.double(), wrong).mean(0)
    return int(loss.argmin())
