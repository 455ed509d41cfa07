"""Which wrong answers are shown: the surest, the most frequent, near misses, and some of each cause."""

import pytest
from figure_texts import texts
from hand_made import TUX, answered, draw_picture, frame_set, make_view, scored_run
from tiny import prediction as row

from stkvlm_lib.analysis.errors import (
    Errors,
    by_cause,
    error_tables,
    frequent,
    gallery,
    near_misses,
    surest,
    varied,
    worst,
)


def wrong(picture, family="count", confidence=0.5, second=None, margin=None, best="2", **changes):
    closed = {
        "closed_prediction": best,
        "closed_second": second,
        "closed_margin": margin,
        "closed_correct": best == "1",
    }
    return row(prediction="2", picture=picture, family=family, confidence=confidence, **closed, **changes)


def taken(picture, given, family="ego", truth="tux", confidence=0.5):
    image = {"image_file": picture}
    return row(answer=truth, prediction=given, family=family, confidence=confidence, **image)


def test_worst_are_the_wrong_answers_of_highest_confidence():
    rows = [taken("a", "gnu", confidence=0.6), taken("c", "gnu", confidence=0.9), taken("d", "kiki", confidence=0.7)]
    assert [p.image_file for p in surest(rows)] == ["c", "d", "a"]
    assert [(p.image_file, note) for p, note in worst(rows, 2)] == [("c", "confidence 90%"), ("d", "confidence 70%")]


def test_typical_are_the_most_frequent_confusions_on_different_pictures():
    rows = [
        taken("a", "gnu", confidence=0.9),
        taken("b", "gnu"),
        taken("a", "2", "count", "1", confidence=0.9),
        taken("c", "2", "count", "1", confidence=0.8),
        taken("d", "kiki"),
    ]
    found = [(p.image_file, p.prediction, n) for p, n in frequent(rows, 3)]
    assert found == [("a", "2", 2), ("b", "gnu", 2), ("d", "kiki", 1)]


def test_near_misses_are_those_whose_truth_was_close_behind():
    rows = [
        wrong(0, second="1", margin=0.3),
        wrong(1, second="1", margin=0.1, family="ego"),
        wrong(2, second="3", margin=0.01, family="track"),
        wrong(3, best="1", second="2", margin=0.4, family="where"),
    ]
    assert [note for _, note in near_misses(rows, 9)] == [
        "truth likelier, but not written",
        "truth second, 10.0% behind",
        "truth second, 30.0% behind",
    ]


def test_a_gallery_shows_each_picture_once():
    rows = [(wrong(0), "first"), (wrong(0, family="ego"), "second"), (wrong(1), "third")]
    assert [note for _, note in varied(rows, 3)] == ["first", "third"]
    assert [p.image_file for p, _ in worst([p for p, _ in rows], 3)] == [rows[0][0].image_file, rows[2][0].image_file]


def test_one_family_does_not_fill_the_gallery():
    rows = [wrong(i, second="1", margin=i / 100) for i in range(5)]
    rows += [wrong(5 + i, family="ego", second="1", margin=0.5) for i in range(2)]
    assert [p.family for p, _ in near_misses(rows, 3)] == ["count", "ego", "count"]
    assert len(near_misses(rows[:5], 3)) == 3


@pytest.fixture
def views(tmp_path):
    first = draw_picture(make_view({"tux": TUX, "gnu": (20, 10, 40, 25)}, folder=tmp_path))
    others = [draw_picture(make_view({"gnu": TUX}, race=f"r{i}", folder=tmp_path)) for i in range(2, 8)]
    return first, *others


def test_each_of_the_main_causes_is_shown_on_pictures_of_its_own(views, tmp_path):
    run = scored(views, tmp_path, frames=frame_set(*views))
    noted = by_cause(run)
    assert len({p.image_file for p, _ in noted}) == len(noted) > 3
    notes = [note for _, note in noted]
    assert notes[0].startswith("track: most confident, 90%") and notes[1] == "track: typical, 7 times"
    assert notes[2:] == ["identity: most confident, 90%", "identity: typical, 6 times"], "the near miss is shown above"
    assert by_cause(scored(views, tmp_path)) == [], "without the pictures there is nothing to tell causes by"


def test_a_gallery_shows_question_truth_and_answer_and_says_when_it_is_empty(views):
    (silent,) = (p for p in answered(views[0], {"ego": ""}) if not p.correct)
    said = texts(gallery([(silent, "confidence 90%")], frame_set(*views)))
    assert "confidence 90%\nWhat kart is the ego car?\ntruth: tux\nanswered: (nothing)" in said
    assert "No such answer." in texts(gallery([], frame_set(*views)))


def scored(views, tmp_path, **known):
    rows = [
        p
        for view in views
        for p in answered(
            view,
            {"ego": "kiki", "track": "mines"},
            closed_prediction="kiki",
            closed_second="tux",
            closed_margin=0.2,
            closed_correct=False,
        )
    ]
    return scored_run(rows, tmp_path / "run", **known)  # fmt: skip


def test_the_section_shows_causes_galleries_and_tables(views, tmp_path):
    run = scored(views, tmp_path, frames=frame_set(*views))
    section = Errors.measure(run).section(run)
    assert [shown.name for shown in section.figures] == ["score_causes", "score_worst", "score_near"]
    sure, often = section.details
    assert len(sure.rows) == 12 and sure.columns == ["question", "truth", "answered", "confidence", "picture"]
    assert often.rows[0] == {"how often": "7 times", "family": "track", "truth": "abyss", "answered": "mines",
                             "example": views[0].image_file}  # fmt: skip


def test_galleries_repeat_no_picture_while_there_are_others(views, tmp_path):
    run = scored(views, tmp_path, frames=frame_set(*views))
    shown = {figure.name: texts(figure.figure) for figure in Errors().section(run).figures}
    causes = {view.image_file for view in views if view.image_file in shown["score_causes"]}
    worst_shown = {view.image_file for view in views if view.image_file in shown["score_worst"]}
    assert causes and worst_shown and not causes & worst_shown
    for said in shown.values():
        assert all(said.count(view.image_file) <= 1 for view in views)


def test_without_pictures_the_tables_stay_and_without_errors_nothing(views, tmp_path):
    section = Errors().section(scored(views, tmp_path))
    assert section.figures == [] and len(section.details) == 2
    assert Errors().section(scored_run(answered(views[0]), tmp_path / "run")) is None
    assert Errors.read({"errors": 1}) is None and Errors().into_metrics() == {}


def test_tables_name_what_happened_once_and_more_often():
    rows = [taken("a", "gnu"), taken("b", "gnu"), taken("c", "kiki")]
    _, often = error_tables(rows)
    assert [line["how often"] for line in often.rows] == ["2 times", "1 time"]
