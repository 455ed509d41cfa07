"""The labelling rule, point by point, on hand-made views. Boxes are in the 600x400 frame unless it says otherwise."""

from pathlib import Path

import pytest

from stkvlm_lib.data.frames import Detection, Frame, View
from stkvlm_lib.grammar.scene import (
    COURSE_RULES,
    STRICT_RULES,
    Kart,
    Reason,
    depth,
    is_kept,
    mirror_box,
    read_scene,
    scale_box,
    side,
    sure_depth,
    sure_nearer,
    sure_side,
)

KARTS = ("tux", "gnu", "kiki", "xue", "nolok")
MIDDLE = (280, 180, 320, 220)
"""A box whose scaled centre is exactly (75, 50)."""


def view_of(*detections: tuple) -> View:
    """(object_id, box) or (class_id, object_id, box) each."""
    rows = tuple(Detection(*(d if len(d) == 3 else (1, *d))) for d in detections)
    return View(Frame(Path("data"), "train", "00000", "abyss", KARTS, "race"), 0, rows)


def scaled(x1: int, y1: int, x2: int, y2: int) -> tuple[int, int, int, int]:
    """A 600x400 box that scales to exactly this 150x100 one."""
    return 4 * x1, 4 * y1, 4 * x2, 4 * y2


def around(cx: int, cy: int, half: int = 5) -> tuple[int, int, int, int]:
    """A 600x400 box whose scaled centre is (cx, cy) px in the 150x100 frame."""
    return scaled(cx - half, cy - half, cx + half, cy + half)


def kept_names(*detections) -> list[str]:
    return [kart.name for kart in read_scene(view_of(*detections)).karts]


def kart(cx: float, cy: float) -> Kart:
    return Kart(0, "tux", (int(2 * cx) - 10, int(2 * cy) - 10, 10, 10))


# Point 1: classes


@pytest.mark.parametrize("class_id", [2, 3, 4, 5, 6, 7, 8, 9, 255, 0])
def test_only_class_1_is_a_kart(class_id):
    view = view_of((class_id, 0, MIDDLE), (1, 1, around(20, 20)), (class_id, 77, MIDDLE))
    scene = read_scene(view)
    assert [kart.name for kart in scene.karts] == ["gnu"]
    assert scene.ego.name == "gnu"


def test_scene_carries_the_track_and_the_karts_in_order():
    scene = read_scene(view_of((3, around(20, 20)), (0, around(75, 50)), (2, around(90, 20))))
    assert scene.track == "abyss"
    assert [(kart.object_id, kart.name) for kart in scene.karts] == [(3, "xue"), (0, "tux"), (2, "kiki")]
    assert scene.ego.name == "tux"
    assert [kart.name for kart in scene.others] == ["xue", "kiki"]


# Point 2: scaling


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 599, 399), (0, 0, 149, 99)),
        ((3, 7, 4, 8), (0, 1, 1, 2)),
        ((277, 159, 304, 185), (69, 39, 76, 46)),
        ((-3, -5, 3, 5), (0, -1, 0, 1)),
    ],
)
def test_corners_are_truncated_towards_zero(box, expected):
    """-3 -> 0 and -5 -> -1 tell truncation from rounding down; 3 -> 0 and 7 -> 1 tell it from rounding."""
    assert scale_box(box) == expected
    assert all(type(value) is int for value in scale_box(box))


def test_truncation_decides_who_is_kept():
    """Both are 19 px wide, 4.75 px after float scaling; truncated, one is 5 px wide and the other 4."""
    assert kept_names((0, (3, 100, 22, 200)), (1, (4, 100, 23, 200))) == ["tux"]


def test_truncation_decides_left_and_right():
    """Float centres: ego 75.0, other 75.5 (right). Truncated boxes have the same centre, which counts as left."""
    scene = read_scene(view_of((0, MIDDLE), (1, (282, 20, 322, 60))))
    assert scene.ego.name == "tux"
    assert side(scene.others[0], scene.ego) == "left"


def test_truncation_decides_front_and_back():
    """Float centres: ego 51.75, other 51 (front). Truncated boxes have the same centre, which counts as back."""
    scene = read_scene(view_of((0, (280, 187, 320, 227)), (1, (20, 184, 60, 224))))
    assert scene.ego.name == "tux"
    assert depth(scene.others[0], scene.ego) == "back"


def test_truncation_decides_the_ego_kart():
    """Float centres are 1.06 px and 0.5 px off the middle; truncated, 0 px and 0.5 px."""
    assert read_scene(view_of((0, (283, 183, 323, 223)), (1, (284, 180, 320, 220)))).ego.name == "tux"


# Point 3: the smallest box


@pytest.mark.parametrize(("size", "kept"), [((5, 5), True), ((4, 5), False), ((5, 4), False), ((4, 40), False)])
def test_five_px_is_the_limit_for_each_side(size, kept):
    width, height = size
    assert is_kept((50, 50, 50 + width, 50 + height)) is kept
    assert bool(kept_names((0, scaled(50, 50, 50 + width, 50 + height)))) is kept


