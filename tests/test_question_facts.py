import pytest
from hand_made import TUX, answered, frame_set, make_view

from stkvlm_lib.analysis.question_facts import read_facts
from stkvlm_lib.data.frames import FramesError
from stkvlm_lib.grammar.scene import Reason

GNU, KIKI, PUFFY = (20, 10, 40, 25), (100, 70, 106, 78), (120, 30, 124, 40)
"""Front left and large; back right and 6 px; front right and dropped by the rule, for want of a pixel."""


def facts_of(view, **of_set):
    rows = answered(view)
    found = read_facts(rows, frame_set(view, **of_set))
    return {(p.family, *p.question.split()[1:2]) if p.family == "left_right" else p.family: f
            for p, f in zip(rows, found, strict=True)}  # fmt: skip


def test_the_kart_asked_about_is_the_subject_and_counts_have_none():
    found = facts_of(make_view({"tux": TUX, "gnu": GNU, "kiki": KIKI}, gnu=(0.75, 2000, 9.0)), train=("tux", "gnu"))
    gnu, kiki = found["left_right", "gnu"], found["left_right", "kiki"]
    assert (gnu.size, gnu.visible, gnu.known, gnu.karts, gnu.view) == (15, 0.75, True, 3, 0)
    assert (kiki.size, kiki.visible, kiki.known) == (6, None, False)
    assert (found["ego"].size, found["ego"].known) == (10, True)
    assert {(found[family].size, found[family].known) for family in ("count", "track", "count_left")} == {(None, None)}
    assert facts_of(make_view({"tux": TUX}), train=())["ego"].known is None


def test_small_karts_and_those_a_pixel_under_the_limit_make_counts_hard():
    found = facts_of(make_view({"tux": TUX, "gnu": GNU, "kiki": KIKI, "puffy": PUFFY}))
    count, right, left = (found[name] for name in ("count", "count_right", "count_left"))
    assert (count.pixel, count.small, count.hard) == (1, 2, 2), "puffy by a pixel; puffy and kiki are small"
    assert (right.pixel, right.small, right.hard) == (1, 2, 2)
    assert (left.pixel, left.small, left.hard) == (0, 0, 0), "gnu alone is on that side, and plain"
    assert (found["left_right", "kiki"].small, found["left_right", "gnu"].small) == (1, 0)
    assert found["track"].hard == 0


def test_centres_are_compared_on_the_axes_that_a_family_asks_about():
    found = facts_of(make_view({"tux": TUX, "gnu": (69, 10, 83, 25), "kiki": (20, 47, 40, 57)}))
    gnu, kiki = found["left_right", "gnu"], found["left_right", "kiki"]
    assert (gnu.pixel, gnu.level) == (1, 1), "its centre is one pixel aside"
    assert (kiki.pixel, kiki.level) == (0, 0), "level in depth, which this family does not ask"
    assert (found["count_behind"].pixel, found["count_behind"].level) == (0, 1), "kiki is 2 px behind"


def test_covered_karts_are_hidden_only_where_the_frames_say():
    boxes = {"tux": TUX, "gnu": GNU}
    assert facts_of(make_view(boxes, gnu=(0.2, 2000, 9.0)))["left_right", "gnu"].hidden == 1
    assert facts_of(make_view(boxes, gnu=(0.9, 2000, 9.0)))["left_right", "gnu"].hidden == 0
    assert facts_of(make_view(boxes))["left_right", "gnu"].hidden == 0


def test_an_ego_kart_that_another_nearly_replaces_makes_its_questions_hang_on_a_pixel():
    near = {"tux": (66, 45, 76, 55), "gnu": (74, 45, 85, 55), "kiki": KIKI}
    found = facts_of(make_view(near))
    assert found["ego"].pixel == 1 and found["left_right", "kiki"].pixel == 1
    assert found["track"].pixel == 0 and found["count"].pixel == 0


def test_places_of_the_others_and_the_strict_rules_word():
    found = facts_of(make_view({"tux": TUX, "gnu": GNU, "kiki": KIKI}))
    assert found["left_right", "gnu"].elsewhere == {"back and right"}
    assert found["left_right", "kiki"].elsewhere == {"front and left"}
    assert found["left_right", "kiki"].declined is Reason.UNCLEAR
    assert found["left_right", "gnu"].declined is None
    assert found["count"].elsewhere == frozenset()


def test_other_wordings_have_only_their_picture_and_unknown_pictures_are_refused():
    view = make_view({"tux": TUX})
    (row,) = answered(view, family="other", question="Who leads?")[:1]
    (facts,) = read_facts([row], frame_set(view))
    assert (facts.karts, facts.size, facts.declined, facts.hard) == (1, None, None, 0)
    with pytest.raises(FramesError, match="no picture test/r20001_00_im.jpg"):
        read_facts(answered(make_view({"tux": TUX}, race="r2")), frame_set(view))
