"""What the report says of where and why answers are wrong, from a metrics.json made by hand."""

import json

from test_report import read_page, run_dir  # noqa: F401 - the fixture is a run folder without these artefacts

from stkvlm_lib.figures import plots
from stkvlm_lib.files import write_json

FIGURES = ("score_budget", "score_causes", "score_slices", "score_calibration", "score_ceiling", "score_near")
TITLES = {
    "error_budget": "Why answers are wrong",
    "slices": "Where answers are wrong",
    "calibration": "What the confidence is worth",
    "entailed": "Answers that must agree",
    "ceiling": "What can be reached",
}


def parts() -> dict:
    right = {"n": 12, "exact": 0.75, "exact_ci95": [0.6, 0.9]}
    doubt = {"doubtful": 0.2, "reach": 0.95, "exact_doubtful": 0.5, "exact_clear": 0.8}
    fit = {"n": 30, "coverage": 0.6, "error": 0.05}
    chosen = {"threshold": 0.7, "coverage": 0.5, "error": 0.08, "n": 12, "fit": fit, "error_rate": 0.05}
    bins = [{"low": 0.8, "high": 0.9, "confidence": 0.85, **right}]
    ceiling = {**right, "oracle": 0.91, "pixel": doubt, "strict": {**doubt, "reasons": {"too close to level": 2}}}
    return {
        "error_budget": {"errors": 3, "n": 12, "causes": {"identity": {"n": 3, "share": 1.0, "cost": 0.25}}},
        "slices": {"view": {"0": {**right, "expected": 0.7}, "1": right}},
        "calibration": {"n": 12, "confidence": 0.8, "exact": 0.75, "ece": 0.1, "bins": bins, "selective": chosen},
        "entailed": {"place": {"n": 4, "agree": 0.5, "agree_ci95": [0.2, 0.8], "correct": 0.25}},
        "ceiling": {**ceiling, "families": {"ego": ceiling}},
    }


def add(folder, more: dict) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    write_json(folder / "metrics.json", {k: v for k, v in metrics.items() if k not in TITLES} | more)


def test_a_run_that_was_analysed_says_where_and_why(run_dir):  # noqa: F811
    add(run_dir, parts())
    for name in FIGURES:
        plots.save(plots.message(name), run_dir / "figures" / f"{name}.png")
    page = read_page(run_dir)
    for words in (
        *TITLES.values(),
        "3 of 12 answers are wrong",
        "identity one kart is taken for another 3 100.0% 25.0%",
        "all errors 3 100.0% 25.0%",
        "A base that has learnt the names longer",
        "the expected calibration error is 10.0%",
        "it answers 50.0% of the scored questions, and 8.0% of these wrong",
        "left/right and front/back agree with where 4 50.0%",
        "20.0% of the questions hang on one pixel",
        "would score 91.0%",
        "too close to level 2",
    ):
        assert words in page.said, words
    assert sum("identity 3, all errors 3" in picture["alt"] for picture in page.pictures) == 1
    assert "Not all of this run" not in page.said
    text = (run_dir / "report.md").read_text()
    assert "## Why answers are wrong" in text and "## What can be reached" in text
    assert "## Where answers are wrong" not in text, "its tables are behind a click"


def test_each_part_is_shown_without_the_others_and_without_its_figure(run_dir):  # noqa: F811
    for key, title in TITLES.items():
        add(run_dir, {key: parts()[key]})
        said = read_page(run_dir).said
        assert title in said and not any(other in said for other in TITLES.values() if other != title)
    add(run_dir, {})
    assert not any(title in read_page(run_dir).said for title in TITLES.values())


def test_without_a_threshold_the_report_says_why(run_dir):  # noqa: F811
    calibration = parts()["calibration"]
    chosen = calibration.pop("selective")
    add(run_dir, {"calibration": calibration})
    assert "no valid races beside those scored" in read_page(run_dir).said
    chosen["threshold"] = None
    add(run_dir, {"calibration": calibration | {"selective": chosen}})
    assert "No confidence keeps the errors on valid races at 5.0%" in read_page(run_dir).said


def test_broken_parts_are_left_out(run_dir):  # noqa: F811
    add(run_dir, dict.fromkeys(TITLES, "x"))
    said = read_page(run_dir).said
    assert "Known limits" in said and "Why answers are wrong" not in said