def test_a_kart_at_the_edge_of_the_picture_is_kept():
    assert kept_names((0, (0, 0, 20, 20)), (1, (576, 376, 599, 399)), (2, (0, 380, 30, 399))) == ["tux", "gnu"]


def test_a_dropped_kart_is_no_ego_kart():
    scene = read_scene(view_of((0, scaled(73, 48, 77, 52)), (1, around(10, 10))))
    assert scene.ego.name == "gnu" and scene.others == ()


# Points 4 and 5: centre and ego kart


def test_centre_is_the_midpoint_of_the_truncated_box():
    (kart,) = read_scene(view_of((0, (283, 181, 307, 223)))).karts
    assert kart.box == (70, 45, 76, 55)
    assert kart.centre == (73, 50)


@pytest.mark.parametrize(
    ("first", "second", "ego"),
    [
        ((75, 60), (75, 50), "gnu"),
        ((72, 54), (81, 50), "tux"),  # 5 px off against 6 px off
        ((70, 45), (75, 58), "tux"),  # straight-line distance 7.07 against 8, though |dx| + |dy| = 10
        ((75, 40), (90, 50), "tux"),  # vertical and horizontal distance count the same
        ((60, 50), (75, 40), "gnu"),
    ],
)
def test_ego_is_the_kart_nearest_the_middle(first, second, ego):
    assert read_scene(view_of((0, around(*first)), (1, around(*second)))).ego.name == ego


def test_ego_is_neither_the_largest_kart_nor_the_one_the_view_follows():
    view = view_of((0, around(75, 62, half=30)), (1, around(75, 52)))
    assert view.index == 0
    assert read_scene(view).ego.name == "gnu"


@pytest.mark.parametrize("listed", [(1, 3), (3, 1)])
def test_ties_for_the_ego_kart_go_to_the_lower_id(listed):
    places = {1: around(85, 50), 3: around(65, 50)}
    assert read_scene(view_of(*((i, places[i]) for i in listed))).ego.object_id == 1
    swapped = {3: places[1], 1: places[3]}
    assert read_scene(view_of(*((i, swapped[i]) for i in listed))).ego.object_id == 1


@pytest.mark.parametrize("detections", [(), ((0, (0, 0, 19, 400)),), ((2, 0, MIDDLE),)])
def test_no_kept_kart_means_no_ego_kart(detections):
    scene = read_scene(view_of(*detections))
    assert scene.karts == () and scene.ego is None and scene.others == ()


# Point 6: sides


@pytest.mark.parametrize(
    ("dx", "expected"), [(-0.5, "left"), (0, "left"), (0.5, "right"), (-40, "left"), (40, "right")]
)
def test_level_counts_as_left(dx, expected):
    assert side(kart(75 + dx, 10), kart(75, 50)) == expected


@pytest.mark.parametrize(
    ("dy", "expected"), [(-0.5, "front"), (0, "back"), (0.5, "back"), (-30, "front"), (30, "back")]
)
def test_level_counts_as_back(dy, expected):
    assert depth(kart(10, 50 + dy), kart(75, 50)) == expected


# Mirroring and other moves of the boxes


def test_mirror_box():
    assert mirror_box((0, 10, 100, 20)) == (499, 10, 599, 20)
    assert mirror_box((30, 10, 599, 399)) == (0, 10, 569, 399)
    assert mirror_box(mirror_box((13, 1, 222, 7))) == (13, 1, 222, 7)


def test_mirroring_swaps_left_and_right_only():
    view = view_of((0, MIDDLE), (1, around(20, 20)), (2, around(130, 80)))
    plain, mirrored = read_scene(view), read_scene(view, mirror_box)
    assert plain.ego.name == mirrored.ego.name == "tux"
    assert [side(k, plain.ego) for k in plain.others] == ["left", "right"]
    assert [side(k, mirrored.ego) for k in mirrored.others] == ["right", "left"]
    for scene in (plain, mirrored):
        assert [depth(k, scene.ego) for k in scene.others] == ["front", "back"]


def test_boxes_are_moved_before_they_are_scaled():
    """Moved by 3 px in the 600x400 frame, 0..23 becomes 3..26: 6 px wide after truncation instead of 5."""
    view = view_of((0, (0, 0, 23, 23)))
    moved = read_scene(view, lambda box: tuple(value + 3 for value in box))
    assert read_scene(view).karts[0].box == (0, 0, 5, 5)
    assert moved.karts[0].box == (0, 0, 6, 6)


# The strict rules


def strict(*detections: Detection, followed: int = 0):
    return read_scene(View(view_of().frame, followed, detections), rules=STRICT_RULES)


def sized(width: int, height: int, kart: int = 0, **seen) -> Detection:
    """A kart of that size in px of 150x100."""
    return Detection(1, kart, scaled(50, 30, 50 + width, 30 + height), **seen)


