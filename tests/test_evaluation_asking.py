"""Questions put to a model: with the adapter, by the base alone, blind, and from a closed set."""

from dataclasses import replace

import pytest
from tiny import fresh, pictures

from stkvlm_lib.evaluation.asking import Blind, as_prediction, predict
from stkvlm_lib.grammar.questions import FAMILIES, is_exact
from stkvlm_lib.qa.qa_sets import Record, make_records
from stkvlm_lib.vlm.answering import Answer
from stkvlm_lib.vlm.features import FeatureStore


def test_each_question_is_answered_in_four_ways(base_folder, bundled):
    """Whatever the batches, as when it is asked alone."""
    records = [r for r in make_records(bundled, "test")[:60] if r.family in ("ego", "track", "count_left")][:8]
    records.append(replace(records[0], question="Who leads?", family="other"))
    answerer, mean = fresh(base_folder), pictures(1)[0]
    blind = Blind(answerer, mean)
    rows, rate = predict(FeatureStore(answerer, bundled, 2), records, blind=blind, base_too=True)
    assert [(p.image_file, p.question, p.family) for p in rows] == [
        (r.image_file, r.question, r.family) for r in records
    ]
    assert rate > 0
    for p in (rows[1], rows[-1]):
        image = bundled.by_image_file[p.image_file].image()
        assert p.prediction == answerer.answer(image, p.question).text
        assert p.blind_prediction == answerer.answer(mean, p.question).text
        with answerer.without_adapter():
            assert p.base_prediction == answerer.answer(image, p.question).text
    first = bundled.by_image_file[rows[0].image_file].image()
    best, second, *_ = answerer.rank(first, rows[0].question, FAMILIES[rows[0].family].answers)
    assert rows[0].closed_prediction == best.text and rows[0].closed_correct == is_exact(best.text, rows[0].answer)
    assert rows[0].closed_second == second.text
    assert rows[0].closed_margin == pytest.approx(best.confidence - second.confidence, abs=1e-4)
    assert rows[-1].closed_prediction is None and rows[-1].closed_correct is None
    store = FeatureStore(answerer, bundled, 3)
    plain, _ = predict(store, records, blind=blind)
    assert {(p.base_prediction, p.base_correct) for p in plain} == {(None, None)}
    assert [p.prediction for p in plain] == [p.prediction for p in rows]
    alone, _ = predict(store, records)
    assert [p.prediction for p in alone] == [p.prediction for p in rows] and alone[0].closed_prediction is None
    assert predict(store, []) == ([], 0.0)


def test_blind_each_question_is_answered_once():
    asked = []

    class Model:
        def encode(self, images):
            asked.append(images)
            return "mean"

        def answer_encoded(self, features, questions):
            asked.extend(questions)
            return [[Answer(f"{features} {question}", 0.5) for question in group] for group in questions]

    blind = Blind(Model(), "picture")
    assert blind.answers(["b", "a", "b"])["b"].text == "mean b"
    assert {"a", "b", "c"} <= set(blind.answers(iter("bc")))
    assert asked == [["picture"], ["a", "b"], ["c"]]
    blind.answers(["d", "e", "f"], n=2)
    assert asked[3:] == [["d", "e"], ["f"]]


def test_an_answer_is_scored_with_all_that_was_answered_beside_it():
    record = Record("a.jpg", "How many?", "3", "count", "test", "race", "0", 0, "abyss", wording=2)
    closed = [Answer("3", 0.5), Answer("4", 0.25)]
    told = as_prediction(record, Answer(" 3 ", 0.12345678), Answer("1", 0.5), Answer("three", 0.1), closed)
    assert (told.correct, told.prefix_correct, told.blind_correct, told.base_correct) == (True, True, False, False)
    assert (told.confidence, told.race, told.track, told.wording) == (0.123457, "race", "abyss", 2)
    assert (told.closed_prediction, told.closed_correct) == ("3", True)
    assert (told.closed_second, told.closed_margin) == ("4", 0.25)
    alone = as_prediction(record, Answer("30", 0.5))
    assert (alone.correct, alone.prefix_correct) == (False, True)
    assert {getattr(alone, f"{kind}_{part}") for kind in ("blind", "base", "closed")
            for part in ("prediction", "correct")} == {None}  # fmt: skip
