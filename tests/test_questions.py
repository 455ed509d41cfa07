"""The course's ten families: wording and answers on hand-made scenes, byte for byte, and reading a family back from a
question. All families: test_families.py."""

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from stkvlm_lib.data.frames import Detection, Frame, View
from stkvlm_lib.grammar.questions import (
    COURSE_FAMILIES,
    FAMILIES,
    KARTS,
    TRACKS,
    ask_all,
    family_of,
    is_of_course,
    normalise,
)
from stkvlm_lib.grammar.scene import Scene, mirror_box, read_scene

WORDINGS = {
    "ego": "What kart is the ego car?",
    "count": "How many karts are there in the scenario?",
    "track": "What track is this?",
    "left_right": "Is {kart} to the left or right of the ego car?",
    "front_back": "Is {kart} in front of or behind the ego car?",
    "where": "Where is {kart} relative to the ego car?",
    "count_left": "How many karts are to the left of the ego car?",
    "count_right": "How many karts are to the right of the ego car?",
    "count_front": "How many karts are in front of the ego car?",
    "count_behind": "How many karts are behind the ego car?",
}
LINE_UP = ("tux", "sara_the_racer", "kiki", "xue", "nolok")
EGO = (75, 50)


def view_of(*centres: tuple[int, int], track: str = "abyss", size: int = 10) -> View:
    """Kart i of LINE_UP at centre i, px in the 150x100 frame."""
    half = size // 2
    rows = tuple(
        Detection(1, i, (4 * (x - half), 4 * (y - half), 4 * (x + half), 4 * (y + half)))
        for i, (x, y) in enumerate(centres)
    )
    return View(Frame(Path("data"), "train", "00000", track, LINE_UP, "race"), 0, rows)


def asked(*centres: tuple[int, int], **settings) -> dict[str, str]:
    """{question: answer} of the scene."""
    return {question: answer for _, question, answer in ask_all(read_scene(view_of(*centres, **settings)))}


def random_scenes(n: int) -> list[Scene]:
    rng = random.Random(0)
    return [
        read_scene(view_of(*((rng.randint(10, 140), rng.randint(10, 90)) for _ in range(rng.randint(0, len(LINE_UP))))))
        for _ in range(n)
    ]


def synthetic_views(n: int) -> Iterator[View]:
    """Views with overlapping, tiny and cut-off boxes, objects that are no karts, and views of karts not in view."""
    rng = random.Random(0)
    for i in range(n):
        line_up = tuple(rng.sample(KARTS, 10))
        frame, rows = Frame(Path("data"), "train", f"{i:05x}", rng.choice(TRACKS), line_up, "race"), []
        for kart in rng.sample(range(10), rng.randint(0, 6)):
            x, y = rng.randint(0, 590), rng.randint(0, 390)
            box = (x, y, min(599, x + rng.randint(8, 120)), min(399, y + rng.randint(8, 120)))
            rows.append(Detection(rng.choice((1, 1, 1, 4)), kart, box))
        yield View(frame, rng.randint(0, 9), tuple(rows))


def test_the_ten_forms_are_those_of_the_first_release_byte_for_byte():
    """The digest was taken before there were other families and rules; it must never change."""
    digest, n = hashlib.sha256(), 0
    for view in synthetic_views(300):
        for transform in (None, mirror_box):
            for row in ask_all(read_scene(view, transform)):
                digest.update(json.dumps(row).encode())
                n += 1
    assert n == 4234
    assert digest.hexdigest() == "1d3e3fbabc83fc818ff3d0dc3273bbd93442e0d521370880a350c0fb3d779d4c"


def test_the_ten_wordings_are_the_course_s():
    assert {name: family.template for name, family in COURSE_FAMILIES.items()} == WORDINGS
    assert list(FAMILIES)[:10] == list(COURSE_FAMILIES) == list(WORDINGS)


def test_everything_asked_of_one_scene():
    """Ego tux in the middle; kiki up and left, sara_the_racer down and right, xue level with the ego kart."""
    assert asked(EGO, (100, 70), (40, 20), EGO) == {
        "What kart is the ego car?": "tux",
        "How many karts are there in the scenario?": "4",
        "What track is this?": "abyss",
        "Is sara_the_racer to the left or right of the ego car?": "right",
        "Is kiki to the left or right of the ego car?": "left",
        "Is xue to the left or right of the ego car?": "left",
        "Is sara_the_racer in front of or behind the ego car?": "back",
        "Is kiki in front of or behind the ego car?": "front",
        "Is xue in front of or behind the ego car?": "back",
        "Where is sara_the_racer relative to the ego car?": "back and right",
        "Where is kiki relative to the ego car?": "front and left",
        "Where is xue relative to the ego car?": "back and left",
        "How many karts are to the left of the ego car?": "2",
        "How many karts are to the right of the ego car?": "1",
        "How many karts are in front of the ego car?": "1",
        "How many karts are behind the ego car?": "2",
    }


def test_the_ego_kart_may_stand_anywhere_in_the_list():
    answers = asked((20, 20), (130, 80), EGO)
    assert answers[WORDINGS["ego"]] == "kiki"
    assert answers["Where is tux relative to the ego car?"] == "front and left"
    assert not [question for question in answers if "kiki" in question]


