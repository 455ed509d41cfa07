"""Answers against the truth: every question asked with the adapter, of the base alone, blind, and by closed set."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image

from stkvlm_lib.config import ScoreConfig, resolve
from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.data.frames import FLAT_SPLIT
from stkvlm_lib.files import read_rows, write_jsonl
from stkvlm_lib.grammar.questions import FAMILIES, normalise
from stkvlm_lib.qa.qa_sets import (
    COURSE,
    CUSTOM_SPLIT,
    QaError,
    Record,
    by_picture,
    make_records,
    read_course_qa,
    read_records,
)
from stkvlm_lib.vlm.answering import Answer, AnswerModel, ranked
from stkvlm_lib.vlm.features import FeatureStore

HELD_OUT = ("test", "valid", FLAT_SPLIT)
"""Splits that are scored, the first that is there."""


@dataclass(frozen=True)
class Prediction:
    """One scored question. confidence: probability of the generated answer with its stop token.

    blind_: with the mean image instead of the picture. base_: of the base without the adapter. closed_: the likeliest
    of the family's answers, generated or not; its second, and by how much probability that one is behind. These are
    None where they were not asked for.
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
    base_prediction: str | None = None
    base_correct: bool | None = None
    blind_prediction: str | None = None
    blind_correct: bool | None = None
    closed_prediction: str | None = None
    closed_correct: bool | None = None
    closed_second: str | None = None
    closed_margin: float | None = None
    wording: int = 0


def is_exact(prediction: str, answer: str) -> bool:
    """Strict match: the whole answer, lower-cased and stripped."""
    return normalise(prediction) == normalise(answer)


def is_prefix(prediction: str, answer: str) -> bool:
    """The course grader's match: the prediction is cut to the answer's length first ("12" passes for "1")."""
    return normalise(prediction)[: len(normalise(answer))] == normalise(answer)


def records_to_score(config: ScoreConfig, folder: FrameSet, qa: Path | None = None) -> tuple[str, list[Record]]:
    """(split, records): QA_FILE if given, else the run's own test split, else the held-out split of the folder.

    qa: another folder with question files than the run's own.
    """
    if config.qa_file:
        return CUSTOM_SPLIT, read_course_qa(resolve(config.qa_file), folder)
    for split in HELD_OUT:
        written = (qa or config.run_path / "qa") / COURSE.format(split)
        if written.exists():
            return split, read_known(written, folder)
    for split in HELD_OUT:
        if split in folder.splits:
            return split, make_records(folder, split)
    raise QaError(
        f"{folder.root}: no held-out split (it has {', '.join(folder.splits)}); name the questions in QA_FILE"
    )


def read_known(path: Path, folder: FrameSet) -> list[Record]:
    """A run's records, whose pictures must lie in the folder. Raises QaError naming the first that does not."""
    records = read_records(path)
    strange = next((r.image_file for r in records if r.image_file not in folder.by_image_file), None)
    if strange:
        raise QaError(f"{path}: {strange} is not in {folder.root}; run notebook 02 with this FRAMES_DIR again")
    return records


class Blind:
    """What a model answers with the mean training picture in place of the real one.

    That picture is encoded once, and as it is the same for all, each question is answered once.
    """

    def __init__(self, answerer: AnswerModel, image: Image.Image):
        self.answerer = answerer
        self.features = answerer.encode([image])
        self._known: dict[str, Answer] = {}

    def answers(self, questions: Iterable[str], n: int = 64) -> Mapping[str, Answer]:
        """At least the answers to these questions; those not asked before are asked n at a time."""
        new = sorted(set(questions) - self._known.keys())
        for start in range(0, len(new), n):
            chunk = new[start : start + n]
            self._known.update(zip(chunk, self.answerer.answer_encoded(self.features, [chunk])[0], strict=True))
        return self._known


