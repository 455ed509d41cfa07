"""What is taken for what: the most frequent confusions, in a matrix, in words and on pictures."""

from dataclasses import replace

import pytest
from figure_texts import texts
from hand_made import TUX, answered, draw_picture, frame_set, make_view, scored_run
from tiny import prediction

from stkvlm_lib.analysis.confusion import (
    Confusion,
    Confusions,
    alike_gallery,
    confusion_matrix,
    in_words,
    most_confused,
)


def row(family="ego", truth="tux", given="tux"):
    return prediction(family=family, answer=truth, prediction=given)


@pytest.fixture
def views(tmp_path):
    first = draw_picture(make_view({"tux": TUX, "gnu": (20, 10, 40, 25)}, folder=tmp_path))
    return first, draw_picture(make_view({"gnu": TUX}, race="r2", folder=tmp_path))


def test_confusion_counts_and_orders_answers_outside_the_set_last():
    rows = [row("count", "2", given) for given in ("2", "2", "10", "many")]
    figure = confusion_matrix("count", rows)
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["2", "10", "many"]
    assert "2  (n = 4)" in texts(figure) and figure.axes[0].get_title(loc="left") == "count: 50.0% right"
    assert figure.axes[0].images[0].get_array().tolist() == [[0.5, 0.25, 0.25]]


TOLD = [("mines", "mines"), ("mines", "abyss"), ("xr591", "mines"), ("zengarden", ""), ("lighthouse", "lighthouse")]


def test_a_matrix_of_names_leaves_out_what_is_never_confused():
    rows = [row("track", *pair) for pair in TOLD]
    said = texts(confusion_matrix("track", rows))
    assert "mines  (n = 2)" in said and "lighthouse" not in said and "track: 40.0% right\n" in said
    (matrix,) = Confusions().section(scored_run(rows)).figures
    assert matrix.caption.endswith(" Truths that were never taken for another are left out.")


def test_few_confusions_are_told_in_words_and_have_no_figure():
    rows = [row("track", *pair) for pair in (TOLD[0], *TOLD[2:])]
    said = in_words("track", rows, most_confused(rows))
    assert said == (
        "Track: 2 of 4 answers are right; xr591 was taken for mines 1 of 1 times, "
        "zengarden was taken for (nothing) 1 of 1 times."
    )
    section = Confusions().section(scored_run(rows))
    assert section.text == said and section.figures == []
    right = Confusions().section(scored_run(rows[:1]))
    assert right.text == "Track: all 1 answers are right." and Confusions().section(scored_run([])) is None


def test_most_confused_ranks_wrong_pairs():
    rows = [row(given=given) for given in ("gnu", "kiki", "gnu", "tux")]
    assert most_confused(rows) == [Confusion("tux", "gnu", 2, 4), Confusion("tux", "kiki", 1, 4)]
    assert most_confused([row()]) == []


def test_the_most_frequent_mistakes_describe_a_matrix():
    rows = [row("count", truth, given) for truth, given in (("1", "2"), ("1", "2"), ("2", ""), ("3", "4"))]
    (matrix,) = Confusions().section(scored_run(rows)).figures
    assert matrix.alt.endswith("most frequent mistakes: 1 taken for 2 2, 2 taken for (nothing) 1, 3 taken for 4 1.")


def test_a_confusion_stands_beside_what_it_was_taken_for(views):
    rows = [p for p in answered(views[0], {"ego": "gnu"}) + answered(views[1]) if p.family == "ego"]
    said = texts(alike_gallery(rows, most_confused(rows), frame_set(*views)))
    assert "is tux,\nanswered gnu\n(1 of 1 times)" in said and f"is gnu\n\n{views[1].image_file}" in said
    rows = [p for p in answered(views[0], {"ego": "kiki"}) if p.family == "ego"]
    said = texts(alike_gallery(rows, most_confused(rows), frame_set(*views)))
    assert "no other picture of kiki\namong those scored" in said


def test_a_gallery_shows_no_picture_twice(views):
    """Both confusions have gnu for their answer, of which there is one picture."""
    ego = [p for p in answered(views[0], {"ego": "gnu"}) + answered(views[1]) if p.family == "ego"]
    rows = [*ego, replace(ego[0], answer="kiki", image_file=views[0].image_file)]
    said = texts(alike_gallery(rows, most_confused(rows), frame_set(*views)))
    assert said.count(f"is gnu\n\n{views[1].image_file}") == 1 and "no other picture of gnu" in said


def test_only_families_that_were_asked_have_figures_and_pictures_only_where_they_are(views, tmp_path):
    rows = [p for p in answered(views[0], {"ego": "gnu"}) if p.family in ("ego", "track")]
    run = scored_run(rows, tmp_path / "run", frames=frame_set(*views))
    section = Confusions.measure(run).section(run)
    assert [shown.name for shown in section.figures] == ["score_confused_ego"]
    assert section.text.startswith("Ego: 0 of 1 answers are right; tux was taken for gnu")
    assert section.text.endswith("Track: all 1 answers are right.")
    assert Confusions().section(scored_run(rows, tmp_path / "run")).figures == []
    assert Confusions.read({"confusions": 1}) is None and Confusions().into_metrics() == {}
