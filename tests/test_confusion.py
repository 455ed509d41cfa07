"""What is taken for what: the most frequent confusions, in a matrix, in words and on pictures."""

import pytest
from figure_texts import texts
from hand_made import TUX, answered, draw_picture, frame_set, make_view, scored_run
from tiny import prediction

from stkvlm_lib.analysis.confusion import (
    Confusion,
    Confusions,
    alike_gallery,
    confusion_alt,
    confusion_chart,
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
    figure = confusion_chart(rows, "count")
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["2", "10", "many"]
    assert "2  (n = 4)" in texts(figure) and "50.0% right, n = 4" in texts(figure)
    assert figure.axes[0].images[0].get_array().tolist() == [[0.5, 0.25, 0.25]]
    assert "No predictions of family ego" in texts(confusion_chart(rows, "ego"))


def test_confusion_can_leave_out_what_is_never_confused():
    told = [("mines", "mines"), ("mines", "abyss"), ("xr591", "mines"), ("zengarden", ""), ("lighthouse", "lighthouse")]
    rows = [row("track", truth, given) for truth, given in told]
    said = texts(confusion_chart(rows, "track", only_confused=True))
    assert "mines  (n = 2)" in said and "lighthouse" not in said
    assert "track: 40.0% right, n = 5, without truths never confused" in said
    few = texts(confusion_chart([rows[0], *rows[2:]], "track", only_confused=True))
    assert "track: 2 of 4 answers are right\nxr591 taken for mines: 1\nzengarden taken for nothing: 1" in few
    assert "all 1 answers are right" in texts(confusion_chart(rows[4:], "track", only_confused=True))


def test_most_confused_ranks_wrong_pairs():
    rows = [row(given=given) for given in ("gnu", "gnu", "kiki", "tux")]
    assert most_confused(rows, "ego", 1) == [Confusion("tux", "gnu", 2, 0.5)]
    assert most_confused(rows, "track", 1) == []


def test_the_most_frequent_mistakes_are_told_in_words():
    rows = [row(given=given) for given in ("gnu", "gnu", "", "tux")]
    assert confusion_alt(rows, "ego") == (
        "Table of counts for the family ego. Most frequent mistakes: tux taken for gnu 2, tux taken for (nothing) 1."
    )
    assert confusion_alt(rows[3:], "ego") == "All answers of the family ego are right."


def test_a_confusion_stands_beside_what_it_was_taken_for(views):
    rows = answered(views[0], {"ego": "gnu"}) + answered(views[1])
    said = texts(alike_gallery(rows, frame_set(*views), "ego"))
    assert "is tux,\nanswered gnu\n(1 of 1 times)" in said and f"is gnu\n\n{views[1].image_file}" in said
    rows = answered(views[0], {"ego": "kiki"})
    assert "no picture of kiki\namong those scored" in texts(alike_gallery(rows, frame_set(*views), "ego"))
    assert "No wrong answer of family track" in texts(alike_gallery(rows, frame_set(*views), "track"))


def test_only_families_that_were_asked_have_figures_and_pictures_only_where_they_are(views, tmp_path):
    rows = [p for p in answered(views[0], {"ego": "gnu"}) if p.family in ("ego", "track")]
    run = scored_run(rows, tmp_path / "run", frames=frame_set(*views))
    section = Confusions.measure(run).section(run)
    names = ["score_confusion_ego", "score_confused_ego", "score_confusion_track", "score_confused_track"]
    assert [shown.name for shown in section.figures] == names
    assert section.figures[0].caption.startswith("Ego: ") and "tux taken for gnu 1" in section.figures[0].alt
    bare = scored_run(rows, tmp_path / "run")
    assert [shown.name for shown in Confusions().section(bare).figures] == names[::2]
    assert Confusions.read({"confusions": 1}) is None and Confusions().into_metrics() == {}
