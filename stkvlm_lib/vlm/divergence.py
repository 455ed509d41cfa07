"""How a training that has gone wrong is known: no numbers any more, or answers no better than guessing."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from stkvlm_lib.grammar.questions import normalise
from stkvlm_lib.qa.qa_sets import Record


class TrainingDiverged(RuntimeError):
    """A training whose loss or weights are no numbers any more; the message names the step and what to do."""


def diverged(what: str, learning_rate: float, folder: Path) -> TrainingDiverged:
    """folder: of the training's checkpoints."""
    return TrainingDiverged(
        f"{what}: the training has diverged and nothing of it is scored; train again with a lower LEARNING_RATE than "
        f"{learning_rate:g} (./run_all.sh with --from 03). The last good checkpoint: "
        f"{last_checkpoint(folder) or 'none yet'}"
    )


def strange_weight(model: nn.Module) -> str:
    """The name of a trained weight that is not finite, empty where all are."""
    trained = ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)
    return next((name for name, weight in trained if not torch.isfinite(weight).all()), "")


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end (the Trainer writes its state last)."""
    steps = {
        int(path.parent.name.rsplit("-", 1)[1]): path.parent for path in folder.glob("checkpoint-*/trainer_state.json")
    }
    return str(steps[max(steps)]) if steps else None


def majority_share(records: Sequence[Record]) -> float | None:
    """The share of questions that each family's most frequent answer has right; None for no questions."""
    answers: dict[str, Counter] = {}
    for record in records:
        answers.setdefault(record.family, Counter())[normalise(record.answer)] += 1
    return sum(max(counts.values()) for counts in answers.values()) / len(records) if records else None


def majority_warning(exact: Sequence[float], majority: float | None) -> str:
    """What to say where the last or the best of the valid scores is no better than guessing; empty otherwise."""
    if majority is None or not exact or min(max(exact), exact[-1]) > majority:
        return ""
    return (
        f"warning: valid exact was {max(exact):.3f} at best and {exact[-1]:.3f} at last, where each family's most "
        f"frequent answer has {majority:.3f}: this adapter has learnt little or has diverged; lower LEARNING_RATE"
    )
