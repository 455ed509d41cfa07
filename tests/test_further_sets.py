"""Families beside the ten forms, and line-ups never seen: scored by themselves from their files of answers."""

import pytest
from hand_made import scored_run
from tiny import prediction as row

from stkvlm_lib.analysis.further_sets import Extended, UnseenLineUps
from stkvlm_lib.analysis.run_words import headline
from stkvlm_lib.evaluation.predictions import further_file, write_answers

NEARER = {"family": "nearer", "answer": "tux", "blind_correct": False}
ASKED = [row("a", prediction="tux", **NEARER), row("b", prediction="gnu", **NEARER), row("a"), row("b", "1", "2")]
"""Two of an extended family, and two of the ten forms in other wordings."""


@pytest.fixture
def run(tmp_path):
    return scored_run([row("a"), row("b", "1", "2")], folder=tmp_path, metrics={"split": "test"})


def test_only_the_families_beside_the_ten_are_scored(run):
    write_answers(ASKED, further_file(run.folder, "extended"))
    figures = Extended.measure(run)
    assert (figures.n, figures.exact, figures.blind, set(figures.families)) == (2, 0.5, 0, {"nearer"})
    written = figures.into_metrics()
    assert set(written) == {"extended"} and Extended.read(written) == figures
    assert {"exact_ci95", "majority", "macro_exact", "n_clusters"} <= set(written["extended"])
    assert "base_exact" not in written["extended"]
    section = figures.section(run)
    assert "50.0% of 2 are answered exactly right" in section.text
    assert [line["family"] for line in section.table.rows] == ["all", "nearer"]
    assert section.figures[0].name == "score_extended"


def test_what_the_base_has_never_met_is_told_in_the_headline_of_a_run_on_it(run):
    asked = {"family": "clock", "answer": "3", "base_prediction": "unknown", "base_correct": False}
    write_answers(
        [*ASKED[:2], row("a", prediction="3", **asked), row("b", prediction="4", **asked)],
        further_file(run.folder, "extended"),
    )
    run.metrics |= {"base_model": "embedded"}
    told = "At which o'clock is {kart}, seen from the ego car?\u201d, rises from 0.0% to 50.0% (2 questions"
    assert told in headline(run)
    run.metrics |= {"base_model": "owner/name"}
    assert "never met" not in headline(run)


def test_without_any_of_them_there_is_nothing_to_score(run):
    assert Extended.measure(run) is None and UnseenLineUps.measure(run) is None
    write_answers(ASKED[2:], further_file(run.folder, "extended"))
    assert Extended.measure(run) is None and run.problems == []


def test_unseen_line_ups_stand_beside_the_headline_of_the_same_families(run):
    write_answers([row("x"), row("y", family="ego", answer="tux", prediction="tux")],
                  further_file(run.folder, "test_unseen"))  # fmt: skip
    figures = UnseenLineUps.measure(run)
    assert figures.splits["test_unseen"].n == 2 and figures.splits["test_unseen"].exact == 1
    written = figures.into_metrics()
    assert {"exact_ci95", "families", "blind"} <= set(written["other_splits"]["test_unseen"])
    assert UnseenLineUps.read(written) == figures
    section = figures.section(run)
    assert "Pictures of 2 races" in section.text and "100.0% of 2 questions" in section.text
    shown = {line["family"]: (line["exact"], line["test"]) for line in section.table.rows}
    assert shown == {"all": ("100.0%", "50.0%"), "ego": ("100.0%", "–"), "count": ("100.0%", "50.0%")}
