"""Answers against the truth: exact match with intervals clustered by race, baselines, and what fine-tuning gained."""

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stkvlm_lib.base_vlm import Answer, AnswerModel, adapter_mb
from stkvlm_lib.config import ScoreConfig, resolve
from stkvlm_lib.display import progress
from stkvlm_lib.files import read_json, read_jsonl, write_jsonl
from stkvlm_lib.frame_sets import FrameSet
from stkvlm_lib.frames import FLAT_SPLIT
from stkvlm_lib.qa_sets import CUSTOM_SPLIT, QaError, Record, by_picture, make_records, read_course_qa, read_records
from stkvlm_lib.questions import FAMILIES, OTHER, normalise
from stkvlm_lib.runs import peak_memory_mb


@dataclass(frozen=True)
class Prediction:
    """One scored question. confidence: probability of the generated answer with its stop token.

    base_prediction: of the base without the adapter; blind_prediction: with the mean image instead of the picture.
    """

    image_file: str
    question: str
    answer: str
    prediction: str
    family: str
    correct: bool
    prefix_correct: bool
    confidence: float
    race: str
    track: str
    base_prediction: str
    base_correct: bool
    blind_prediction: str
    blind_correct: bool


def is_exact(prediction: str, answer: str) -> bool:
    """Strict match: the whole answer, lower-cased and stripped."""
    return normalise(prediction) == normalise(answer)


def is_prefix(prediction: str, answer: str) -> bool:
    """The course grader's match: the prediction is cut to the answer's length first ("12" passes for "1")."""
    return normalise(prediction)[: len(normalise(answer))] == normalise(answer)


def records_to_score(config: ScoreConfig, folder: FrameSet) -> tuple[str, list[Record]]:
    """(split, records): QA_FILE if given, else the run's own test split, else the held-out split of the folder."""
    if config.qa_file:
        return CUSTOM_SPLIT, read_course_qa(resolve(config.qa_file), folder)
    for split in ("test", "valid", FLAT_SPLIT):
        written = config.run_path / "qa" / f"{split}.jsonl"
        if written.exists():
            return split, _known(read_records(written), folder, written)
    for split in ("test", "valid", FLAT_SPLIT):
        if split in folder.splits:
            return split, make_records(folder, split)
    raise QaError(
        f"{folder.root}: no held-out split (it has {', '.join(folder.splits)}); name the questions in QA_FILE"
    )


def _known(records: list[Record], folder: FrameSet, path: Path) -> list[Record]:
    strange = next((r.image_file for r in records if r.image_file not in folder.by_image_file), None)
    if strange:
        raise QaError(f"{path}: {strange} is not in {folder.root}; run notebook 02 with this FRAMES_DIR again")
    return records


def predict(
    answerer: AnswerModel, folder: FrameSet, records: Sequence[Record], blind_image: Image.Image, batch_size: int
) -> tuple[list[Prediction], float]:
    """Answer every record thrice (with adapter, base alone, blind), in their order.

    Each picture is encoded once. -> predictions, questions per second with the adapter (encoding included).
    """
    groups = by_picture(records)
    names = list(groups)
    blind = _answer_blind(answerer, sorted({r.question for r in records}), blind_image, 64)
    ours: dict[tuple[str, str], Answer] = {}
    base: dict[tuple[str, str], Answer] = {}
    seconds = 0.0
    for start in progress(range(0, len(names), batch_size), "answer"):
        chunk = names[start : start + batch_size]
        questions = [[record.question for record in groups[name]] for name in chunk]
        begin = time.monotonic()
        features = answerer.encode([folder.by_image_file[name].image() for name in chunk])
        _collect(ours, chunk, questions, answerer.answer_encoded(features, questions))
        seconds += time.monotonic() - begin
        with answerer.without_adapter():
            _collect(base, chunk, questions, answerer.answer_encoded(features, questions))
    rows = [
        _prediction(r, ours[r.image_file, r.question], base[r.image_file, r.question], blind[r.question])
        for r in records
    ]
    return rows, len(records) / seconds


