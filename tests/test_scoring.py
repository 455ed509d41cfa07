import json
from dataclasses import asdict, replace

import pytest
from tiny import fresh, pictures
from tiny import prediction as row

from stkvlm_lib.config import ScoreConfig
from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.grammar.questions import FAMILIES
from stkvlm_lib.qa.qa_sets import QaError, make_records
from stkvlm_lib.scores.scoring import (
    Blind,
    draw_views,
    is_exact,
    is_prefix,
    predict,
    predict_plain,
    read_known,
    read_predictions,
    records_to_score,
    write_predictions,
)
from stkvlm_lib.vlm.answering import Answer
from stkvlm_lib.vlm.features import FeatureStore


@pytest.mark.parametrize(
    ("prediction", "answer", "exact", "prefix"),
    [
        ("1", "1", True, True),
        ("12", "1", False, True),
        ("Front and left", "front", False, True),
        (" TUX ", "tux", True, True),
        ("front", "front and left", False, False),
        ("", "1", False, False),
    ],
)
def test_strict_and_prefix_match(prediction, answer, exact, prefix):
    assert is_exact(prediction, answer) is exact
    assert is_prefix(prediction, answer) is prefix


def test_predictions_round_trip_and_incomplete_rows_are_named(tmp_path):
    rows = [row(), replace(row("b"), confidence=0.25)]
    write_predictions(rows, tmp_path / "predictions.jsonl")
    assert read_predictions(tmp_path / "predictions.jsonl") == rows
    broken = asdict(rows[0])
    del broken["confidence"]
    (tmp_path / "broken.jsonl").write_text(json.dumps(broken) + "\n")
    with pytest.raises(ValueError, match=r"broken\.jsonl: line 1 lacks \['confidence'\]"):
        read_predictions(tmp_path / "broken.jsonl")


def test_predictions_of_an_older_run_are_read(tmp_path):
    """It knew neither closed sets nor wordings."""
    older = asdict(row(base_prediction="x", base_correct=False))
    for name in ("closed_prediction", "closed_correct", "closed_second", "closed_margin", "wording"):
        del older[name]
    (tmp_path / "predictions.jsonl").write_text(json.dumps(older) + "\n")
    assert read_predictions(tmp_path / "predictions.jsonl") == [row(base_prediction="x", base_correct=False)]


def test_each_question_is_answered_in_four_ways(base_folder, bundled):
    """Whatever the batches, as when it is asked alone."""
    records = [r for r in make_records(bundled, "test")[:60] if r.family in ("ego", "track", "count_left")][:8]
    records.append(replace(records[0], question="Who leads?", family="other"))
    answerer, mean = fresh(base_folder), pictures(1)[0]
    blind = Blind(answerer, mean)
    rows, rate = predict(FeatureStore(answerer, bundled, 2), records, blind)
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
    plain, _ = predict(store, records, blind, base_too=False)
    assert {(p.base_prediction, p.base_correct) for p in plain} == {(None, None)}
    assert [p.prediction for p in plain] == [p.prediction for p in rows]
    alone = predict_plain(store, records, "answer")
    assert [p.prediction for p in alone] == [p.prediction for p in rows] and alone[0].closed_prediction is None


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


def test_records_about_other_pictures_are_refused(written, tmp_path):
    from tiny import copy_frames

    folder = read_frames(copy_frames(tmp_path, "test", 1))
    with pytest.raises(QaError, match=r"test\.jsonl: test/.* is not in .* run notebook 02"):
        read_known(written[0] / "test.jsonl", folder)


def test_some_pictures_are_drawn_from_every_race_in_turn_the_same_for_every_seed(bundled, tmp_path):
    records = make_records(bundled, "test")
    races = {r.race for r in records}
    some = draw_views(records, len(races) + 3)
    pictures_of = {race: {r.image_file for r in some if r.race == race} for race in races}
    assert sorted(map(len, pictures_of.values())) == [1] * (len(races) - 3) + [2] * 3
    assert some == [r for r in records if r.image_file in set().union(*pictures_of.values())], "whole, and in order"
    assert draw_views(records[::-1], len(races) + 3) == some[::-1]
    assert {r.image_file for r in draw_views(records, 5)} < {r.image_file for r in some}
    assert draw_views(records, 0) == draw_views(records, 10**6) == records

    def asked(**changes):
        return records_to_score(ScoreConfig(run_dir=str(tmp_path), **changes), bundled)

    assert asked(test_views=5, seed=1) == asked(test_views=5, seed=2) == ("test", draw_views(records, 5))
    assert asked() == ("test", records)
