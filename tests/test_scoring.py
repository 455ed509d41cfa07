import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from stkvlm_lib.scoring import Bootstrap, Prediction, is_exact, is_prefix, read_predictions, score, write_predictions


def row(race="a", answer="1", prediction="1", family="count", picture=0, **changes) -> Prediction:
    values = {
        "image_file": f"test/{race}{picture}_00_im.jpg",
        "question": "How many karts are there in the scenario?",
        "answer": answer,
        "prediction": prediction,
        "family": family,
        "correct": is_exact(prediction, answer),
        "prefix_correct": is_prefix(prediction, answer),
        "confidence": 0.5,
        "race": race,
        "track": "abyss",
        "base_prediction": "x",
        "base_correct": False,
        "blind_prediction": "1",
        "blind_correct": answer == "1",
    }
    return Prediction(**{**values, **changes})


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


def test_score_counts_overall_macro_majority_and_gain():
    rows = [
        row("a", "1", "1"),
        row("a", "1", "2"),
        row("b", "2", "2"),
        row("b", "tux", "tux", "ego"),
    ]
    figures = score(rows, resamples=200, seed=0)
    assert figures["n"] == 4
    assert figures["exact"] == 0.75
    assert figures["families"]["count"]["exact"] == pytest.approx(2 / 3, abs=1e-6)
    assert figures["macro_exact"] == pytest.approx((2 / 3 + 1) / 2, abs=1e-6)
    assert figures["majority"] == 0.75  # "1" right twice of three, "tux" once of once
    assert figures["families"]["count"]["majority"] == pytest.approx(2 / 3, abs=1e-6)
    assert figures["blind"] == 0.5
    assert figures["gain_over_base"] == 0.75
    assert (figures["clusters"], figures["n_clusters"]) == ("race", 2)
    assert figures["exact_ci95"] == [0.5, 1.0]  # race a alone scores 1/2, race b alone 1


def test_unknown_wording_is_scored_as_a_family_of_its_own():
    figures = score([row(), row("b", family="other", prediction="no")], resamples=100, seed=0)
    assert figures["families"]["other"]["exact"] == 0
    assert figures["macro_exact"] == 0.5


def test_intervals_cluster_by_race_and_are_wider_for_it():
    rng = np.random.default_rng(0)
    clustered = [row(f"r{r}", prediction="1" if r % 2 else "2", picture=i) for r in range(10) for i in range(50)]
    apart = [row(f"r{i}", prediction=str(rng.integers(1, 3))) for i in range(500)]
    wide = score(clustered, resamples=500, seed=0)["exact_ci95"]
    narrow = score(apart, resamples=500, seed=0)["exact_ci95"]
    assert wide[1] - wide[0] > 3 * (narrow[1] - narrow[0])


def test_a_single_race_resamples_pictures_and_says_so():
    rows = [row("a", prediction="1" if i % 2 else "2", picture=i) for i in range(20)]
    figures = score(rows, resamples=300, seed=0)
    assert figures["clusters"] == "picture"
    low, high = figures["exact_ci95"]
    assert low < 0.5 < high


def test_the_bootstrap_is_seeded():
    rows = [row(f"r{i}", prediction="1" if i % 3 else "2") for i in range(12)]
    values = np.array([r.correct for r in rows], float)
    assert Bootstrap(rows, 200, 1)(values) == Bootstrap(rows, 200, 1)(values)
    assert Bootstrap(rows, 200, 1)._weights.sum(1).tolist() == [12] * 200


def test_predictions_round_trip_and_incomplete_rows_are_named(tmp_path):
    rows = [row(), replace(row("b"), confidence=0.25)]
    write_predictions(rows, tmp_path / "predictions.jsonl")
    assert read_predictions(tmp_path / "predictions.jsonl") == rows
    broken = asdict(rows[0])
    del broken["confidence"]
    (tmp_path / "broken.jsonl").write_text(json.dumps(broken) + "\n")
    with pytest.raises(ValueError, match=r"broken\.jsonl: line 1 lacks \['confidence'\]"):
        read_predictions(tmp_path / "broken.jsonl")