def predict(
    store: FeatureStore, records: Sequence[Record], blind: Blind, *, base_too: bool = True, label: str = "answer"
) -> tuple[list[Prediction], float]:
    """Answer every record with the store's model, blind and from its family's closed set, in their order.

    base_too: ask the base without the adapter as well.
    -> predictions, questions per second with the adapter (encoding included).
    """
    answerer, groups = store.answerer, by_picture(records)
    unseen = blind.answers(r.question for r in records)
    ours: dict[tuple[str, str], Answer] = {}
    base: dict[tuple[str, str], Answer] = {}
    closed: dict[tuple[str, str], list[Answer]] = {}
    seconds, begin = 0.0, time.monotonic()
    for chunk, features in store.batches([(name, False) for name in groups], label):
        asked = [groups[name] for name, _ in chunk]
        questions = [[record.question for record in group] for group in asked]
        _collect(ours, asked, answerer.answer_encoded(features, questions))
        seconds += time.monotonic() - begin
        closed |= _answer_closed(answerer, features, asked)
        if base_too:
            plain = store.base_features(chunk, features)
            with answerer.without_adapter():
                _collect(base, asked, answerer.answer_encoded(plain, questions))
        begin = time.monotonic()
    rows = []
    for r in records:
        key = r.image_file, r.question
        rows.append(as_prediction(r, ours[key], unseen[r.question], base.get(key), closed.get(key)))
    return rows, len(records) / seconds


def predict_plain(
    store: FeatureStore, records: Sequence[Record], label: str, *, base_too: bool = False
) -> list[Prediction]:
    """Answer every record with the store's model alone, in their order. base_too: and without the adapter."""
    groups = by_picture(records)
    ours: dict[tuple[str, str], Answer] = {}
    base: dict[tuple[str, str], Answer] = {}
    for chunk, features in store.batches([(name, False) for name in groups], label):
        asked = [groups[name] for name, _ in chunk]
        questions = [[record.question for record in group] for group in asked]
        _collect(ours, asked, store.answerer.answer_encoded(features, questions))
        if base_too:
            plain = store.base_features(chunk, features)
            with store.answerer.without_adapter():
                _collect(base, asked, store.answerer.answer_encoded(plain, questions))
    keys = [(r.image_file, r.question) for r in records]
    return [as_prediction(r, ours[key], base=base.get(key)) for r, key in zip(records, keys, strict=True)]


def _collect(store: dict, asked: Sequence[list[Record]], answers: Sequence[Sequence]) -> None:
    for group, given in zip(asked, answers, strict=True):
        store.update({(r.image_file, r.question): answer for r, answer in zip(group, given, strict=True)})


def _answer_closed(
    answerer: AnswerModel, features: torch.Tensor, asked: Sequence[list[Record]]
) -> dict[tuple[str, str], list[Answer]]:
    """The two likeliest answers of each question's family; questions of no family are left out."""
    known = [[r for r in group if r.family in FAMILIES] for group in asked]
    likely = answerer.likelihoods(features, [[(r.question, FAMILIES[r.family].answers) for r in g] for g in known])
    best: dict[tuple[str, str], list[Answer]] = {}
    _collect(best, known, [[ranked(candidates)[:2] for candidates in group] for group in likely])
    return best


def as_prediction(
    record: Record,
    ours: Answer,
    blind: Answer | None = None,
    base: Answer | None = None,
    closed: Sequence[Answer] | None = None,
) -> Prediction:
    """An answer scored against its record, with what else was answered; confidences to six places."""
    truth, (best, second) = record.answer, closed or (None, None)
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
        base_prediction=base.text if base else None,
        base_correct=is_exact(base.text, truth) if base else None,
        blind_prediction=blind.text if blind else None,
        blind_correct=is_exact(blind.text, truth) if blind else None,
        closed_prediction=best.text if best else None,
        closed_correct=is_exact(best.text, truth) if best else None,
        closed_second=second.text if second else None,
        closed_margin=round(best.confidence - second.confidence, 6) if second else None,
        wording=record.wording,
    )


def write_predictions(predictions: Iterable[Prediction], path: Path) -> None:
    write_jsonl(path, map(asdict, predictions))


def read_predictions(path: Path) -> list[Prediction]:
    """Raises ValueError for rows of another form."""
    return read_rows(path, Prediction, "score again with notebook 04_error_analysis")
