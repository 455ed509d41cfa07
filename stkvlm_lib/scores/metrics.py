"""The figures of metrics.json: shares right with intervals clustered by race, baselines, what fine-tuning gained."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from stkvlm_lib.config import STEPS, ScoreConfig
from stkvlm_lib.files import read_json
from stkvlm_lib.grammar.questions import FAMILIES, OTHER, normalise
from stkvlm_lib.model_files import read_adapter_record
from stkvlm_lib.runs import peak_memory_mb, recorded_parameters
from stkvlm_lib.scores.scoring import Prediction
from stkvlm_lib.vlm.adapter import adapter_mb
from stkvlm_lib.vlm.answering import AnswerModel


def score(predictions: Sequence[Prediction], *, resamples: int, seed: int) -> dict:
    """The figures that follow from the predictions (fractions from 0 to 1).

    Those of the base alone, blind and of the closed answer sets are left out where they were not asked.
    """
    interval = Bootstrap(predictions, resamples, seed)
    correct, prefix, blind, base, closed = (
        _column(predictions, f"{name}correct") for name in ("", "prefix_", "blind_", "base_", "closed_")
    )
    majority = _majority_correct(predictions)
    families = {}
    for family in (*FAMILIES, OTHER):
        member = np.array([p.family == family for p in predictions])
        if member.any():
            families[family] = {
                "n": int(member.sum()),
                "exact": mean(correct[member]),
                "exact_ci95": interval(correct, member),
                "prefix": mean(prefix[member]),
                "majority": mean(majority[member]),
                **_known("blind", blind[member]),
                **_known("base", base[member]),
                **_known("closed_exact", closed[member]),
            }
    figures = {
        "n": len(predictions),
        "exact": mean(correct),
        "exact_ci95": interval(correct),
        "prefix": mean(prefix),
        "macro_exact": mean([row["exact"] for row in families.values()]),
        "majority": mean(majority),
        **_known("blind", blind),
        **_known("base_exact", base),
        **_known("closed_exact", closed),
    }
    for name, other in (("base", base), ("blind", blind)):
        if not np.isnan(other).any():
            gain = {f"gain_over_{name}": mean(correct - other), f"gain_over_{name}_ci95": interval(correct - other)}
            figures |= gain
    return {**figures, "clusters": interval.unit, "n_clusters": interval.n, "families": families}


def _column(predictions: Sequence[Prediction], name: str) -> np.ndarray:
    """A field as 0 and 1, NaN where it was not asked."""
    return np.array([getattr(p, name) for p in predictions], float)


def _known(name: str, values: np.ndarray) -> dict[str, float]:
    return {} if np.isnan(values).any() else {name: mean(values)}


def mean(values: Iterable[float]) -> float:
    return round(float(np.mean(values)), 6)


def _majority_correct(predictions: Sequence[Prediction]) -> np.ndarray:
    """Whether each family's most frequent answer in the scored set would be right, per row."""
    counts: dict[str, Counter] = defaultdict(Counter)
    for p in predictions:
        counts[p.family][normalise(p.answer)] += 1
    best = {family: min(c, key=lambda answer, c=c: (-c[answer], answer)) for family, c in counts.items()}
    return np.array([normalise(p.answer) == best[p.family] for p in predictions], float)


class Bootstrap:
    """95 % percentile intervals of means, resampling whole races: questions about one race are not independent.

    rows: anything with `race` and `image_file`. With a single race the pictures are resampled instead, and `unit` says
    so.
    """

    def __init__(self, rows: Sequence, resamples: int, seed: int):
        race = [row.race for row in rows]
        self.unit = "race" if len(set(race)) > 1 else "picture"
        keys = race if self.unit == "race" else [row.image_file for row in rows]
        names, self._cluster = np.unique(keys, return_inverse=True)
        self.n = len(names)
        chances = np.full(self.n, 1 / self.n)
        self._weights = np.random.default_rng(seed).multinomial(self.n, chances, resamples).astype(float)

    def __call__(self, values: np.ndarray, member: np.ndarray | None = None) -> list[float]:
        """Interval of the mean of `values` over the rows in `member` (all by default)."""
        member = np.ones(len(values), bool) if member is None else member
        sums = np.bincount(self._cluster[member], values[member], self.n)
        sizes = np.bincount(self._cluster[member], minlength=self.n)
        drawn = self._weights @ sizes
        means = (self._weights @ sums)[drawn > 0] / drawn[drawn > 0]
        low, high = np.percentile(means, [2.5, 97.5])
        return [round(float(low), 6), round(float(high), 6)]


def make_metrics(
    figures: dict, *, split: str, config: ScoreConfig, answerer: AnswerModel, qa_per_second: float
) -> dict:
    """metrics.json: the figures with what they were measured on. Training figures are null for a foreign adapter."""
    trained = config.run_path / "training.json"
    own = config.adapter_path.resolve() == (config.run_path / "adapter").resolve()
    training = read_json(trained) if own and trained.exists() else {}
    return {
        "split": split,
        **figures,
        "adapter_mb": round(adapter_mb(config.adapter_path), 3),
        "base_model": answerer.base.name,
        "base_sha256": answerer.base.sha256,
        "quantization": config.quantization,
        "batch_size": config.eval_batch_size,
        "seed": config.seed,
        "test_views": config.test_views,
        "settings": settings_of(config, own),
        "train_seconds": training.get("train_seconds"),
        "qa_per_second_train": training.get("qa_per_second_train"),
        "qa_per_second_eval": qa_per_second,
        "peak_memory_mb": max(peak_memory_mb(), training.get("peak_memory_mb", 0.0)),
    }


def settings_of(config: ScoreConfig, own: bool) -> dict:
    """What made the figures: the parameters of scoring, and those of making questions and of training.

    own: the run's own adapter was scored; of another the adapter's record tells, as far as it does.
    """
    recorded = config.run_path / "config.json"
    steps = read_json(recorded) if recorded.exists() else {}
    found = {STEPS[step][0]: steps[step] for step in ("02", "03") if own and step in steps}
    if not own and (record := read_adapter_record(config.adapter_path).get("settings")):
        found["adapter"] = record
    return found | {STEPS["04"][0]: recorded_parameters(config)}
