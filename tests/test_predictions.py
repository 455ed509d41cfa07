"""Answers against the truth, and as a run keeps them."""

import json
from dataclasses import asdict, replace

import pytest
from tiny import prediction as row

from stkvlm_lib.evaluation.predictions import (
    ChoicePrediction,
    PairPrediction,
    further_file,
    is_prefix,
    read_answers,
    write_answers,
)
from stkvlm_lib.grammar.questions import is_exact


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
    write_answers(rows, tmp_path / "predictions.jsonl")
    assert read_answers(tmp_path / "predictions.jsonl") == rows
    broken = asdict(rows[0])
    del broken["confidence"]
    (tmp_path / "broken.jsonl").write_text(json.dumps(broken) + "\n")
    with pytest.raises(ValueError, match=r"broken\.jsonl: line 1, confidence: not there"):
        read_answers(tmp_path / "broken.jsonl")


def test_predictions_of_an_older_run_are_read(tmp_path):
    """It knew neither closed sets nor wordings."""
    older = asdict(row(base_prediction="x", base_correct=False))
    for name in ("closed_prediction", "closed_correct", "closed_second", "closed_margin", "wording"):
        del older[name]
    (tmp_path / "predictions.jsonl").write_text(json.dumps(older) + "\n")
    assert read_answers(tmp_path / "predictions.jsonl") == [row(base_prediction="x", base_correct=False)]


def test_answers_of_another_kind_are_not_taken_for_them(tmp_path):
    file = further_file(tmp_path, "mc")
    assert file.name == "predictions_mc.jsonl"
    write_answers([row()], file)
    for kind in (ChoicePrediction, PairPrediction):
        with pytest.raises(ValueError, match=r"predictions_mc\.jsonl: line 1, .*04_evaluate"):
            read_answers(file, kind)
    with pytest.raises(FileNotFoundError, match=r"predictions_none\.jsonl: not there; answer again with notebook"):
        read_answers(further_file(tmp_path, "none"))
