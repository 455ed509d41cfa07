"""What the figures of the error analysis say, and that they say why they are empty."""

import pytest
from test_plots import texts

from stkvlm_lib.figures import error_plots, plots


def slice_of(n, exact, expected=0.5):
    return {"n": n, "exact": exact, "exact_ci95": [exact - 0.1, exact + 0.1], "expected": expected}


def test_slices_stand_in_panels_with_their_n_and_tracks_by_accuracy():
    found = {
        "karts": {"1": slice_of(12, 0.6), "6 or more": slice_of(1234, 0.4)},
        "track": {"abyss": slice_of(5, 0.2), "mines": slice_of(6, 0.9)},
    }
    figure = error_plots.slice_chart(found)
    karts, tracks = figure.axes
    assert [t.get_text() for t in karts.get_yticklabels()] == ["1  (n = 12)", "6 or more  (n = 1,234)"]
    assert [t.get_text() for t in tracks.get_yticklabels()] == ["mines  (n = 6)", "abyss  (n = 5)"]
    assert karts.get_xlim() == tracks.get_xlim() == (0.0, 1.0), "one scale"
    said = texts(figure)
    assert "Karts in view" in said and "40%" in said and "expected of its mix of families" in said
    high = error_plots.slice_chart({"view": {"0": slice_of(9, 0.8, 0.8), "1": slice_of(9, 0.85, 0.8)}})
    assert high.axes[0].get_xlim()[0] == pytest.approx(0.6)


@pytest.fixture
def calibration():
    bins = [{"low": 0.9, "high": 1.0, "n": 40, "confidence": 0.95, "exact": 0.8, "exact_ci95": [0.7, 0.9]}]
    curve = [{"coverage": 0.5, "error": 0.1}, {"coverage": 1.0, "error": 0.2}]
    return {"n": 40, "ece": 0.15, "bins": bins, "curve": curve}


def test_calibration_says_what_the_threshold_gives_or_why_there_is_none(calibration):
    said = texts(error_plots.calibration_chart(calibration))
    assert "expected calibration error 15.0%" in said and "no threshold: no valid races beside those scored" in said
    fit = {"n": 30, "coverage": 0.6, "error": 0.05}
    chosen = {"error_rate": 0.05, "threshold": 0.7, "coverage": 0.55, "fit": fit, "n": 40, "error": 0.08}
    said = texts(error_plots.calibration_chart(calibration | {"selective": chosen | {"error_ci95": [0.04, 0.12]}}))
    assert "Confidence from 0.70: 55% answered, 8.0% wrong" in said and "chosen: 5%" in said
    assert "valid, where it is fitted (n = 30)" in said
    none = {"error_rate": 0.05, "threshold": None, "coverage": 0.0, "fit": {"n": 30, "coverage": 0.0}, "n": 40}
    said = texts(error_plots.calibration_chart(calibration | {"selective": none}))
    assert "No confidence keeps the errors on valid races at 5%" in said
    said = texts(error_plots.calibration_chart(calibration | {"selective": none | {"threshold": 0.99, "fit": fit}}))
    assert "No answer is as sure as the threshold 0.99" in said


def test_the_bars_of_the_budget_are_as_long_as_their_cost():
    causes = {
        "pixel": {"n": 10, "share": 0.25, "cost": 0.1, "families": {"count": 6, "ego": 4}},
        "small": {"n": 0, "share": 0.0, "cost": 0.0, "families": {}, "touched": 9, "exact": 1.0},
        "identity": {"n": 30, "share": 0.75, "cost": 0.3, "families": {"ego": 20, "nearest": 10}},
    }
    figure = error_plots.budget_chart({"errors": 40, "n": 100, "causes": causes})
    (axes,) = figure.axes
    lengths = {}
    for bar in axes.patches:
        lengths[round(bar.get_y() + bar.get_height() / 2)] = bar.get_x() + bar.get_width()
    assert lengths == {0: pytest.approx(0.1), 1: pytest.approx(0.3)}, "a cause without errors has no bar"
    said = texts(figure)
    assert "pixel: the truth hangs on one pixel of the rule" in said and "30 (75% of all errors)" in said
    assert "together 40.0%, 40" in said
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["ego kart", "total count", "other"]


def test_the_ceiling_shows_doubt_and_oracle_by_family():
    row = {"n": 8, "exact": 0.5, "oracle": 0.9, "pixel": {"doubtful": 0.25, "exact_clear": 0.6, "exact_doubtful": 0.2}}
    clear = {"n": 2, "exact": 1.0, "oracle": 1.0, "pixel": {"doubtful": 0.0, "exact_clear": 1.0}}
    figure = error_plots.ceiling_chart({**row, "families": {"track": clear, "count": row}})
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["all  (n = 8)", "count  (n = 8)", "track  (n = 2)"]
    assert "25% in doubt" in texts(figure) and "oracle whose boxes are up to a pixel off" in texts(figure)


@pytest.mark.parametrize("nothing", [None, {}, [], {"families": {}, "bins": [], "causes": {}}])
def test_what_is_not_there_is_said(nothing):
    for draw in ("slice_chart", "calibration_chart", "budget_chart", "ceiling_chart"):
        assert "No " in texts(getattr(error_plots, draw)(nothing))


def test_confusion_can_leave_out_what_is_never_confused():
    from test_plots import make_prediction

    told = [("mines", "mines"), ("mines", "abyss"), ("xr591", "mines"), ("zengarden", ""), ("lighthouse", "lighthouse")]
    rows = [make_prediction(family="track", truth=truth, given=given) for truth, given in told]
    said = texts(plots.confusion(rows, "track", only_confused=True))
    assert "mines  (n = 2)" in said and "lighthouse" not in said
    assert "track: 40.0% right, n = 5, without truths never confused" in said
    few = texts(plots.confusion([rows[0], *rows[2:]], "track", only_confused=True))
    assert "track: 2 of 4 answers are right\nxr591 taken for mines: 1\nzengarden taken for nothing: 1" in few
    assert "all 1 answers are right" in texts(plots.confusion(rows[4:], "track", only_confused=True))
