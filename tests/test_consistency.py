"""Contrast pairs scored: both right against what independent errors would give, by kind and family."""

import pytest
from hand_made import scored_run

from stkvlm_lib.analysis.consistency import Consistency, score_pairs
from stkvlm_lib.analysis.intervals import Bootstrap
from stkvlm_lib.evaluation.predictions import PairPrediction, further_file, write_answers
from stkvlm_lib.qa.contrast import KINDS


def pair(first, second, race="a", family="left_right", differ=True, kind="mirror"):
    answers = ("left", "right") if differ else ("left", "left")
    said = tuple(answer if right else "neither" for answer, right in zip(answers, (first, second), strict=True))
    return PairPrediction(
        f"{kind}:x", kind, family, "?", "1.jpg", "2.jpg", answers, said, (first, second), differ, race, "abyss"
    )


ROWS = [pair(True, True), pair(True, False), pair(True, True, "b"), pair(False, True, "b")]
ROWS += [pair(True, True, differ=False), pair(False, False, "b", "nearer")]


def test_both_right_is_counted_against_independent_errors():
    figures = score_pairs(ROWS, Bootstrap(ROWS, 200, 0))
    assert figures.n == 5 and figures.both == 0.4
    assert (figures.first, figures.second) == (0.6, 0.6)
    # left_right: 3/4 and 3/4 right, so 9/16 of its four pairs; nearer: none
    assert figures.independent == pytest.approx(4 * 9 / 16 / 5)
    assert figures.families["left_right"].independent == 0.5625
    assert figures.families["left_right"].both == 0.5 and figures.families["nearer"].both == 0
    assert figures.same.n == 1 and figures.same.both == 1
    assert figures.both_ci95 == (0.333333, 0.5)  # race a 1 of 2, race b 1 of 3


def test_a_family_that_only_has_controls_has_no_figures():
    rows = [pair(True, True), pair(False, False, "b", "nearer", differ=False)]
    figures = score_pairs(rows, Bootstrap(rows, 100, 0))
    assert list(figures.families) == ["left_right"] and figures.same.both == 0
    assert score_pairs(rows[:1], Bootstrap(rows[:1], 100, 0)).same is None


def test_kinds_are_scored_by_themselves_and_those_without_pairs_left_out(tmp_path):
    first, second = KINDS
    rows = [pair(True, True, kind=second), pair(True, False, "b", kind=second)]
    controls = [pair(True, True, differ=False, kind=first)]
    write_answers([*controls, *rows], further_file(tmp_path, "consistency"))
    figures = Consistency.measure(scored_run([], folder=tmp_path))
    assert list(figures.kinds) == [second], "controls alone say nothing"
    assert (figures.kinds[second].n, figures.kinds[second].both) == (2, 0.5)
    written = figures.into_metrics()
    assert written["consistency"][second]["families"]["left_right"]["n"] == 2
    assert Consistency.read(written) == figures
    assert Consistency.measure(scored_run([], folder=tmp_path / "none")) is None


def test_the_table_has_each_kind_then_its_controls():
    figures = Consistency({"mirror": score_pairs(ROWS, Bootstrap(ROWS, 100, 0))})
    section = figures.section(scored_run([]))
    assert [line["pairs"] for line in section.table.rows] == ["mirror", "mirror, same answer"]
    assert (section.table.rows[0]["both right"], section.table.rows[1]["n"]) == ("40.0%", "1")
    (families,) = section.details
    assert families.title == "By family: mirror"
    assert [line["family"] for line in families.rows] == ["left_right", "nearer"]
