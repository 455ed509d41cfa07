"""The explorer's state, and its widget driven without a browser."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from stkvlm_lib.config import ROOT
from stkvlm_lib.drawing import enlarged
from stkvlm_lib.explorer import NOTHING_LEFT, ExplorerState, explore, picture_png, static_picture, table_html
from stkvlm_lib.frame_sets import read_frames
from stkvlm_lib.qa_sets import make_records
from stkvlm_lib.scoring import Prediction


@pytest.fixture(scope="module")
def bundled():
    return read_frames(ROOT / "frames")


@pytest.fixture(scope="module")
def records(bundled):
    names = {view.image_file for split in ("valid", "test") for view in bundled.views(split)[:20]}
    return [r for split in ("valid", "test") for r in make_records(bundled, split) if r.image_file in names]


@pytest.fixture(scope="module")
def predictions(records):
    """Of the test split: every third answer wrong."""
    test = [r for r in records if r.split == "test"]
    return [predict(r, r.answer if i % 3 else "nonsense") for i, r in enumerate(test)]


def predict(record, given):
    right = given == record.answer
    rest = {"base_prediction": "", "base_correct": False, "blind_prediction": "", "blind_correct": False}
    where = {"race": record.race, "track": record.track}
    return Prediction(
        record.image_file, record.question, record.answer, given, record.family, right, right, 0.5, **where, **rest
    )


@pytest.fixture
def state(bundled, records, predictions):
    return ExplorerState(bundled, records, predictions)


def test_all_views_without_filters(state, records):
    assert len(state) == 40
    assert state.n_questions == len(records)
    assert state.position().startswith(f"view 1 of 40 ({len(records):,} matching questions), race ")
    assert state.view.frame.track in state.position()


def test_filters_leave_what_matches(state, predictions):
    wrong = {p.image_file for p in predictions if not p.correct and p.family == "where"}
    state.set_filters(family="where", outcome="wrong")
    seen = set()
    for _ in range(len(state)):
        seen.add(state.view.image_file)
        assert any(row.matches for row in state.rows())
        assert all(row.family == "where" and row.correct is False for row in state.rows() if row.matches)
        state.next()
    assert seen == wrong and len(state) == len(wrong)


def test_split_and_track_filters(state):
    state.set_filters(split="valid")
    assert len(state) == 20 and state.view.frame.split == "valid"
    track = state.options("track")[-1]
    state.set_filters(split="", track=track)
    assert len(state) and state.view.frame.track == track


def test_stepping_goes_round_and_jumping_stays_inside(state):
    first = state.view
    state.previous()
    assert state.index == len(state) - 1
    state.next()
    assert state.view is first
    state.jump(41)
    assert state.index == 1


def test_random_is_seeded_and_leaves_the_view(bundled, records):
    def walk(seed):
        state, seen = ExplorerState(bundled, records, seed=seed), [0]
        for _ in range(8):
            state.random()
            seen.append(state.index)
        return seen

    assert walk(1) == walk(1) != walk(2)
    assert all(a != b for a, b in zip(walk(1), walk(1)[1:], strict=False))


def test_view_stays_on_show_when_it_still_matches(state):
    state.jump(25)
    name = state.view.image_file
    state.set_filters(split="test")
    assert state.view.image_file == name
    state.set_filters(split="valid")
    assert state.index == 0


def test_filters_that_leave_nothing_say_so_and_go_on(state):
    state.set_filters(split="valid", outcome="wrong")
    assert len(state) == 0 and state.view is None and state.rows() == [] and state.n_questions == 0
    assert state.position() == NOTHING_LEFT and NOTHING_LEFT in table_html(state)
    assert picture_png(state) == b"" and NOTHING_LEFT in [t.get_text() for t in static_picture(state).texts]
    for step in (state.next, state.previous, state.random):
        step()
    state.set_filters(split="test")
    assert state.view.frame.split == "test"


def test_unknown_filters_and_values_are_refused(state, bundled, records):
    with pytest.raises(ValueError, match="no filter 'kart'"):
        state.set_filters(kart="tux")
    with pytest.raises(ValueError, match="no split 'train'; there are test, valid"):
        state.set_filters(split="train")
    with pytest.raises(ValueError, match="no outcome 'wrong'; there are none"):
        ExplorerState(bundled, records).set_filters(outcome="wrong")
    with pytest.raises(ValueError, match="not among the 40 views"):
        state.show("nowhere.jpg")
    with pytest.raises(ValueError, match="none of the records' pictures"):
        ExplorerState(bundled, [replace(records[0], image_file="nowhere.jpg")])


def test_rows_join_truth_and_prediction(state, predictions):
    state.show(predictions[0].image_file)
    by_question = {row.question: row for row in state.rows()}
    row = by_question[predictions[0].question]
    assert (row.prediction, row.correct, row.confidence, row.matches) == ("nonsense", False, 0.5, True)
    state.set_filters(split="valid")
    assert all(row.prediction is None and row.correct is None for row in state.rows())


def test_description_tells_the_scene(state):
    ego = next(row.truth for row in state.rows() if row.family == "ego")
    assert f"ego kart {ego}" in state.description() and state.view.frame.track in state.description()


def test_table_escapes_and_marks(bundled, records):
    first = replace(records[0], question="Is <b>tux</b> & co. there?")
    shown = table_html(ExplorerState(bundled, [first], [predict(first, "<i>")]))
    assert "Is &lt;b&gt;tux&lt;/b&gt; &amp; co. there?" in shown and "&lt;i&gt;" in shown and "✗ wrong" in shown
    assert "result" not in table_html(ExplorerState(bundled, [first]))


def test_picture_is_the_enlarged_view_with_or_without_marks(state):
    with Image.open(io.BytesIO(picture_png(state, overlay=False))) as plain:
        assert np.array_equal(np.asarray(plain), np.asarray(enlarged(state.view, 640)))
    assert picture_png(state) != picture_png(state, overlay=False)


def test_static_picture_shows_all_questions(state):
    said = [text.get_text() for text in static_picture(state).texts]
    assert state.position() in said
    assert all(row.question in said for row in state.rows())


def test_widget_starts_at_the_predictions_and_follows_its_buttons(bundled, records, predictions):
    widget = explore(bundled, records, predictions)
    assert widget.filters["split"].value == "test" and len(widget.state) == 20
    before = widget.picture.value
    widget.buttons["next"].click()
    assert widget.number.value == 2 and "view 2 of 20" in widget.position.value and widget.picture.value != before
    widget.buttons["previous"].click()
    assert widget.picture.value == before
    widget.buttons["random"].click()
    assert widget.state.index != 0 and widget.number.value == widget.state.index + 1
    widget.number.value = 5
    assert widget.state.index == 4 and "view 5 of 20" in widget.position.value
    assert all(row.question in widget.table.value for row in widget.state.rows())
    assert widget.state.view.frame.track in widget.description.value


def test_widget_filters_overlay_and_empty_selection(bundled, records, predictions):
    widget = explore(bundled, records, predictions)
    marked = widget.picture.value
    widget.overlay.value = False
    assert widget.picture.value != marked
    widget.filters["outcome"].value = "wrong"
    assert widget.number.max == len(widget.state) > 0
    widget.filters["split"].value = "valid"
    assert NOTHING_LEFT in widget.table.value and widget.picture.layout.visibility == "hidden"
    assert all(button.disabled for button in widget.buttons.values())
    widget.filters["outcome"].value = ""
    assert "view 1 of 20" in widget.position.value and widget.picture.layout.visibility == "visible"
    assert not widget.buttons["next"].disabled


def test_widget_without_predictions_has_no_outcome_filter(bundled, records):
    widget = explore(bundled, records)
    assert set(widget.filters) == {"split", "family", "track"}
    assert "truth" in widget.table.value and "result" not in widget.table.value
