"""Karts marked by their role, and the parts of the overlay that can be switched on and off."""

import json

import numpy as np
import pytest
from PIL import Image

from stkvlm_lib.data.frames import Detection, Frame, View
from stkvlm_lib.figures.drawing import ROLE_COLOURS, TOO_SMALL, draw_overlay, enlarged, marks

EGO = Detection(1, 0, (260, 160, 340, 240), 0.75)
"""In the middle: the zone lines cross at 300, 200 px of a picture 600 px wide."""


def view_of(folder, *detections):
    Image.new("RGB", (150, 100), (90, 90, 90)).save(folder / "00000_00_im.jpg")
    return View(Frame(folder, "all", "00000", "abyss", ("tux", "gnu"), "r"), 0, detections)


def changes(view, **parts):
    """Where a part of the overlay differs from the overlay without it: rows and columns in a 600x400 px picture."""
    without = np.asarray(draw_overlay(view, 600), int)
    return np.argwhere((np.asarray(draw_overlay(view, 600, **parts), int) != without).any(-1))


def has_colour(image, colour):
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((np.asarray(image) == wanted).all(-1).any())


def test_zones_are_named_at_the_ends_of_the_level_line(tmp_path):
    found = changes(view_of(tmp_path, EGO), zone_names=True)
    assert len(found) and abs(found[:, 0] - 200).max() < 40, "close to the line, above and below"
    assert (found[:, 1] < 150).any() and (found[:, 1] > 450).any(), "at both ends"
    assert not ((found[:, 1] > 200) & (found[:, 1] < 400)).any(), "away from the ego kart"
    drawn = draw_overlay(view_of(tmp_path, EGO), 600, zone_names=True)
    for zone in ("front and left", "front and right", "back and left", "back and right"):
        assert has_colour(drawn, ROLE_COLOURS[zone])


@pytest.mark.parametrize(("box", "missing"), [((0, 160, 20, 240), "left"), ((260, 0, 340, 20), "front")])
def test_a_zone_without_room_is_not_named(tmp_path, box, missing):
    drawn = draw_overlay(view_of(tmp_path, Detection(1, 0, box)), 600, zone_names=True)
    for zone in ("front and left", "front and right", "back and left", "back and right"):
        assert has_colour(drawn, ROLE_COLOURS[zone]) == (missing not in zone)


def test_a_zone_name_moves_in_from_a_kart_at_the_edge(tmp_path):
    gnu = Detection(1, 1, (0, 205, 60, 260))
    drawn = np.asarray(draw_overlay(view_of(tmp_path, EGO, gnu), 600, zone_names=True, names=set()), int)
    green = [int(ROLE_COLOURS["back and left"][i : i + 2], 16) for i in (1, 3, 5)]
    columns = np.nonzero((drawn[:, 70:290] == green).all(-1))[1]
    assert len(columns) and columns.min() < 40, "right of the box, which ends at 60"


def test_shares_are_written_where_they_are_known(tmp_path):
    assert len(changes(view_of(tmp_path, EGO), shares=True))
    assert not len(changes(view_of(tmp_path, Detection(1, 0, EGO.box)), shares=True))
    assert [mark.visible for mark in marks(view_of(tmp_path, EGO))] == [0.75]


def test_the_limit_is_drawn_at_its_size_in_the_corner(tmp_path):
    drawn = np.asarray(draw_overlay(view_of(tmp_path), 600, limit=True), int)
    grey = [int(ROLE_COLOURS[TOO_SMALL][i : i + 2], 16) for i in (1, 3, 5)]
    rows, columns = np.nonzero((drawn == grey).all(-1))
    square = columns < 30  # left of the text
    assert rows[square].max() - rows[square].min() == 20, "5 px of 150x100 are 20 px of 600x400"
    assert rows.min() > 360 and columns.max() < 120


@pytest.mark.parametrize("box", [(60, 120, 300, 280), (20, 120, 420, 300)])
def test_no_zone_name_covers_the_ego_kart(tmp_path, box):
    found = changes(view_of(tmp_path, Detection(1, 0, box)), zone_names=True, names=set())
    x1, y1, x2, y2 = box
    inside = (found[:, 1] > x1) & (found[:, 1] < x2) & (found[:, 0] > y1) & (found[:, 0] < y2)
    assert len(found) and not inside.any()


def test_a_large_picture_is_shown_at_the_width_that_is_asked_for(tmp_path):
    view = view_of(tmp_path, EGO)
    Image.effect_noise((4000, 2667), 60).convert("RGB").save(view.image_path)
    drawn = draw_overlay(view, 1200, zone_names=True)
    assert drawn.size == (1200, 800) and has_colour(drawn, ROLE_COLOURS["ego"])


@pytest.fixture
def view(tmp_path):
    """A grey picture: tux in the middle, gnu front left, puffy back right, kiki too small."""
    Image.new("RGB", (150, 100), "#404040").save(tmp_path / "00001_00_im.jpg")
    boxes = [(280, 180, 320, 220), (80, 40, 160, 100), (440, 300, 520, 360), (400, 40, 416, 60)]
    rows = json.dumps([[1, i, *box] for i, box in enumerate(boxes)])
    return Frame(tmp_path, "all", "00001", "abyss", ("tux", "gnu", "puffy", "kiki"), "race-1", rows=(rows,)).views[0]


def test_marks_give_each_kart_its_role(view):
    roles = {mark.name: mark.role for mark in marks(view)}
    assert roles == {"tux": "ego", "gnu": "front and left", "puffy": "back and right", "kiki": TOO_SMALL}


def test_enlarging_keeps_every_pixel_a_square(view):
    large = enlarged(view, 600)
    assert large.size == (600, 400)
    assert np.array_equal(np.asarray(large)[::4, ::4], np.asarray(view.image()))
    assert enlarged(view, 60).size == (60, 40), "shrunk where there is less room than pixels"


def test_overlay_draws_only_the_roles_that_are_there(view):
    drawn = draw_overlay(view, 600)
    for role in ("ego", "front and left", "back and right", TOO_SMALL):
        assert has_colour(drawn, ROLE_COLOURS[role]), role
    for role in ("front and right", "back and left"):
        assert not has_colour(drawn, ROLE_COLOURS[role]), role


def test_names_and_zones_can_be_left_out(view):
    bare = np.asarray(draw_overlay(view, 600, names=set(), zones=False))
    named = np.asarray(draw_overlay(view, 600, names={"gnu"}, zones=False))
    changed = np.argwhere((bare != named).any(-1))
    assert len(changed) and changed[:, 1].max() < 300, "only gnu, at the left, gets its name"
    zones = np.asarray(draw_overlay(view, 600, names=set()))
    assert (bare[:, 300] != zones[:, 300]).any() and (bare[200] != zones[200]).any()


def test_view_without_karts_can_be_drawn(view):
    empty = View(view.frame, 0, ())
    assert np.array_equal(np.asarray(draw_overlay(empty, 600)), np.asarray(enlarged(empty, 600)))
