"""Questions put to a model: with the adapter, by the base alone, blind, and by likelihood from a closed set."""

import time
from collections.abc import Iterable, Mapping, Sequence

import torch
from PIL import Image

from stkvlm_lib.evaluation.predictions import Prediction, is_prefix
from stkvlm_lib.grammar.questions import FAMILIES, is_exact
from stkvlm_lib.qa.qa_sets import Record, by_picture
from stkvlm_lib.vlm.answering import Answer, AnswerModel, ranked
from stkvlm_lib.vlm.features import FeatureStore


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
    store: FeatureStore,
    records: Sequence[Record],
    label: str = "answer",
    *,
    blind: Blind | None = None,
    base_too: bool = False,
) -> tuple[list[Prediction], float]:
    """Answer every record with the store's model, in their order.

    blind: answer them without the picture and from their family's closed set as well; base_too: and by the base without
    the adapter. -> predictions, questions per second with the adapter (encoding included).
    """
    answerer, groups = store.answerer, by_picture(records)
    unseen = blind.answers(r.question for r in records) if blind else {}
    ours: dict[tuple[str, str], Answer] = {}
    base: dict[tuple[str, str], Answer] = {}
    closed: dict[tuple[str, str], list[Answer]] = {}
    seconds, begin = 0.0, time.monotonic()
    for chunk, features in store.batches([(name, False) for name in groups], label):
        asked = [groups[name] for name, _ in chunk]
        questions = [[record.question for record in group] for group in asked]
        _collect(ours, asked, answerer.answer_encoded(features, questions))
        seconds += time.monotonic() - begin
        if blind:
            closed |= _answer_closed(answerer, features, asked)
        if base_too:
            plain = store.base_features(chunk, features)
            with answerer.without_adapter():
                _collect(base, asked, answerer.answer_encoded(plain, questions))
        begin = time.monotonic()  # the next chunk is encoded before the loop's body is reached
    rows = []
    for r in records:
        key = r.image_file, r.question
        rows.append(as_prediction(r, ours[key], unseen.get(r.question), base.get(key), closed.get(key)))
    return rows, len(records) / seconds if records else 0.0


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