def test_total_count_includes_the_ego_kart_and_relative_counts_do_not():
    answers = asked(EGO, (20, 20), (30, 30))
    assert answers[WORDINGS["count"]] == "3"
    assert answers[WORDINGS["count_left"]] == "2"
    assert answers[WORDINGS["count_front"]] == "2"


def test_front_and_right():
    assert asked(EGO, (100, 20))["Where is sara_the_racer relative to the ego car?"] == "front and right"


@pytest.mark.parametrize(
    ("centre", "not_asked"),
    [
        ((20, 20), {"count_right", "count_behind"}),
        ((130, 20), {"count_left", "count_behind"}),
        ((20, 80), {"count_right", "count_front"}),
        ((130, 80), {"count_left", "count_front"}),
    ],
)
def test_a_count_of_zero_is_never_asked(centre, not_asked):
    relative = {"count_left", "count_right", "count_front", "count_behind"}
    answers = asked(EGO, centre)
    assert {name for name in relative if WORDINGS[name] not in answers} == not_asked
    assert {answers[WORDINGS[name]] for name in relative - not_asked} == {"1"}


def test_a_kart_alone_is_asked_for_itself_the_count_and_the_track():
    assert asked((40, 20)) == {WORDINGS["ego"]: "tux", WORDINGS["count"]: "1", WORDINGS["track"]: "abyss"}


@pytest.mark.parametrize("centres", [(), (EGO, (20, 20))])
def test_a_view_with_no_kept_kart_gets_the_track_question_alone(centres):
    assert asked(*centres, size=4, track="zengarden") == {"What track is this?": "zengarden"}


def test_dropped_karts_are_neither_asked_for_nor_counted():
    rows = (*view_of(EGO, (20, 20)).detections, Detection(1, 2, (500, 40, 519, 80)), Detection(4, 3, (40, 40, 90, 90)))
    scene = read_scene(View(view_of().frame, 0, rows))
    answers = {question: answer for _, question, answer in ask_all(scene)}
    assert answers[WORDINGS["count"]] == "2"
    assert not [question for question in answers if "kiki" in question or "xue" in question]


def test_answers_are_strings_and_among_those_the_family_lists():
    seen = set()
    for scene in random_scenes(200):
        for name, _, answer in ask_all(scene):
            assert type(answer) is str
            assert answer in COURSE_FAMILIES[name].answers
            seen.add((name, answer))
    assert {("where", "front and left"), ("count", "5"), ("count_behind", "3")} <= seen


def test_each_question_is_asked_once_and_families_keep_their_order():
    for scene in random_scenes(50):
        rows = list(ask_all(scene))
        assert len({question for _, question, _ in rows}) == len(rows)
        order = [list(COURSE_FAMILIES).index(name) for name, _, _ in rows]
        assert order == sorted(order)


def test_mirrored_boxes_swap_left_and_right():
    view = view_of(EGO, (20, 20), (130, 80), (110, 30))
    plain = {q: a for _, q, a in ask_all(read_scene(view))}
    mirrored = {q: a for _, q, a in ask_all(read_scene(view, mirror_box))}

    def swap(text: str) -> str:
        return text.replace("left", "LEFT").replace("right", "left").replace("LEFT", "right")

    for question, answer in plain.items():
        if question.startswith("Is ") or question.startswith("Where "):
            assert mirrored[question] == swap(answer)
        else:
            assert mirrored[swap(question)] == answer
    assert plain[WORDINGS["count_right"]] == "2" and mirrored[WORDINGS["count_right"]] == "1"


# Reading the family back


def test_family_of_every_generated_question():
    seen = set()
    for scene in random_scenes(50):
        for name, question, _ in ask_all(scene):
            assert family_of(question) == name
            seen.add(name)
    assert seen == set(COURSE_FAMILIES)


@pytest.mark.parametrize("name", WORDINGS)
def test_family_of_every_kart(name):
    assert {family_of(f" {WORDINGS[name].format(kart=kart)}\n") for kart in KARTS} == {name}


@pytest.mark.parametrize(
    "question",
    [
        "",
        "What is the weather like?",
        "What kart is the ego carX",
        "What kart is the ego car? Really?",
        "So: What track is this?",
        "Where is  relative to the ego car?",
        "Where is the kart relative to the ego car?",
        "Where is {kart} of the ego car?",
        "How many karts are to the left or right of the ego car?",
    ],
)
def test_unknown_wording_is_other(question):
    assert family_of(question) == "other"


def test_names_of_the_course():
    assert len(KARTS) == len(set(KARTS)) == 18 and sorted(KARTS) == KARTS
    assert len(TRACKS) == len(set(TRACKS)) == 23 and sorted(TRACKS) == TRACKS


def test_answers_are_compared_without_case_and_surrounding_space():
    assert normalise(" Front and Left\n") == "front and left"
    assert normalise("front  and left") != "front and left"


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What kart is the ego car?", True),
        ("is Sara the Racer to the left or right of the ego car", True),
        ("Is mario to the left or right of the ego car?", False),
        ("Which kart is the ego car?", False),
        ("What colour is tux?", False),
        ("who won", False),
    ],
)
def test_the_courses_own_questions_are_told_from_others(question, expected):
    assert is_of_course(question) == expected
