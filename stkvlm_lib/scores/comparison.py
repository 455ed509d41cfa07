"""Two runs on the questions that both answered: the paired difference, and which questions one won and lost."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stkvlm_lib.config import ScoreConfig
from stkvlm_lib.files import write_jsonl
from stkvlm_lib.grammar.questions import FAMILIES, OTHER, normalise
from stkvlm_lib.runs import compared_run
from stkvlm_lib.scores.metrics import Bootstrap, mean
from stkvlm_lib.scores.scoring import Prediction, read_predictions

PREDICTIONS = "predictions.jsonl"
CHANGED = "comparison.jsonl"
"""The questions that one run won or lost against the other, as far as they are shown."""


class ComparisonError(ValueError):
    """Two runs that cannot be compared; the message says why and what to do."""


@dataclass(frozen=True)
class Pair:
    """One question with the answers of both runs."""

    ours: Prediction
    other: Prediction

    @property
    def gain(self) -> int:
        """1: only we are right (won); -1: only the other is (lost); 0: both or none."""
        return self.ours.correct - self.other.correct


@dataclass(frozen=True)
class Shared:
    """The questions that both runs answered, and how many are left out: asked of one alone, or with another truth."""

    pairs: list[Pair]
    only_ours: int
    only_other: int
    other_truth: int


def share(ours: Iterable[Prediction], other: Iterable[Prediction]) -> Shared:
    """Pair the answers to the same question about the same picture. Raises ComparisonError where there is none."""
    mine, theirs = ({(p.image_file, p.question): p for p in rows} for rows in (ours, other))
    both = [Pair(mine[key], theirs[key]) for key in mine if key in theirs]
    pairs = [pair for pair in both if normalise(pair.ours.answer) == normalise(pair.other.answer)]
    if not pairs:
        raise ComparisonError(_nothing_shared(mine, theirs, len(both)))
    return Shared(pairs, len(mine) - len(both), len(theirs) - len(both), len(both) - len(pairs))


def _nothing_shared(mine: dict, theirs: dict, both: int) -> str:
    if both:
        return (
            f"the runs share {both:,} questions, but none has the same true answer in both; score both on the same "
            "frames and questions with notebook 04_error_analysis"
        )
    names = [next(iter(rows), ("no question at all",))[0] for rows in (mine, theirs)]
    return (
        f"the runs share no question ({len(mine):,} and {len(theirs):,} answered; the first pictures are {names[0]} "
        f"and {names[1]}); score both on the same FRAMES_DIR or QA_FILE with notebook 04_error_analysis"
    )


def compare(shared: Shared, *, resamples: int, seed: int) -> dict:
    """The figures of `comparison` in metrics.json: shares right of both, paired difference (ours less the other) with
    its interval clustered by race, questions won and lost; over all and by family."""
    pairs = shared.pairs
    interval = Bootstrap([pair.ours for pair in pairs], resamples, seed)
    right, other = (np.array([getattr(pair, who).correct for pair in pairs], float) for who in ("ours", "other"))
    families = np.array([pair.ours.family for pair in pairs])

    def figures(member: np.ndarray) -> dict:
        gain = (right - other)[member]
        return {
            "n": int(member.sum()),
            "exact": mean(right[member]),
            "other_exact": mean(other[member]),
            "difference": mean(gain),
            "difference_ci95": interval(right - other, member),
            "won": int((gain > 0).sum()),
            "lost": int((gain < 0).sum()),
        }

    members = {name: families == name for name in (*FAMILIES, OTHER)}
    return {
        **figures(np.ones(len(pairs), bool)),
        "only_ours": shared.only_ours,
        "only_other": shared.only_other,
        "other_truth": shared.other_truth,
        "clusters": interval.unit,
        "n_clusters": interval.n,
        "families": {name: figures(member) for name, member in members.items() if member.any()},
    }


def changed(pairs: Sequence[Pair], gain: int, n: int) -> list[Pair]:
    """n questions won (gain 1) or lost (-1): each family in turn, the surest of the right answers first."""
    piles: dict[str, list[Pair]] = defaultdict(list)
    for pair in sorted((p for p in pairs if p.gain == gain), key=lambda p: _sureness(p, gain)):
        piles[pair.ours.family].append(pair)
    return list(_in_turn(sorted(piles.values(), key=len, reverse=True)))[:n]


def _sureness(pair: Pair, gain: int) -> tuple:
    """Sorts by the confidence of the run that is right, the highest first."""
    right = pair.ours if gain > 0 else pair.other
    return -right.confidence, right.image_file, right.question


def _in_turn(piles: Sequence[Sequence[Pair]]) -> Iterator[Pair]:
    for place in range(max(map(len, piles), default=0)):
        yield from (pile[place] for pile in piles if place < len(pile))


def compare_run(predictions: Sequence[Prediction], config: ScoreConfig) -> tuple[dict, list[Pair]]:
    """`comparison` of metrics.json against COMPARE_RUN, and the pairs; both empty where none is named."""
    (config.run_path / CHANGED).unlink(missing_ok=True)
    if not config.compare_run:
        return {}, []
    folder = compared_run(config.compare_run)
    shared = share(predictions, read_answers(folder))
    figures = compare(shared, resamples=config.bootstrap, seed=config.seed)
    write_changed(shared.pairs, config.run_path / CHANGED)
    return {"comparison": {"run": folder.resolve().name, **figures}}, shared.pairs


def read_answers(folder: Path) -> list[Prediction]:
    """A run's answers to its scored questions. Raises FileNotFoundError or ValueError naming file and remedy."""
    return read_predictions(folder / PREDICTIONS)


def write_changed(pairs: Sequence[Pair], path: Path, n: int = 12) -> None:
    """The questions that the galleries show, won first, as JSON lines."""
    write_jsonl(
        path,
        (
            {
                "change": name,
                "family": pair.ours.family,
                "question": pair.ours.question,
                "answer": pair.ours.answer,
                "prediction": pair.ours.prediction,
                "other_prediction": pair.other.prediction,
                "image_file": pair.ours.image_file,
            }
            for name, gain in (("won", 1), ("lost", -1))
            for pair in changed(pairs, gain, n)
        ),
    )
