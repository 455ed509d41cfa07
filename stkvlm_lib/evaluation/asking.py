"""Questions put to a model: with the adapter, by the base alone, blind, and by likelihood from a closed set.

Those of contrast pairs are put to both of their pictures.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, TypeVar

import torch
from PIL import Image

from stkvlm_lib.evaluation.predictions import PairPrediction, Prediction, is_prefix
from stkvlm_lib.grammar.questions import FAMILIES, is_exact
from stkvlm_lib.grouping import grouped
from stkvlm_lib.qa.contrast import ContrastItem, Pair
from stkvlm_lib.qa.qa_sets import Record, by_picture
from stkvlm_lib.vlm.answering import Answer, AnswerModel, ranked
from stkvlm_lib.vlm.features import FeatureStore

T = TypeVar("T")


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
    ours: dict[Record, Answer] = {}
    base: dict[Record, Answer] = {}
    closed: dict[Record, list[Answer]] = {}
    seconds, begin = 0.0, time.monotonic()
    for chunk, features in store.batches([(name, False) for name in groups], label):
        asked = [groups[name] for name, _ in chunk]
        ours |= answer_items(answerer, features, asked)
        seconds += time.monotonic() - begin
        if blind:
            closed |= _answer_closed(answerer, features, asked)
        if base_too:
            plain = store.base_features(chunk, features)
            with answerer.without_adapter():
                base |= answer_items(answerer, plain, asked)
        begin = time.monotonic()  # the next chunk is encoded before the loop's body is reached
    rows = [as_prediction(r, ours[r], unseen.get(r.question), base.get(r), closed.get(r)) for r in records]
    return rows, len(records) / seconds if records else 0.0


def answer_items(answerer: AnswerModel, features: torch.Tensor, asked: Sequence[Sequence[T]]) -> dict[T, Answer]:
    """The answers to items, each with a `question`, about each picture of a batch. features: (B, tokens, D)."""
    answers = answerer.answer_encoded(features, [[item.question for item in group] for group in asked])
    return dict(zip(chain.from_iterable(asked), chain.from_iterable(answers), strict=True))


def _answer_closed(
    answerer: AnswerModel, features: torch.Tensor, asked: Sequence[list[Record]]
) -> dict[Record, list[Answer]]:
    """The two likeliest answers of each question's family; questions of no family are left out."""
    known = [[r for r in group if r.family in FAMILIES] for group in asked]
    likely = answerer.likelihoods(features, [[(r.question, FAMILIES[r.family].answers) for r in g] for g in known])
    best = (ranked(candidates)[:2] for candidates in chain.from_iterable(likely))
    return dict(zip(chain.from_iterable(known), best, strict=True))


def as_prediction(
    record: Record,
    ours: Answer,
    blind: Answer | None = None,
    base: Answer | None = None,
    closed: Sequence[Answer] | None = None,
) -> Prediction:
    """An answer scored against its record, with what else was answered; confidences to six places."""
    truth, (best, second) = record.answer, closed or (None, None)
    beside: dict[str, Any] = {}
    for kind, answer in (("base", base), ("blind", blind), ("closed", best)):
        if answer:
            beside |= {f"{kind}_prediction": answer.text, f"{kind}_correct": is_exact(answer.text, truth)}
    if second:
        beside |= {"closed_second": second.text, "closed_margin": round(best.confidence - second.confidence, 6)}
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
        wording=record.wording,
        **beside,
    )


def answer_pairs(store: FeatureStore, pairs: Sequence[Pair]) -> list[PairPrediction]:
    """Each picture, mirrored or not, is asked each question once."""
    asked = grouped(chain.from_iterable(pairs), attrgetter("image_file", "mirrored"))
    said: dict[ContrastItem, str] = {}
    for chunk, features in store.batches(asked, "pairs"):
        answers = answer_items(store.answerer, features, [asked[picture] for picture in chunk])
        said |= {item: answer.text for item, answer in answers.items()}
    return [_pair_prediction(first, second, (said[first], said[second])) for first, second in pairs]


def _pair_prediction(first: ContrastItem, second: ContrastItem, said: tuple[str, str]) -> PairPrediction:
    return PairPrediction(
        pair=first.pair,
        kind=first.kind,
        family=first.family,
        question=first.question,
        image_file=first.image_file,
        other_file=second.image_file,
        answers=(first.answer, second.answer),
        predictions=said,
        correct=(is_exact(said[0], first.answer), is_exact(said[1], second.answer)),
        differ=first.answer != second.answer,
        race=first.race,
        track=first.track,
    )
