"""Caption sentences and the items of the multiple choice."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import SETTINGS, views

from stkvlm_lib.data.frames import Detection, Frame, View
from stkvlm_lib.grammar.captions import CANDIDATES, Caption, Choice, captions, family_of_caption, multiple_choice
from stkvlm_lib.grammar.families import Declined
from stkvlm_lib.grammar.names import COURSE_ONLY_KARTS, KARTS, TRACKS
from stkvlm_lib.grammar.scene import COURSE_RULES, STRICT_RULES, Reason, Scene, read_scene
from stkvlm_lib.grammar.spelling import one_word

LINE_UP = ("tux", "gnu", "xue")


def scene_of(*boxes, rules=STRICT_RULES) -> Scene:
    frame = Frame(Path("data"), "train", "00000", "abyss", LINE_UP, "race")
    return read_scene(View(frame, 0, tuple(Detection(1, i, box) for i, box in enumerate(boxes))), rules=rules)


SCENE = scene_of((280, 180, 320, 220), (80, 80, 120, 120), (480, 280, 520, 320))
"""Ego tux in the middle, gnu ahead on the left, xue behind on the right."""


def items(scene: Scene, key: str = "picture", seed: int = 0) -> list[Choice]:
    return [item for item in multiple_choice(scene, key, seed) if isinstance(item, Choice)]


def test_the_captions_are_the_course_s():
    assert [caption.text for caption in captions(SCENE)] == [
        "tux is the ego car.",
        "There are 3 karts in the scene.",
        "The track is abyss.",
        "gnu is left of the ego car.",
        "xue is right of the ego car.",
        "gnu is in front of the ego car.",
        "xue is behind the ego car.",
    ]
    assert [caption.subject for caption in captions(SCENE)] == ["", "", "", "gnu", "xue", "gnu", "xue"]


def test_what_cannot_be_told_is_declined_with_a_reason():
    scene = scene_of((280, 180, 320, 220), (284, 80, 324, 120))
    told = {caption.family: caption for caption in captions(scene)}
    assert told["left_right"] == Declined("left_right", Reason.LEVEL)
    assert told["front_back"] == Caption("front_back", "gnu", "gnu is in front of the ego car.")
    empty = {caption.family: getattr(caption, "reason", None) for caption in captions(scene_of())}
    assert empty == {name: Reason.NO_KART for name in ("ego", "count", "left_right", "front_back")} | {"track": None}


@pytest.mark.parametrize("rules", [COURSE_RULES, STRICT_RULES], ids=lambda rules: rules.name)
def test_an_item_for_every_caption(rules):
    scene = scene_of((280, 180, 320, 220), (80, 80, 120, 120), rules=rules)
    texts = [(item.family, item.candidates[item.correct_index]) for item in items(scene)]
    assert texts == [(caption.family, caption.text) for caption in captions(scene)]


def test_wrong_candidates_are_of_the_same_kind():
    for seed in range(20):
        for item in items(SCENE, seed=seed):
            kinds = {family_of_caption(text) for text in item.candidates}
            assert kinds <= ({"left_right", "front_back"} if "_" in item.family else {item.family})
    assert family_of_caption("There are no karts.") == "other"


def test_wrong_places_include_the_opposite_and_a_pair_of_opposites():
    """So the candidates alone do not tell which kart is in view."""
    for seed in range(20):
        item = next(item for item in items(SCENE, seed=seed) if item.family == "left_right")
        placed = Counter(text.split()[0] for text in item.candidates if " left of " in text or " right of " in text)
        assert {"gnu is left of the ego car.", "gnu is right of the ego car."} <= set(item.candidates)
        assert sum(count == 2 for name, count in placed.items() if name not in LINE_UP) == 1


def test_wrong_ego_karts_are_those_in_view_first():
    for seed in range(10):
        item = items(SCENE, seed=seed)[0]
        assert {"gnu is the ego car.", "xue is the ego car."} < set(item.candidates)
        assert not any(name in " ".join(item.candidates) for name in COURSE_ONLY_KARTS)


def test_items_depend_on_seed_and_picture_alone_and_the_right_place_varies():
    assert items(SCENE) == items(SCENE)
    assert items(SCENE) != items(SCENE, seed=1) and items(SCENE) != items(SCENE, key="other")
    places = Counter(item.correct_index for seed in range(40) for item in items(SCENE, seed=seed))
    assert set(places) == set(range(CANDIDATES)) and max(places.values()) < 2 * min(places.values())


def is_true(text: str, scene: Scene) -> bool:
    """Read the sentence and look at the boxes, without the module's own tables."""
    words = text.rstrip(".").split()
    if text.endswith("is the ego car."):
        return scene.ego is not None and scene.ego.name == words[0]
    if text.startswith("There are"):
        return len(scene.karts) == int(words[2])
    if text.startswith("The track is"):
        return scene.track == words[3]
    kart = next((kart for kart in scene.detected if kart.name == words[0]), None)
    if kart is None:
        return False
    (x, y), (ego_x, ego_y) = kart.centre, scene.ego.centre
    return {"left": x <= ego_x, "right": x > ego_x, "in": y < ego_y, "behind": y >= ego_y}[words[2]]


