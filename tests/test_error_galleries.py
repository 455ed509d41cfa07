import pytest
from hand_made import TUX, answered, draw_picture, frame_set, make_view
from test_plots import texts
from tiny import prediction as row

from stkvlm_lib.figures.error_galleries import cause_gallery, confused_gallery, near_gallery, near_misses


def wrong(picture, family="count", confidence=0.5, second=None, margin=None, best="2", **changes):
    closed = {
        "closed_prediction": best,
        "closed_second": second,
        "closed_margin": margin,
        "closed_correct": best == "1",
    }
    return row(prediction="2", picture=picture, family=family, confidence=confidence, **closed, **changes)


def test_near_misses_are_those_whose_truth_was_close_behind():
    rows = [
        wrong(0, second="1", margin=0.3),
        wrong(1, second="1", margin=0.1, family="ego"),
        wrong(2, second="3", margin=0.01, family="track"),
        wrong(3, best="1", second="2", margin=0.4, family="where"),
        row(picture=4),
    ]
    assert [note for _, note in near_misses(rows, 9)] == [
        "truth likelier, but not written",
        "truth second, 10.0% behind",
        "truth second, 30.0% behind",
    ]


def test_older_answers_are_near_misses_by_the_threshold():
    rows = [wrong(0, confidence=0.2), wrong(1, confidence=0.78), wrong(2, confidence=0.9)]
    assert near_misses(rows, 2) == []
    found = near_misses(rows, 2, threshold=0.8)
    assert [p.confidence for p, _ in found] == [0.78, 0.9]
    assert found[0][1] == "confidence 78%, threshold 80%"


def test_one_family_does_not_fill_the_gallery():
    rows = [wrong(i, second="1", margin=i / 100) for i in range(5)]
    rows += [wrong(5 + i, family="ego", second="1", margin=0.5) for i in range(2)]
    assert [p.family for p, _ in near_misses(rows, 3)] == ["count", "ego", "count"]
    assert len(near_misses(rows[:5], 3)) == 3


@pytest.fixture
def views(tmp_path):
    boxes = {"tux": TUX, "gnu": (20, 10, 40, 25)}
    first = draw_picture(make_view(boxes, folder=tmp_path))
    return first, draw_picture(make_view({"gnu": TUX}, race="r2", folder=tmp_path))


def test_each_cause_has_its_row(views):
    rows = answered(views[0], {"ego": "gnu", ("left_right", "gnu"): "right"})
    causes = [None if p.correct else "identity" if p.family == "ego" else "relation" for p in rows]
    said = texts(cause_gallery(rows, causes, frame_set(*views)))
    assert "identity: most confident, 90%" in said and "relation: most confident, 90%" in said
    assert "truth: tux" in said and "answered: gnu" in said and views[0].image_file in said
    assert "relation:" not in texts(cause_gallery(rows, causes, frame_set(*views), most=1))
    assert "No wrong answer" in texts(cause_gallery(rows[:1], [None], frame_set(*views)))


def test_a_confusion_stands_beside_what_it_was_taken_for(views):
    rows = answered(views[0], {"ego": "gnu"}) + answered(views[1])
    said = texts(confused_gallery(rows, frame_set(*views), "ego"))
    assert "is tux,\nanswered gnu\n(1 of 1 times)" in said and f"is gnu\n\n{views[1].image_file}" in said
    rows = answered(views[0], {"ego": "kiki"})
    assert "no picture of kiki\namong those scored" in texts(confused_gallery(rows, frame_set(*views), "ego"))
    assert "No wrong answer of family track" in texts(confused_gallery(rows, frame_set(*views), "track"))


def test_an_empty_gallery_says_so(views):
    assert "No near misses" in texts(near_gallery([row()], frame_set(*views), 3))
