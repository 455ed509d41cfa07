"""The prompts of pretraining: what they ask of hand-made scenes, the same for the same seed, and never too many."""

import pytest

from stkvlm_lib.config import ROOT
from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.grammar.questions import COURSE_FAMILIES, FAMILIES, PRETRAINED, ask_all
from stkvlm_lib.grammar.scene import STRICT_RULES, Kart, Scene, read_scene
from stkvlm_lib.pretraining.prompts import (
    PLACES,
    TASKS,
    Task,
    course_tasks,
    draw_tasks,
    draw_worded,
    further_tasks,
    place,
    vocabulary,
)

EGO, AHEAD = Kart(0, "tux", (65, 40, 85, 60)), Kart(1, "gnu", (5, 5, 25, 25))
SCENE = Scene("mines", (EGO, AHEAD), EGO)


def test_the_courses_tasks_of_a_hand_made_scene():
    assert [(task.prompt, task.answer) for task in course_tasks(SCENE)] == [
        ("ego", "tux"),
        ("count", "2"),
        ("track", "mines"),
        ("left_right gnu", "left"),
        ("front_back gnu", "front"),
        ("where gnu", "front and left"),
        ("count_left", "1"),
        ("count_front", "1"),
    ]
    assert [task.prompt for task in course_tasks(Scene("mines", (), None))] == ["track"]


def test_tasks_and_questions_of_a_view_have_the_same_answers():
    for view in read_frames(ROOT / "frames").views("train")[::100]:
        scene = read_scene(view)
        asked = [(family, answer) for family, _, answer in ask_all(scene)]
        assert [(task.name, task.answer) for task in course_tasks(scene)] == asked


def test_further_tasks_list_and_place_the_karts():
    tasks = list(further_tasks(SCENE, SCENE, 0))
    assert Task("karts", "karts", "gnu tux") in tasks
    assert Task("box", "box tux", "column 8 row 8 width 2 height 3") in tasks
    assert not {task.name for task in tasks} & set(COURSE_FAMILIES)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 5, 5), "column 0 row 0 width 1 height 1"),
        ((145, 95, 150, 100), "column 15 row 15 width 1 height 1"),
        ((145, 95, 155, 105), "column 15 row 15 width 1 height 2"),
        ((0, 0, 150, 100), "column 8 row 8 width 16 height 16"),
    ],
)
def test_a_place_is_told_in_sixteenths(box, expected):
    assert place(Kart(0, "tux", box)) == expected
    assert PLACES == 16


def test_drawn_tasks_follow_from_the_seed_and_are_at_most_so_many():
    view = max(read_frames(ROOT / "frames").views("train")[:200], key=lambda view: len(read_scene(view).karts))
    scene, strict = read_scene(view), read_scene(view, rules=STRICT_RULES)
    everything = draw_tasks(scene, strict, 999, 3)
    assert len(everything) > 20 and set(course_tasks(scene)) <= set(everything)
    few = draw_tasks(scene, strict, 8, 3)
    assert len(few) == 8 and few == draw_tasks(scene, strict, 8, 3) != draw_tasks(scene, strict, 8, 4)


def test_the_vocabulary_names_every_task():
    words = {word for text in vocabulary() for word in text.split()}
    assert {*FAMILIES, "karts", "box", "column", "width", str(PLACES)} <= words


def test_a_family_that_fine_tuning_shall_teach_is_none_of_the_bases_tasks(busy_scenes):
    new = FAMILIES.keys() - PRETRAINED.keys()
    assert "clock" in new and not new & set(TASKS)
    asked = {task.name for seed, scene in enumerate(busy_scenes) for task in draw_worded(scene, scene, seed)}
    assert {"where", "nearer"} <= asked and not new & asked