@SETTINGS
@given(views(), st.sampled_from((COURSE_RULES, STRICT_RULES)), st.integers(0, 5))
def test_just_one_of_five_different_candidates_is_true(view, rules, seed):
    scene = read_scene(view, rules=rules)
    for item in items(scene, seed=seed):
        assert len(set(item.candidates)) == CANDIDATES
        assert [is_true(text, scene) for text in item.candidates].index(True) == item.correct_index
        assert sum(is_true(text, scene) for text in item.candidates) == 1


def test_every_name_can_stand_in_a_caption():
    assert {family_of_caption(f"{kart} is the ego car.") for kart in KARTS} == {"ego"}
    assert {family_of_caption(f"The track is {track}.") for track in TRACKS} == {"track"}


def race_of(names, track="abyss", rules=COURSE_RULES) -> Scene:
    """All karts in a row, the first one in the middle."""
    boxes = [(280, 180, 320, 220), *((20 * n, 100 + 4 * n, 20 * n + 24, 140 + 4 * n) for n in range(len(names) - 1))]
    frame = Frame(Path("data"), "train", "00000", track, tuple(names), "race")
    return read_scene(View(frame, 0, tuple(Detection(1, i, box) for i, box in enumerate(boxes))), rules=rules)


@pytest.mark.parametrize("rules", [COURSE_RULES, STRICT_RULES], ids=lambda rules: rules.name)
@pytest.mark.parametrize(
    "names",
    [("add-on kart", "$x^{$"), ("my_kart", "gnu", "<b>kart</b>"), KARTS, [*KARTS, *(f"kart{n}" for n in range(10))]],
    ids=["add-ons", "with HTML", "every kart", "28 karts"],
)
def test_names_that_the_game_does_not_have_and_races_of_all_karts(names, rules):
    scene = race_of(names, "my track (2)", rules)
    found = items(scene)
    assert (found or rules is STRICT_RULES) and all(len(set(item.candidates)) == CANDIDATES for item in found)
    if rules is COURSE_RULES:
        right = [item.candidates[item.correct_index] for item in found[:3]]
        first = one_word(names[0])
        counted = f"There are {len(scene.karts)} karts in the scene."
        assert right == [f"{first} is the ego car.", counted, "The track is my_track_2."]


def test_an_item_that_lacks_false_sentences_is_declined():
    scene = race_of(("tux", "gnu"))
    assert [item.family for item in items(scene)] == ["ego", "count", "track", "left_right", "front_back"]
    crowded = Scene(scene.track, scene.karts, scene.ego, line_up=tuple(KARTS))
    kinds = {type(item) for item in multiple_choice(crowded, "picture", 0) if item.family == "left_right"}
    assert kinds == {Declined}
