"""The same questions in a wording that training draws from and in one that it never has (analysis.wordings)."""

import pytest
from hand_made import scored_run
from tiny import prediction as row

from stkvlm_lib.analysis.intervals import Bootstrap
from stkvlm_lib.analysis.wordings import HeldOutWordings, WordingPair, compare_wordings
from stkvlm_lib.evaluation.predictions import further_file, write_answers
from stkvlm_lib.grammar.questions import FAMILIES
from stkvlm_lib.qa.label_check import wilson

TRAINED = [row("a", "1", "1"), row("a", "1", "2"), row("b", "1", "1"), row("b", "tux", "gnu", family="ego")]
HELD_OUT = [row("a", "1", "1"), row("a", "1", "1"), row("b", "1", "3"), row("b", "tux", "Gnu ", family="ego")]


@pytest.fixture
def run(tmp_path):
    write_answers(TRAINED, further_file(tmp_path, "extended"))
    write_answers(HELD_OUT, further_file(tmp_path, "held_out_wordings"))
    return scored_run([], folder=tmp_path)


def test_wordings_are_compared_question_by_question():
    found = compare_wordings(TRAINED, HELD_OUT, Bootstrap(HELD_OUT, 200, 0))
    families, whole = found.pop("families"), WordingPair(**found)
    assert (whole.n, whole.exact, whole.trained_exact) == (4, 0.5, 0.5)
    assert whole.difference == 0 and whole.difference_ci95 == (-0.5, 0.5)  # race b lost one, race a won one
    assert whole.same_answer == 0.5
    assert list(families) == ["ego", "count"]
    assert families["ego"] == WordingPair(
        n=1,
        exact=0,
        exact_ci95=pytest.approx(wilson(0, 1), abs=1e-6),
        trained_exact=0,
        difference=0,
        difference_ci95=(0, 0),
        same_answer=1,
    )


def test_figures_are_those_of_both_files_of_a_run_and_read_back(run):
    figures = HeldOutWordings.measure(run)
    assert (figures.n, figures.exact, figures.difference) == (4, 0.5, 0)
    written = figures.into_metrics()
    assert written["held_out_wordings"]["families"]["ego"]["same_answer"] == 1
    assert HeldOutWordings.read(written) == figures
    assert [name for name, _ in figures.rows] == ["all", "ego", "count"]


def test_files_that_do_not_belong_together_are_not_compared(run):
    write_answers(HELD_OUT[:-1], further_file(run.folder, "held_out_wordings"))
    assert HeldOutWordings.measure(run) is None
    further_file(run.folder, "held_out_wordings").unlink()
    assert HeldOutWordings.measure(run) is None and run.problems == []


def test_the_section_names_the_wording_that_training_leaves_out(run):
    section = HeldOutWordings.measure(run).section(run)
    assert "Each of 4 questions was asked twice" in section.text and "50.0% get the same answer" in section.text
    said = {line["family"]: line["held-out wording"] for line in section.table.rows}
    assert said == {"all": "", "ego": FAMILIES["ego"].wordings[-1], "count": FAMILIES["count"].wordings[-1]}
    assert section.table.rows[0]["difference, points"] == "+0.0"