@pytest.mark.parametrize(
    ("detection", "group"),
    [
        (sized(7, 7), "karts"),
        (sized(6, 30), "unclear"),
        (sized(30, 6), "unclear"),
        (sized(3, 3), "unclear"),
        (sized(2, 4), "specks"),
        (sized(4, 2), "specks"),
        (sized(4, 2, pixels=99), "specks"),
        (sized(4, 2, pixels=100), "unclear"),
        (sized(2, 5), "unclear"),
        (sized(2, 30), "unclear"),
        (sized(7, 7, pixels=480), "karts"),
        (sized(30, 30, pixels=479), "unclear"),
        (sized(30, 30, visible=0.4, pixels=5000), "karts"),
        (sized(30, 30, visible=0.39, pixels=5000), "unclear"),
    ],
)
def test_when_a_kart_counts_as_visible(detection, group):
    scene = strict(detection)
    groups = {"karts": scene.karts, "unclear": scene.unclear, "specks": scene.specks}
    assert [name for name, karts in groups.items() if karts] == [group]
    assert scene.detected == groups[group] and scene.find("tux") == groups[group][0]
    assert scene.find("gnu").object_id == -1


def test_the_course_rule_ignores_what_a_renderer_measured():
    seen = sized(30, 30, visible=0.01, pixels=1, distance=4.0), sized(2, 2, 1)
    scene = read_scene(View(view_of().frame, 0, seen))
    assert scene.rules is COURSE_RULES and scene.rules.name == "course"
    assert [kart.name for kart in scene.karts] == ["tux"] and scene.unclear == scene.specks == ()
    assert scene.line_up == KARTS


@pytest.mark.parametrize(
    ("places", "followed", "expected"),
    [
        ([(75, 50), (75, 58)], 0, "tux"),
        ([(75, 50), (75, 58)], 1, Reason.EGO_NOT_FOLLOWED),
        ([(75, 50), (77, 50)], 0, Reason.EGO_TIED),
        ([(75, 52), (75, 45)], 0, "tux"),  # 3 px nearer the middle is enough
        ([], 0, Reason.NO_KART),
    ],
)
def test_the_ego_kart_is_both_nearest_the_middle_and_followed(places, followed, expected):
    scene = strict(*(Detection(1, i, around(*place)) for i, place in enumerate(places)), followed=followed)
    assert (scene.ego.name if scene.ego else scene.no_ego) == expected
    assert (scene.no_ego is None) is bool(scene.ego)


def test_a_barely_visible_kart_is_no_ego_kart_and_takes_the_middle_from_others():
    hidden = Detection(1, 0, MIDDLE, visible=0.1)
    other = Detection(1, 1, around(30, 50))
    assert strict(hidden, other).no_ego is Reason.EGO_UNCLEAR
    assert strict(hidden, other, followed=1).no_ego is Reason.EGO_NOT_FOLLOWED


@pytest.mark.parametrize(("dx", "expected"), [(-3, "left"), (-2.5, Reason.LEVEL), (2.5, Reason.LEVEL), (3, "right")])
def test_sides_within_three_px_are_declined(dx, expected):
    assert sure_side(kart(75 + dx, 10), kart(75, 50), STRICT_RULES) == expected
    assert sure_side(kart(75 + dx, 10), kart(75, 50), COURSE_RULES) == side(kart(75 + dx, 10), kart(75, 50))


def standing(cy: int, low: int, distance: float | None = None) -> Kart:
    """A kart with its centre at cy and its lower edge at `low`, px of 150x100."""
    return Kart(0, "tux", (40, 2 * cy - low, 60, low), distance)


@pytest.mark.parametrize(
    ("kart", "expected"),
    [
        (standing(30, 40), "front"),
        (standing(48, 58), Reason.LEVEL),
        (standing(40, 61), Reason.DEPTH_DOUBT),  # higher, yet it stands lower: tall and near
        (standing(60, 75), "back"),
        (standing(30, 40, 9.0), "front"),
        (standing(30, 70, 9.0), "front"),  # the distance knows better than the lower edge
        (standing(30, 40, 4.7), Reason.DEPTH_DOUBT),  # farther by less than a fifth
        (standing(30, 40, 3.0), Reason.DEPTH_DOUBT),
        (standing(60, 75, 9.0), Reason.DEPTH_DOUBT),
    ],
)
def test_front_and_back_are_declined_where_picture_and_distance_disagree(kart, expected):
    ego = standing(50, 60, 4.0 if kart.distance else None)
    assert sure_depth(kart, ego, STRICT_RULES) == expected
    assert sure_depth(kart, ego, COURSE_RULES) == depth(kart, ego)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (standing(50, 60, 4.0), standing(50, 60, 4.8), True),
        (standing(50, 60, 4.8), standing(50, 60, 4.0), False),
        (standing(50, 60, 4.0), standing(50, 60, 4.7), Reason.EQUALLY_FAR),
        (standing(53, 60), standing(45, 50), True),  # 14 px tall against 10, standing lower
        (standing(45, 50), standing(53, 60), False),
        (standing(54, 60), standing(45, 50), Reason.EQUALLY_FAR),  # 12 px against 10
        (standing(40, 60), standing(60, 65), Reason.EQUALLY_FAR),  # taller, but standing higher
        (standing(53, 60, 4.0), standing(45, 50), True),  # a distance of one says nothing about two
    ],
)
def test_nearer_needs_a_margin(one, other, expected):
    assert sure_nearer(one, other, STRICT_RULES) == expected
