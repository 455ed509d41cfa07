import pytest
from stub_model import StubModel
from tiny import copy_frames
from tiny import prediction as row

from stkvlm_lib.config import ConfigError, ScoreConfig, make_config
from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.qa.qa_sets import COURSE, make_records, write_records
from stkvlm_lib.scores import calibration
from stkvlm_lib.scores.calibration import coverage_curve, fit_threshold, reliability, score_calibration, selective
from stkvlm_lib.scores.scoring import read_predictions
from stkvlm_lib.vlm.features import FeatureStore

CONFIG = ScoreConfig(bootstrap=100, error_rate=0.25)


def rows(*pairs, race="a"):
    """(confidence, right) pairs."""
    return [row(race, prediction="1" if right else "2", confidence=sure) for sure, right in pairs]


def test_calibration_error_is_the_mean_distance_of_the_bins():
    figures = reliability(rows((0.95, 1), (0.95, 1), (0.95, 0), (0.15, 0)) + rows((1.0, 1), race="b"), CONFIG)
    (low, high) = figures["bins"]
    assert (low["n"], low["low"], low["high"], low["exact"]) == (1, 0.1, 0.2, 0.0)
    assert (high["n"], high["exact"], high["confidence"]) == (4, 0.75, 0.9625)
    assert figures["ece"] == pytest.approx((1 * 0.15 + 4 * 0.2125) / 5)
    assert (figures["n"], figures["exact"], figures["confidence"]) == (5, 0.6, 0.8)


def test_the_threshold_is_the_lowest_that_keeps_the_rate_and_ties_are_answered_together():
    answers = rows((0.9, 1), (0.8, 0), (0.7, 1), (0.6, 1), (0.5, 0), (0.5, 1))
    assert fit_threshold(answers, 0.25) == 0.6, "one of four wrong"
    assert fit_threshold(answers, 0.34) == 0.5, "two of six, both of 0.5 or none"
    assert fit_threshold(answers, 0.33) == 0.6
    assert fit_threshold(rows((0.9, 0), (0.8, 0)), 0.05) is None
    assert fit_threshold(rows((0.9, 0), (0.8, 1), (0.7, 1), (0.6, 1)), 0.25) == 0.6, "also past a confident error"


def test_a_threshold_is_judged_where_it_was_not_fitted():
    fitted = rows((0.9, 1), (0.8, 1), (0.3, 0), (0.2, 0))
    scored = rows((0.95, 1), (0.85, 0), (0.1, 1)) + rows((0.81, 1), race="b")
    found = selective(fitted, scored, CONFIG)
    assert found["threshold"] == 0.8 and found["fit"] == {"n": 4, "coverage": 0.5, "error": 0.0}
    assert (found["n"], found["coverage"]) == (4, 0.75)
    assert found["error"] == pytest.approx(1 / 3, abs=1e-6) and found["error_rate"] == 0.25
    none = selective(rows((0.9, 0)), scored, CONFIG)
    assert none["threshold"] is None and none["coverage"] == 0 and "error" not in none


def test_the_curve_ends_with_all_answered():
    curve = coverage_curve(rows((0.9, 1), (0.8, 0), (0.7, 1), (0.6, 0)))
    assert curve[0] == {"coverage": 0.25, "error": 0.0} and curve[-1] == {"coverage": 1.0, "error": 0.5}
    assert coverage_curve(rows((0.5, 1), (0.5, 0))) == [{"coverage": 1.0, "error": 0.5}]


@pytest.fixture
def folder(tmp_path):
    return read_frames(copy_frames(copy_frames(tmp_path / "frames", "valid", 2), "test", 1))


def test_the_threshold_is_fitted_on_drawn_valid_pictures(folder, tmp_path):
    config = ScoreConfig(run_dir=str(tmp_path / "run"), calibration_views=3, bootstrap=100)
    scored = rows((0.9, 1), (0.2, 0))
    figures = score_calibration(FeatureStore(StubModel(), folder, 16), config, scored)["calibration"]
    written = read_predictions(tmp_path / "run" / "predictions_valid.jsonl")
    assert {p.image_file.split("/")[0] for p in written} == {"valid"} and len({p.image_file for p in written}) == 3
    assert figures["selective"]["fit"]["n"] == len(written) and figures["n"] == 2
    assert {p.prediction for p in written} <= {"seen", "unseen"} and written[0].blind_prediction is None
    again = calibration.records_to_fit(folder, config, scored)
    assert [(r.image_file, r.question) for r in again] == [(p.image_file, p.question) for p in written]


def test_a_scored_valid_split_fits_nothing(folder, tmp_path):
    config = ScoreConfig(run_dir=str(tmp_path / "run"), bootstrap=100)
    records = make_records(folder, "valid")
    write_records(records, tmp_path / "run" / "qa" / COURSE.format("valid"))
    (tmp_path / "run" / "predictions_valid.jsonl").write_text("of an earlier scoring")
    scored = [row(race) for race in {r.race for r in records}]
    figures = score_calibration(FeatureStore(StubModel(), folder, 16), config, scored)["calibration"]
    assert "selective" not in figures and figures["n"] == len(scored)
    assert not (tmp_path / "run" / "predictions_valid.jsonl").exists()


@pytest.mark.parametrize("given", [{"ERROR_RATE": 0}, {"ERROR_RATE": 1.0}, {"CALIBRATION_VIEWS": -1}])
def test_impossible_parameters_are_refused(given):
    with pytest.raises(ConfigError, match=next(iter(given))):
        make_config(given, ScoreConfig)
