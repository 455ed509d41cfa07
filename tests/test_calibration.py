from dataclasses import replace

import pytest
from hand_made import scored_run
from tiny import prediction as row

from stkvlm_lib.analysis.calibration import (
    Calibration,
    Coverage,
    CurvePoint,
    calibration_chart,
    coverage_curve,
    fit_threshold,
    reliability,
    selective,
)
from stkvlm_lib.analysis.intervals import Bootstrap
from stkvlm_lib.config import ConfigError, ScoreConfig
from stkvlm_lib.evaluation.predictions import further_file, write_answers
from stkvlm_lib.parameters import make_config


def rows(*pairs, race="a"):
    """(confidence, right) pairs."""
    return [row(race, prediction="1" if right else "2", confidence=sure) for sure, right in pairs]


def interval_of(answers):
    return Bootstrap(answers, 100, 0)


def test_calibration_error_is_the_mean_distance_of_the_bins():
    answers = rows((0.95, 1), (0.95, 1), (0.95, 0), (0.15, 0)) + rows((1.0, 1), race="b")
    figures = reliability(answers, interval_of(answers))
    (low, high) = figures.bins
    assert (low.n, low.low, low.high, low.exact) == (1, 0.1, 0.2, 0.0)
    assert (high.n, high.exact, high.confidence) == (4, 0.75, 0.9625)
    assert figures.ece == pytest.approx((1 * 0.15 + 4 * 0.2125) / 5)
    assert (figures.n, figures.exact, figures.confidence) == (5, 0.6, 0.8)


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
    found = selective(fitted, scored, 0.25, interval_of(scored))
    assert found.threshold == 0.8 and found.fit == Coverage(4, 0.5, 0.0)
    assert (found.n, found.coverage) == (4, 0.75)
    assert found.error == pytest.approx(1 / 3, abs=1e-6) and found.error_rate == 0.25
    assert found.coverage_ci95 == pytest.approx((2 / 3, 1), abs=1e-6), "two of race a's three, race b's one"
    none = selective(rows((0.9, 0)), scored, 0.25, interval_of(scored))
    assert none.threshold is none.error is none.error_ci95 is None and none.coverage == 0


def test_the_curve_ends_with_all_answered():
    curve = coverage_curve(rows((0.9, 1), (0.8, 0), (0.7, 1), (0.6, 0)))
    assert curve[0] == CurvePoint(0.25, 0.0) and curve[-1] == CurvePoint(1.0, 0.5)
    assert coverage_curve(rows((0.5, 1), (0.5, 0))) == [CurvePoint(1.0, 0.5)]


@pytest.fixture
def scored():
    return rows((0.9, 1), (0.2, 0)) + rows((0.6, 1), race="b")


def test_the_threshold_is_that_of_the_valid_answers_of_a_run(scored, tmp_path):
    fitted = rows((0.9, 1), (0.8, 1), (0.3, 0), race="v")
    write_answers(fitted, further_file(tmp_path, "valid"))
    settings = ScoreConfig(run_dir=str(tmp_path), bootstrap=100, error_rate=0.25)
    figures = Calibration.measure(scored_run(scored, folder=tmp_path, settings=settings))
    assert figures.selective.threshold == 0.8
    assert figures.selective.fit == Coverage(3, pytest.approx(2 / 3, abs=1e-6), 0.0)
    assert (figures.n, figures.selective.n, figures.selective.error_rate) == (3, 3, 0.25)
    assert figures.curve == coverage_curve(scored)
    assert Calibration.read(figures.into_metrics()) == figures


def test_without_valid_answers_nothing_is_fitted(scored, tmp_path):
    run = scored_run(scored, folder=tmp_path)
    figures = Calibration.measure(run)
    assert figures.selective is None and figures.n == 3
    assert "selective" not in figures.into_metrics()["calibration"]
    section = figures.section(run)
    assert "no threshold for answering was fitted" in section.text and section.table is None
    assert "no threshold" in section.figures[0].figure.axes[1].get_title(loc="left")


def test_the_section_says_what_answering_above_the_threshold_gives(scored):
    found = selective(rows((0.9, 1), (0.8, 1), (0.3, 0)), scored, 0.25, interval_of(scored))
    figures = replace(reliability(scored, interval_of(scored)), curve=coverage_curve(scored), selective=found)
    run = scored_run(scored, metrics={"split": "test"})
    section = figures.section(run)
    assert "it answers 33.3% of the scored questions, and 0.0% of these wrong" in section.text
    assert [line["answers"] for line in section.table.rows] == ["valid, where the threshold is fitted", "test, scored"]
    assert section.table.rows[1]["confidence from"] == "0.800"
    (bins,) = section.details
    assert [line["confidence"] for line in bins.rows] == ["20.0% to 30.0%", "60.0% to 70.0%", "90.0% to 100.0%"]
    assert "Confidence from 0.80: 33% answered" in section.figures[0].figure.axes[1].get_title(loc="left")


def test_a_rate_that_no_confidence_keeps_is_said(scored):
    none = selective(rows((0.9, 0)), scored, 0.05, interval_of(scored))
    figures = replace(reliability(scored, interval_of(scored)), curve=coverage_curve(scored), selective=none)
    assert "No confidence keeps the errors on valid races at 5.0%." in figures.words()
    title = calibration_chart(figures).axes[1].get_title(loc="left")
    assert "No confidence keeps the errors on valid races at 5%" in title


@pytest.mark.parametrize("given", [{"ERROR_RATE": 0}, {"ERROR_RATE": 1.0}, {"CALIBRATION_VIEWS": -1}])
def test_impossible_parameters_are_refused(given):
    with pytest.raises(ConfigError, match=next(iter(given))):
        make_config(given, ScoreConfig)


def test_the_chart_marks_where_the_threshold_was_fitted_and_what_it_gives(scored):
    found = selective(rows((0.9, 1), (0.8, 1), (0.3, 0)), scored, 0.25, interval_of(scored))
    figures = replace(reliability(scored, interval_of(scored)), curve=coverage_curve(scored), selective=found)
    left, right = calibration_chart(figures).axes
    assert left.get_title(loc="left") == f"Reliability: expected calibration error {figures.ece:.1%}"
    told = [text.get_text() for text in right.get_legend().get_texts()]
    assert told == ["valid, where it is fitted (n = 3)", f"scored (n = {figures.n}), 95% interval"]
    (chosen,) = right.texts
    assert chosen.get_text() == "chosen: 25%" and chosen.get_position() == (1.01, 0.25), "beside the curve, not over it"


def test_a_threshold_that_no_scored_answer_reaches_is_said(scored):
    found = selective(rows((0.99, 1), (0.5, 0)), scored, 0.0, interval_of(scored))
    assert found.threshold == 0.99 and found.error is None
    figures = replace(reliability(scored, interval_of(scored)), curve=coverage_curve(scored), selective=found)
    title = calibration_chart(figures).axes[1].get_title(loc="left")
    assert "No answer is as sure as the threshold 0.99" in title
