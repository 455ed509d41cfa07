"""Every family of questions: its entry, its wordings, and that no scene makes it break its own promises."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import SETTINGS, views

from stkvlm_lib.data.frames import Detection, Frame, View
from stkvlm_lib.grammar.families import COURSE, Asked, Declined, pick
from stkvlm_lib.grammar.kart_colours import KART_COLOURS, UNCLEAR_KARTS
from stkvlm_lib.grammar.names import COURSE_ONLY_KARTS, KARTS, TRACKS
from stkvlm_lib.grammar.questions import (
    COURSE_FAMILIES,
    FAMILIES,
    answer,
    ask_all,
    ask_extended,
    family_of,
    read_question,
)
from stkvlm_lib.grammar.scene import COURSE_RULES, STRICT_RULES, Reason, Scene, mirror_box, read_scene
from stkvlm_lib.grammar.spelling import one_word, plain

LINE_UP = ("tux", "gnu", "xue", "puffy", "kiki")
EGO = (280, 180, 320, 220)
"""A box in the middle of the picture, 10x10 px at 150x100."""
every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
ANY_FAMILY = {Reason.UNCLEAR, Reason.SAME_NAME, Reason.UNKNOWN, Reason.ABSENT, Reason.ITSELF}
NO_EGO = {Reason.NO_KART, Reason.EGO_UNCLEAR, Reason.EGO_TIED, Reason.EGO_NOT_FOLLOWED}
DEPTH = {Reason.LEVEL, Reason.DEPTH_DOUBT}
REASONS = {
    "count": {Reason.NO_KART},
    "left_right": {Reason.LEVEL},
    "front_back": DEPTH,
    "where": DEPTH,
    "count_left": {Reason.LEVEL, Reason.NONE},
    "count_right": {Reason.LEVEL, Reason.NONE},
    "count_front": DEPTH | {Reason.NONE},
    "count_behind": DEPTH | {Reason.NONE},
    "ego_colour": {Reason.NO_COLOUR},
    "kart_colour": {Reason.NO_COLOUR},
    "nearest": {Reason.TOO_FEW, Reason.EQUALLY_FAR},
    "farthest": {Reason.TOO_FEW, Reason.EQUALLY_FAR},
    "leftmost": {Reason.TOO_FEW, Reason.LEVEL},
    "rightmost": {Reason.TOO_FEW, Reason.LEVEL},
    "directly_front": DEPTH | {Reason.NONE, Reason.EQUALLY_FAR, Reason.ASIDE},
    "more_side": {Reason.LEVEL, Reason.NONE},
    "left_of": {Reason.LEVEL},
    "nearer": {Reason.EQUALLY_FAR},
    "clock": {Reason.BETWEEN_HOURS},
}
"""Why a family declines, beside the reasons that any may have and those of scenes without an ego kart."""
both_rules = st.sampled_from((COURSE_RULES, STRICT_RULES))


def scene_of(*boxes, distances=None, followed=0, line_up=LINE_UP, track="abyss", rules=STRICT_RULES) -> Scene:
    """Kart i of the line-up in box i (600x400), the camera behind the first."""
    far = distances or [None] * len(boxes)
    rows = tuple(
        Detection(1, i, box, distance=metres) for i, (box, metres) in enumerate(zip(boxes, far, strict=True)) if box
    )
    frame = Frame(Path("data"), "train", "00000", track, line_up, "race")
    return read_scene(View(frame, followed, rows), rules=rules)


def box(cx: int, cy: int, width: int = 40, height: int = 40) -> tuple[int, int, int, int]:
    """A 600x400 box around a centre in the same frame."""
    return cx - width // 2, cy - height // 2, cx + width // 2, cy + height // 2


def told(family: str, scene: Scene) -> set[str]:
    """`answer` or `reason` of everything that a family asks or declines."""
    rows = FAMILIES[family].ask(scene, "picture", 0)
    return {row.answer if isinstance(row, Asked) else row.reason for row in rows}


# The table


@every_family
def test_an_entry_is_complete(family):
    assert len(family.wordings) >= 3 and len(set(family.wordings)) == len(family.wordings)
    assert family.held_out == len(family.wordings) - 1
    assert family.answers and len(set(family.answers)) == len(family.answers)
    assert all(text == text.lower().strip() != "" for text in family.answers)
    assert FAMILIES[family.name] is family


@every_family
def test_every_wording_belongs_to_one_family_and_reads_back(family):
    """For all kart names, so that no wording of one family with some name is a wording of another."""
    for first in KARTS:
        names = [first, KARTS[KARTS.index(first) - 1]][: len(family.slots)]
        for number in range(len(family.wordings)):
            question = family.write(number, names)
            assert "{" not in question and question[-1] in "?."
            assert [other.name for other in FAMILIES.values() if other.read(plain(question))] == [family.name]
            assert read_question(f" {question}\n") == (family.name, number, tuple(names))
            assert family_of(question) == family.name


def test_the_course_families_come_first_and_the_new_ones_say_so():
    assert [name for name, family in FAMILIES.items() if family.group == COURSE] == list(FAMILIES)[:10]
    assert list(COURSE_FAMILIES) == list(FAMILIES)[:10]


def busy_views(n: int) -> list[View]:
    """Crowded views in which nearly everything happens that a family may decline for."""
    rng = random.Random(0)
    found = []
    for _ in range(n):
        line_up = tuple(rng.sample(KARTS, 6))
        spread, rows = rng.choice((40, 150)), []
        clear, measured = rng.random() < 0.7, rng.random() < 0.7
        for kart in range(rng.randint(0, 4)):
            x, y = rng.randint(300 - spread, 300 + spread), rng.randint(200 - spread, 200 + spread)
            width, height = (rng.choice((40, 60)) if clear else 22), rng.choice((30, 50))
            seen = (1.0 if clear else 0.3, 5000, rng.uniform(2, 10)) if measured else ()
            rows.append(Detection(1, kart, box(x, y, width, height), *seen))
        found.append(View(Frame(Path("data"), "train", "0", "mines", line_up, "race"), rng.randint(0, 1), tuple(rows)))
    return found


def reasons(name: str) -> set[Reason]:
    return REASONS.get(name, set()) | (NO_EGO if FAMILIES[name].needs_ego else set()) | ANY_FAMILY


def test_every_reason_of_a_family_occurs_and_no_other():
    seen = {name: set() for name in FAMILIES}
    for view in busy_views(400):
        for row in ask_extended(read_scene(view, rules=STRICT_RULES), "picture", 0):
            if isinstance(row, Declined):
                seen[row.family].add(row.reason)
    for name in FAMILIES:
        assert seen[name] - ANY_FAMILY == reasons(name) - ANY_FAMILY, f"{name}: list in REASONS why it declines"


def test_absent_karts_are_drawn_in_an_order_that_no_process_changes():
    """A generator gives a number at each call, and sets have another order in every process."""
    scene, asked = scene_of(EGO), []
    list(FAMILIES["in_view"].subjects(scene, lambda n, *key: asked.append(key[-1]) or 0))
    racing, others = asked[: len(LINE_UP) - 1], asked[len(LINE_UP) - 1 : -1]
    assert racing == sorted(LINE_UP[1:]) and others == sorted(set(KARTS) - set(LINE_UP) - set(COURSE_ONLY_KARTS))


# No scene breaks a promise


@SETTINGS
@given(views(), both_rules, st.booleans(), st.sampled_from((None, mirror_box)))
def test_answers_are_in_the_set_and_questions_read_back(view, rules, held_out, transform):
    scene = read_scene(view, transform, rules)
    for row in ask_extended(scene, "picture", 0, held_out):
        family = FAMILIES[row.family]
        if isinstance(row, Declined):
            assert row.reason in reasons(row.family)
            continue
        name, wording, names = read_question(row.question)
        assert (name, wording) == (row.family, row.wording)
        assert row.answer in family.answers
        assert answer(row.question, scene) == row.answer
        assert set(names) <= set(KARTS) and len(set(names)) == len(names)


@SETTINGS
@given(views(), both_rules, st.randoms(use_true_random=False))
def test_the_order_of_the_detections_changes_nothing(view, rules, rng):
    shuffled = replace(view, detections=tuple(rng.sample(view.detections, len(view.detections))))
    one, other = read_scene(view, rules=rules), read_scene(shuffled, rules=rules)
    assert Counter(ask_extended(one, "picture", 0)) == Counter(ask_extended(other, "picture", 0))
    assert sorted(ask_all(one)) == sorted(ask_all(other))


@SETTINGS
@given(views())
def test_the_strict_rules_answer_as_the_course_or_decline(view):
    course, strict = read_scene(view), read_scene(view, rules=STRICT_RULES)
    answers = {question: truth for _, question, truth in ask_all(course)}
    for _, question, truth in ask_all(strict):
        assert answers[question] == truth


@SETTINGS
@given(views())
def test_in_the_mirror_left_and_right_change_places(view):
    """Or the question is declined: truncation moves boxes by less than the margin."""
    scene, mirrored = read_scene(view, rules=STRICT_RULES), read_scene(view, mirror_box, STRICT_RULES)
    swap = {"left": "right", "right": "left"}
    for name, opposite in (("leftmost", "rightmost"), ("count_left", "count_right")):
        pair = [answer(FAMILIES[name].template, scene), answer(FAMILIES[opposite].template, mirrored)]
        assert pair[0] == pair[1] or any(isinstance(truth, Reason) for truth in pair)
    for row in ask_extended(scene, "picture", 0):
        if isinstance(row, Declined) or row.family in ("leftmost", "rightmost", "count_left", "count_right"):
            continue
        truth = answer(row.question, mirrored)
        if isinstance(truth, Reason):
            continue
        if row.family in ("left_right", "more_side"):
            assert truth == swap.get(row.answer, row.answer)
        elif row.family == "left_of":
            assert truth != row.answer
        elif row.family == "where":
            assert truth.split()[0] == row.answer.split()[0] and truth.split()[2] == swap[row.answer.split()[2]]
        elif row.family == "clock":
            assert (int(truth) + int(row.answer)) % 12 == 0
        else:
            assert truth == row.answer


# Wordings


def drawn_wordings(held_out: bool) -> dict[str, set[int]]:
    scene = scene_of(EGO, box(100, 100), box(500, 300), distances=(4.0, 9.0, 2.0))
    seen = {name: set() for name in FAMILIES}
    for seed in range(60):
        for row in ask_extended(scene, f"{seed}.jpg", seed, held_out):
            if isinstance(row, Asked):
                seen[row.family].add(row.wording)
    return {name: numbers for name, numbers in seen.items() if numbers}


def test_training_never_draws_the_held_out_wording_and_testing_draws_all():
    train, test = drawn_wordings(False), drawn_wordings(True)
    assert len(train) == len(test) >= 18
    for name in train:
        first = 1 if name in COURSE_FAMILIES else 0  # the template of these is in the course's files
        assert train[name] == set(range(first, FAMILIES[name].held_out))
        assert test[name] == set(range(first, FAMILIES[name].held_out + 1))


def test_what_is_drawn_depends_on_seed_and_picture_alone():
    scene = scene_of(EGO, box(100, 100), box(500, 300))

    def rows(key, seed):
        return list(ask_extended(scene, key, seed))

    assert rows("a.jpg", 0) == rows("a.jpg", 0)
    assert rows("a.jpg", 0) != rows("b.jpg", 0)
    assert rows("a.jpg", 0) != rows("a.jpg", 1)
    assert [pick(1000, 0, "a.jpg", kart) for kart in ("tux", "gnu")] == [881, 393], "other programs rely on these"


# Colour


def test_colours_are_asked_of_karts_that_have_one():
    scene = scene_of(EGO, box(100, 100), box(500, 300))
    assert told("ego_colour", scene) == {"red"}
    rows = list(FAMILIES["kart_colour"].ask(scene, "picture", 0))
    assert [getattr(row, "answer", None) or row.reason for row in rows] == ["red", Reason.NO_COLOUR, "blue"]
    assert answer("What colour is xue?", scene) == KART_COLOURS["xue"] and "gnu" in UNCLEAR_KARTS
    assert told("ego_colour", scene_of(box(100, 100), EGO, followed=1)) == {Reason.NO_COLOUR}


# Existence


def test_as_many_karts_out_of_view_are_asked_for_as_in_view():
    """Drawn in turn from the karts of the race and from those that are not in it."""
    scene, sources = scene_of(EGO, box(100, 100), (500, 300, 520, 360)), Counter()
    for seed in range(40):
        asked = [row for row in FAMILIES["in_view"].ask(scene, "picture", seed) if isinstance(row, Asked)]
        truth = {read_question(row.question)[2][0]: row.answer for row in asked}
        assert {name for name, said in truth.items() if said == "yes"} == {"tux", "gnu"}
        absent = {name for name, said in truth.items() if said == "no"}
        assert len(absent) == 2 and len(absent & set(LINE_UP)) == 1 and not absent & set(COURSE_ONLY_KARTS)
        sources.update(absent)
    assert {"puffy", "kiki"} <= set(sources) and len(sources) > 8


def test_a_kart_that_is_barely_in_view_is_neither_in_view_nor_out_of_it():
    scene = scene_of(EGO, (500, 300, 524, 360), (100, 100, 104, 104))
    for name in ("gnu", "xue"):
        assert answer(f"Is {name} in view?", scene) == Reason.UNCLEAR
    assert told("in_view", scene) == {"yes", "no", Reason.UNCLEAR}
    assert answer("Is puffy in view?", scene) == answer("Is nolok in view?", scene) == "no"


# Place


def test_nearest_and_farthest_by_distance():
    boxes = EGO, box(100, 100), box(500, 300)
    scene = scene_of(*boxes, distances=(4.0, 9.0, 2.0))
    assert (told("nearest", scene), told("farthest", scene)) == ({"xue"}, {"gnu"})
    near_tie = scene_of(*boxes, distances=(4.0, 9.0, 8.0))
    assert told("nearest", near_tie) == told("farthest", near_tie) == {Reason.EQUALLY_FAR}
    assert told("farthest", scene_of(EGO)) == {Reason.TOO_FEW}
    assert told("nearest", scene_of(EGO, box(100, 100))) == {Reason.TOO_FEW}, "only the ego kart and one other"


def test_nearest_and_farthest_by_boxes_where_there_are_no_distances():
    scene = scene_of(EGO, box(100, 120, 30, 28), box(500, 320, 90, 80))
    assert (told("nearest", scene), told("farthest", scene)) == ({"xue"}, {"gnu"})
    alike = scene_of(EGO, box(100, 180), box(500, 220))
    assert told("nearest", alike) == {Reason.EQUALLY_FAR}


def test_a_barely_visible_kart_may_be_the_answer_and_so_makes_it_doubtful():
    hidden = (20, 100, 44, 160)  # 6 px wide at 150x100
    scene = scene_of(EGO, box(100, 100), box(500, 300), hidden, distances=(4.0, 9.0, 2.0, 30.0))
    assert told("leftmost", scene) == told("farthest", scene) == {Reason.UNCLEAR}
    assert (told("rightmost", scene), told("nearest", scene)) == ({"xue"}, {"xue"})


@pytest.mark.parametrize(
    ("dx", "left", "right"), [(0, Reason.LEVEL, "gnu"), (8, Reason.LEVEL, "gnu"), (16, "tux", "gnu")]
)
def test_leftmost_and_rightmost_need_a_margin_of_three_px(dx, left, right):
    """dx in the 600x400 frame: 8 are 2 px of 150x100, 16 are 4."""
    scene = scene_of(EGO, box(500, 100), box(300 + dx, 330))
    assert (told("leftmost", scene), told("rightmost", scene)) == ({left}, {right})


@pytest.mark.parametrize(
    ("boxes", "distances", "expected"),
    [
        ((EGO, box(310, 120)), (4.0, 9.0), "gnu"),
        ((EGO, box(310, 120), box(300, 60)), (4.0, 9.0, 20.0), "gnu"),
        ((EGO, box(310, 120), box(300, 60)), (4.0, 9.0, 9.5), Reason.EQUALLY_FAR),
        ((EGO, box(326, 120)), (4.0, 9.0), Reason.ASIDE),
        ((EGO, box(360, 120)), (4.0, 9.0), Reason.NONE),
        ((EGO, box(310, 300)), (4.0, 2.0), Reason.NONE),
        ((EGO, box(310, 192)), (4.0, 9.0), Reason.EGO_TIED),
        ((EGO, box(310, 120)), (4.0, 3.0), Reason.DEPTH_DOUBT),
        ((EGO, box(310, 120, 24)), (4.0, 9.0), Reason.UNCLEAR),
        ((EGO,), (4.0,), Reason.NONE),
    ],
)
def test_directly_in_front(boxes, distances, expected):
    """The ego kart is 40 px wide: up to 20 px aside is straight ahead, up to 40 doubtful."""
    assert told("directly_front", scene_of(*boxes, distances=distances)) == {expected}


# Comparison


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ((EGO, box(100, 100), box(80, 300), box(500, 100)), "left"),
        ((EGO, box(100, 100), box(500, 300), box(520, 100)), "right"),
        ((EGO, box(100, 100), box(500, 300)), "equal"),
        ((EGO, box(100, 100), box(304, 40)), Reason.LEVEL),
        ((EGO, box(100, 100), (500, 300, 520, 360)), Reason.UNCLEAR),
        ((EGO,), Reason.NONE),
    ],
)
def test_more_karts_on_one_side(boxes, expected):
    assert told("more_side", scene_of(*boxes)) == {expected}


def test_pairs_are_compared_once_in_either_order():
    boxes = EGO, box(100, 100), box(500, 300)
    orders = Counter()
    for seed in range(40):
        scene = scene_of(*boxes, distances=(4.0, 9.0, 2.0))
        for name in ("left_of", "nearer"):
            rows = list(FAMILIES[name].ask(scene, "picture", seed))
            assert len(rows) == 3
            orders.update((name, row.answer) for row in rows)
    assert all(40 <= count <= 80 for count in orders.values()) and len(orders) == 4
    scene = scene_of(*boxes, distances=(4.0, 9.0, 2.0))
    assert answer("Is gnu left of xue?", scene) == answer("Is xue nearer than gnu?", scene) == "yes"
    assert answer("Is xue left of gnu?", scene) == answer("Is gnu nearer than xue?", scene) == "no"
    assert answer("Is tux left of tux?", scene) == Reason.ITSELF


@pytest.mark.parametrize(
    ("right", "up", "hour"),
    [
        (0, 100, 12),
        (100, 0, 3),
        (0, -100, 6),
        (-100, 0, 9),
        (100, 60, 2),
        (-100, 60, 10),
        (60, -100, 5),
        (-60, -100, 7),
    ],
)
def test_the_clock_lies_on_the_picture_around_the_ego_car(right, up, hour):
    boxes = EGO, box(300 + right, 200 - up)
    assert told("clock", scene_of(*boxes)) == {str(hour)}
    mirrored = scene_of(*map(mirror_box, boxes))
    assert answer("At which o'clock is gnu, seen from the ego car?", mirrored) == str((12 - hour) % 12 or 12)


@pytest.mark.parametrize(("right", "up"), [(27, 100), (100, -27), (36, 0)], ids=["12 or 1", "3 or 4", "too near"])
def test_between_two_hours_the_strict_rules_tell_none(right, up):
    boxes = EGO, box(300 + right, 200 - up)
    assert told("clock", scene_of(*boxes)) == {Reason.BETWEEN_HOURS}
    loosely = answer("At which o'clock is gnu, seen from the ego car?", scene_of(*boxes, rules=COURSE_RULES))
    assert loosely in FAMILIES["clock"].answers


# Asking a scene a question from elsewhere


def test_a_question_from_another_view_is_declined_where_it_makes_no_sense():
    scene = scene_of(EGO, box(100, 100))
    assert answer("Is gnu left or right of the ego car?", scene) == "left"
    assert answer("Is tux left or right of the ego car?", scene) == Reason.ITSELF
    assert answer("Is kiki left or right of the ego car?", scene) == Reason.ABSENT
    with pytest.raises(ValueError, match="'What is the time\\?': the wording belongs to no family"):
        answer("What is the time?", scene)


def test_names_that_occur_twice_are_declined():
    twice = scene_of(EGO, box(100, 100), line_up=("tux", "gnu", "gnu"))
    assert told("left_right", twice) == {Reason.SAME_NAME} and told("leftmost", twice) == {"gnu"}


def test_karts_and_tracks_that_the_game_does_not_have_are_answers_of_every_family_that_names_them():
    names = {name for name, family in FAMILIES.items() if set(family.answers) & {*KARTS, *TRACKS}}
    assert names == {name for name, family in FAMILIES.items() if family.names}
    for rules in (STRICT_RULES, COURSE_RULES):
        own = {"line_up": ("my racer", "Zoe", "truck-7"), "track": "My own track", "rules": rules}
        scene = scene_of(EGO, box(300, 110), box(100, 300, 72, 72), distances=(6, 16, 3), **own)
        answers = {name: told(name, scene) for name in sorted(names)}
        assert answers.pop("track") == {"My own track"} and answers.pop("ego") == {"my racer"}
        assert answers.pop("leftmost") == answers.pop("nearest") == {"truck-7"}
        assert answers.pop("farthest") == answers.pop("directly_front") == {"Zoe"}
        assert answers.pop("rightmost") <= {"my racer", "Zoe", Reason.LEVEL} and not answers


def test_a_count_above_those_that_a_family_knows_is_declined():
    many = scene_of(EGO, *(box(40 * n + 60, 60) for n in range(11)), line_up=tuple(KARTS))
    assert told("count", many) == {Reason.UNKNOWN}


@pytest.mark.parametrize("rules", [COURSE_RULES, STRICT_RULES], ids=lambda rules: rules.name)
@pytest.mark.parametrize("names", [("tux", "gnu", "gnu"), ("tux", "add-on kart", "add on_kart"), ("tux", "Gnu", "gnu")])
def test_no_question_is_asked_by_a_name_that_two_karts_have(rules, names):
    scene = scene_of(EGO, box(60, 180), box(480, 150), line_up=names, rules=rules)
    asked = [question for _, question, _ in ask_all(scene)]
    assert asked and not any(one_word(names[1]) in question for question in asked)
    assert told("left_right", scene) == {Reason.SAME_NAME}
    assert answer(f"Is {one_word(names[1])} left or right of the ego car?", scene) == Reason.SAME_NAME


def test_no_question_is_asked_of_a_kart_that_is_detected_twice():
    frame = Frame(Path("data"), "train", "00000", "abyss", ("tux", "gnu"), "race")
    rows = tuple(Detection(1, kart, corners) for kart, corners in ((0, EGO), (1, box(60, 180)), (1, box(480, 150))))
    scene = read_scene(View(frame, 0, rows))
    assert scene.ambiguous == {"gnu"} and not any("gnu" in question for _, question, _ in ask_all(scene))


def test_all_tracks_and_karts_can_be_answers():
    assert set(FAMILIES["track"].answers) == set(TRACKS)
    for name in ("ego", "nearest", "farthest", "leftmost", "rightmost", "directly_front"):
        assert set(FAMILIES[name].answers) == set(KARTS)
