"""What the explorer shows, without a widget: filters with their counts, stepping, rows, detections, words."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from explored import some_answers, some_records

from stkvlm_lib.data.frames import Detection, Frame, View
from stkvlm_lib.explore.filters import (
    CONFIDENCES,
    FILTERS,
    LEAST_SURE,
    SIZES,
    SUREST_MISTAKES,
    subject,
)
from stkvlm_lib.explore.links import Place
from stkvlm_lib.explore.state import NOTHING_LEFT, ExplorerState
from stkvlm_lib.grammar.scene import box_size, read_scene
from stkvlm_lib.qa.qa_sets import Record

PLACE = ("all", "r", "00000", 0, "abyss")
"""Split, race, frame, view and track of a record."""


@pytest.fixture(scope="module")
def records(bundled):
    return some_records(bundled)


@pytest.fixture(scope="module")
def predictions(records):
    return some_answers(records)


@pytest.fixture
def state(bundled, records, predictions):
    return ExplorerState(bundled, records, predictions)


@pytest.fixture
def scene_view(tmp_path):
    """tux is the ego kart, gnu in front and left of it, kiki too small, and a bomb lies about."""
    frame = Frame(tmp_path, "all", "00000", "abyss", ("tux", "gnu", "kiki"), "r")
    detections = (
        Detection(1, 1, (100, 100, 140, 140), 0.5, 900, 12.25),
        Detection(1, 2, (300, 0, 312, 12), 1.0, 40, 60.0),
        Detection(1, 0, (280, 180, 360, 260), 1.0, 5000, 4.0),
        Detection(6, 3, (0, 0, 50, 50)),
    )
    return View(frame, 0, detections)


def state_of(view):
    """A state with one question about one view."""
    frames = SimpleNamespace(by_image_file={view.image_file: view})
    return ExplorerState(frames, [Record(view.image_file, "What track is this?", "abyss", "track", *PLACE)])


def test_all_views_without_filters(state, records):
    assert len(state) == 40
    assert state.n_questions == len(records)
    assert state.position() == f"View 1 of 40 · {len(records):,} matching questions"
    seed = state.view.frame.race.removeprefix("race-")
    assert state.place() == f"{state.view.image_file} · track {state.view.frame.track} · race seed {seed}"


def test_filters_leave_what_matches(state, predictions):
    wrong = {p.image_file for p in predictions if not p.correct and p.question.startswith("Where is")}
    state.set_filters(family="where", outcome="wrong")
    seen = set()
    for _ in range(len(state)):
        seen.add(state.view.image_file)
        assert any(row.matches for row in state.rows())
        for row in state.rows():
            assert row.matches == (row.record.family == "where" and row.correct is False)
        assert [row.matches for row in state.rows()] == sorted((row.matches for row in state.rows()), reverse=True)
        state.next()
    assert seen == wrong and len(state) == len(wrong)


@pytest.mark.parametrize("name", FILTERS)
def test_the_count_beside_an_option_is_what_choosing_it_leaves(state, name):
    state.set_filters(split="test", **({"outcome": "right"} if name != "outcome" else {}))
    for option, count in state.counts(name).items():
        before = state.filters.get(name, "")
        state.set_filters(**{name: option})
        assert state.n_questions == count, option
        state.set_filters(**{name: before})


def test_counts_follow_the_other_filters(state, predictions):
    wrong = sum(not p.correct for p in predictions)
    assert state.counts("outcome") == {"right": len(predictions) - wrong, "wrong": wrong}
    assert state.counts("confidence")["under 50 %"] == wrong
    state.set_filters(outcome="wrong")
    assert sum(state.counts("track").values()) == wrong
    assert state.counts("split") == {"test": wrong, "valid": 0}
    assert state.counts("outcome")["right"] == len(predictions) - wrong, "what else could be chosen here"


def test_karts_are_those_that_count_in_the_picture(state):
    kart = state.options("kart")[0]
    state.set_filters(kart=kart)
    shown = 0
    for _ in range(len(state)):
        shown += kart in [found.name for found in read_scene(state.view).karts]
        state.next()
    assert shown == len(state) > 0


def test_confidence_and_box_size_come_in_ranges(state):
    assert state.options("confidence") == list(CONFIDENCES) and state.options("size") == list(SIZES)
    state.set_filters(confidence="95 % and more")
    assert all(row.correct for row in state.rows() if row.matches)
    state.set_filters(confidence="", size="10 to 19 px")
    scene = read_scene(state.view)
    sizes = [min(box_size(subject(row.record.question, scene).box)) for row in state.rows() if row.matches]
    assert sizes and all(10 <= size < 20 for size in sizes)


def test_a_question_hangs_on_the_smallest_kart_it_names_else_on_the_ego_kart(scene_view):
    scene = read_scene(scene_view)
    assert subject("Where is gnu relative to the ego car?", scene).name == "gnu"
    assert subject("Is tux nearer to the camera than gnu?", scene).name == "gnu"
    assert subject("What track is this?", scene).name == "tux"
    assert subject("Is kiki in view?", scene).name == "tux", "a kart that does not count has no size"
    assert subject("What track is this?", read_scene(View(scene_view.frame, 0, ()))) is None


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


def test_a_view_is_found_by_number_and_by_a_part_of_its_name(state):
    state.find(" 40 ")
    assert state.index == 39
    name = state.view.image_file
    state.jump(0)
    state.find(name.removesuffix("_im.jpg"))
    assert state.view.image_file == name
    for wanted in ("41", "0", "nowhere"):
        with pytest.raises(ValueError, match=f"“{wanted}”: no such number or picture among the 40 views"):
            state.find(wanted)
    assert state.view.image_file == name


def test_view_stays_on_show_when_it_still_matches(state):
    state.jump(25)
    name = state.view.image_file
    state.set_filters(split="test")
    assert state.view.image_file == name
    state.set_filters(split="valid")
    assert state.index == 0


def test_filters_that_leave_nothing_say_so_and_go_on(state):
    state.set_filters(split="valid", outcome="wrong")
    assert len(state) == 0 and state.view is None and state.n_questions == 0
    assert state.rows() == [] and state.description() == state.place() == ""
    assert state.position() == NOTHING_LEFT
    for step in (state.next, state.previous, state.random):
        step()
    state.set_filters(split="", outcome="")
    assert len(state) == 40


def test_the_surest_mistakes_come_first_where_that_is_asked_for(bundled, records, predictions):
    wrong = [p for p in predictions if not p.correct]
    sure = {p.image_file: 0.5 + number / 1000 for number, p in enumerate(wrong)}
    given = [p if p.correct else replace(p, confidence=sure[p.image_file]) for p in predictions]
    state = ExplorerState(bundled, records, given)
    state.jump(7)
    state.set_order(SUREST_MISTAKES)
    assert state.index == 0 and len(state) == 40
    seen = []
    for _ in range(len(sure)):
        seen.append(state.view.image_file)
        assert state.rows()[0].correct is False
        state.next()
    assert seen == sorted(sure, key=sure.get, reverse=True)
    assert all(row.correct is not False for row in state.rows()), "views without a mistake come last"
    state.set_order(LEAST_SURE)
    assert state.rows()[0].confidence == min(p.confidence for p in given)


def test_a_picture_is_opened_whatever_the_filters_and_a_question_is_chosen(state, records):
    first, last = records[0], records[-1]
    state.set_filters(split=first.split, track=first.track)
    state.open(last.image_file, last.question)
    assert state.view.image_file == last.image_file
    assert state.filters == {"split": last.split}
    assert [row.record.question for row in state.rows() if row.chosen] == [last.question]
    assert state.link() == Place(last.image_file, last.question)
    state.set_filters(family=last.family)
    state.open(last.image_file.removesuffix(".jpg"))
    assert state.filters["family"] == last.family, "filters that let it pass stay"
    with pytest.raises(ValueError, match="“nowhere”: no such picture among the 40"):
        state.open("nowhere")
    misspelt = last.image_file.replace("test/", "tset/")
    with pytest.raises(ValueError, match=f"did you mean .*{last.image_file}"):
        state.open(misspelt)
    assert state.view.image_file == last.image_file


def test_a_picture_that_the_filters_leave_out_is_said_to_be_there(state, records):
    state.set_filters(split="test")
    valid = next(record for record in records if record.split == "valid")
    with pytest.raises(ValueError, match="the filters leave that picture out, clear them"):
        state.find(valid.image_file)


def test_records_of_other_pictures_are_refused(bundled, records):
    with pytest.raises(ValueError, match="none of the records' pictures"):
        ExplorerState(bundled, [replace(records[0], image_file="nowhere.jpg")])


def test_rows_join_label_and_prediction(state, predictions):
    state.find(predictions[0].image_file)
    row = {row.record.question: row for row in state.rows()}[predictions[0].question]
    assert (row.prediction, row.correct, row.confidence, row.matches) == ("<i>", False, 0.4, True)
    state.set_filters(split="valid")
    assert all(row.prediction is None and row.correct is None for row in state.rows())


def test_a_race_without_a_seed_has_no_number(scene_view):
    assert state_of(scene_view).place() == f"{scene_view.image_file} · track abyss"


def test_the_description_tells_the_scene(scene_view):
    said = state_of(scene_view).description()
    assert said == ("Track abyss. The ego kart is tux. gnu is in front and to the left. Too small to count: kiki.")
    alone = state_of(View(scene_view.frame, 0, scene_view.detections[2:3])).description()
    assert alone == "Track abyss. The ego kart is tux. No other kart counts."
    assert "No kart is large enough" in state_of(View(scene_view.frame, 0, ())).description()
