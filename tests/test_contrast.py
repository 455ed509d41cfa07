from collections import Counter

import pytest

from stkvlm_lib.grammar.questions import FAMILIES, answer, family_of
from stkvlm_lib.grammar.scene import STRICT_RULES, Reason, mirror_box, read_scene
from stkvlm_lib.qa.contrast import MIRROR, OTHER_VIEW, contrast_items, contrast_rows, pairs_of, read_contrast


@pytest.fixture(scope="module")
def pairs(written):
    return pairs_of(read_contrast(written[0] / "test_contrast.jsonl"))


def scene_of(item, bundled):
    view = bundled.by_image_file[item.image_file]
    return read_scene(view, mirror_box if item.mirrored else None, STRICT_RULES)


def test_both_answers_of_a_pair_are_what_the_picture_shows(pairs, bundled):
    for pair in pairs:
        for item in pair:
            assert answer(item.question, scene_of(item, bundled)) == item.answer
            assert item.rules == STRICT_RULES.name and item.family == family_of(item.question)
    assert {pair[0].kind for pair in pairs} == {MIRROR, OTHER_VIEW}


def test_a_mirror_pair_is_one_picture_and_its_mirror_image(pairs, bundled):
    families = Counter()
    for first, second in pairs:
        if first.kind == MIRROR:
            assert (first.image_file, first.question, first.pair) == (second.image_file, second.question, second.pair)
            assert (first.mirrored, second.mirrored) == (False, True)
            families[first.family] += first.answer != second.answer
            if first.family == "left_right":
                assert {first.answer, second.answer} == {"left", "right"}
    assert families["left_right"] > 3 and families["left_of"] > 3
    assert not families["front_back"] and not families["ego"] and not families["track"]


def test_what_is_level_is_no_mirror_pair(few, bundled):
    items = contrast_items(few["train"] + few["test"], "test", 0, 1000)
    asked = {(item.image_file, item.question) for item in items if item.kind == MIRROR}
    level = 0
    for view in bundled.views("test"):
        scene = read_scene(view, rules=STRICT_RULES)
        for kart in scene.others:
            question = FAMILIES["left_right"].write(0, [kart.name])
            if answer(question, scene) == Reason.LEVEL:
                assert (view.image_file, question) not in asked
                level += 1
    assert level


def test_another_view_is_of_the_same_moment_with_another_ego_kart(pairs, bundled):
    found = 0
    for first, second in pairs:
        if first.kind == OTHER_VIEW:
            views = [bundled.by_image_file[item.image_file] for item in (first, second)]
            assert views[0].frame is views[1].frame and views[0].index != views[1].index
            assert not first.mirrored and not second.mirrored
            egos = {scene_of(item, bundled).ego.name for item in (first, second)}
            assert len(egos) == 2
            found += 1
    assert found


def test_every_two_pictures_differ_in_an_answer_and_have_at_most_one_that_stays(pairs):
    groups = Counter((p[0].kind, p[0].image_file, p[1].image_file, p[0].answer == p[1].answer) for p in pairs)
    for kind, first, second, same in groups:
        assert groups[kind, first, second, False] >= 1
        assert not same or groups[kind, first, second, True] == 1
    pictures = Counter(kind for kind, _, _, same in groups if not same)
    assert max(pictures.values()) <= 10, "as many as were asked for"


def test_pairs_do_not_depend_on_the_order_of_the_frames(few):
    items = contrast_items(few["test"], "test", 0, 5)
    assert contrast_items(few["test"][::-1], "test", 0, 5) == items
    assert contrast_items(few["test"], "test", 1, 5) != items
    assert contrast_items(few["test"], "test", 0, 0) == []


def test_the_table_counts_pairs(pairs):
    rows = contrast_rows(item for pair in pairs for item in pair)
    assert sum(n for row in rows for name, n in row.items() if name != "family") == len(pairs)
    assert [row["family"] for row in rows] == [f for f in FAMILIES if f in {row["family"] for row in rows}]