def _collect(store: dict, names: Sequence[str], questions: list[list[str]], answers: list[list[Answer]]) -> None:
    for name, asked, given in zip(names, questions, answers, strict=True):
        store.update({(name, question): answer for question, answer in zip(asked, given, strict=True)})


def _answer_blind(answerer: AnswerModel, questions: list[str], image: Image.Image, n: int) -> dict[str, Answer]:
    """With one mean image for all, the answer follows from the question alone: ask each wording once."""
    features: torch.Tensor = answerer.encode([image])
    answers: dict[str, Answer] = {}
    for start in range(0, len(questions), n):
        chunk = questions[start : start + n]
        answers.update(zip(chunk, answerer.answer_encoded(features, [chunk])[0], strict=True))
    return answers


def _prediction(record: Record, ours: Answer, base: Answer, blind: Answer) -> Prediction:
    truth = record.answer
    return Prediction(
        image_file=record.image_file,
        question=record.question,
        answer=truth,
        prediction=ours.text,
        family=record.family,
        correct=is_exact(ours.text, truth),
        prefix_correct=is_prefix(ours.text, truth),
        confidence=round(ours.confidence, 6),
        race=record.race,
        track=record.track,
        base_prediction=base.text,
        base_correct=is_exact(base.text, truth),
        blind_prediction=blind.text,
        blind_correct=is_exact(blind.text, truth),
    )


def score(predictions: Sequence[Prediction], *, resamples: int, seed: int) -> dict:
    """The figures of metrics.json that follow from the predictions (fractions from 0 to 1)."""
    interval = Bootstrap(predictions, resamples, seed)
    majority = _majority_correct(predictions)
    correct = np.array([p.correct for p in predictions], float)
    base = np.array([p.base_correct for p in predictions], float)
    blind = np.array([p.blind_correct for p in predictions], float)
    families = {}
    for family in (*FAMILIES, OTHER):
        member = np.array([p.family == family for p in predictions])
        if member.any():
            families[family] = {
                "n": int(member.sum()),
                "exact": _mean(correct[member]),
                "exact_ci95": interval(correct, member),
                "prefix": _mean([p.prefix_correct for p in predictions if p.family == family]),
                "majority": _mean(majority[member]),
                "blind": _mean(blind[member]),
                "base": _mean(base[member]),
            }
    return {
        "n": len(predictions),
        "exact": _mean(correct),
        "exact_ci95": interval(correct),
        "prefix": _mean([p.prefix_correct for p in predictions]),
        "macro_exact": _mean([row["exact"] for row in families.values()]),
        "majority": _mean(majority),
        "blind": _mean(blind),
        "base_exact": _mean(base),
        "gain_over_base": _mean(correct - base),
        "gain_over_base_ci95": interval(correct - base),
        "gain_over_blind": _mean(correct - blind),
        "gain_over_blind_ci95": interval(correct - blind),
        "clusters": interval.unit,
        "n_clusters": interval.n,
        "families": families,
    }


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
        "train_seconds": training.get("train_seconds"),
        "qa_per_second_train": training.get("qa_per_second_train"),
        "qa_per_second_eval": qa_per_second,
        "peak_memory_mb": max(peak_memory_mb(), training.get("peak_memory_mb", 0.0)),
    }


def _mean(values) -> float:
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

    With a single race the pictures are resampled instead, and `unit` says so.
    """

    def __init__(self, predictions: Sequence[Prediction], resamples: int, seed: int):
        race = [p.race for p in predictions]
        self.unit = "race" if len(set(race)) > 1 else "picture"
        keys = race if self.unit == "race" else [p.image_file for p in predictions]
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


def write_predictions(predictions: Sequence[Prediction], path: Path) -> None:
    write_jsonl(path, map(asdict, predictions))


def read_predictions(path: Path) -> list[Prediction]:
    """Raises ValueError for rows of another form."""
    names = {field.name for field in fields(Prediction)}
    rows = read_jsonl(path, "run notebook 04_error_analysis to write it")
    for number, row in enumerate(rows, start=1):
        if not names <= set(row):
            raise ValueError(f"{path}: line {number} lacks {sorted(names - set(row))}; score again with notebook 04")
    return [Prediction(**{name: row[name] for name in names}) for row in rows]
