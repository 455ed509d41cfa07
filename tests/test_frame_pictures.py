"""Contact sheets and pictures with their karts marked carry their captions; views are drawn by seed."""

from figure_texts import texts

from stkvlm_lib.data.frames import View
from stkvlm_lib.exploration.frame_pictures import contact_sheet, draw_views, overlay, overlays
from stkvlm_lib.figures.drawing import ROLE_COLOURS
from stkvlm_lib.grammar.scene import read_scene


def test_contact_sheet_and_overlays_caption_every_picture(bundled):
    views = bundled.views("valid")[:7]
    sheet = contact_sheet(views, columns=3)
    assert sum(bool(axes.images) for axes in sheet.axes) == 7
    said = texts(overlays(views[:3]))
    assert all(view.image_file in said for view in views[:3]) and views[3].image_file not in said
    assert all(role in said for role in ROLE_COLOURS)
    assert "No pictures." in texts(contact_sheet([]))


def test_one_picture_says_its_track_and_karts(bundled):
    view = bundled.views("valid")[0]
    n = len(read_scene(view).karts)
    assert f"{view.frame.track}, {n} kart" in texts(overlay(view)) and view.image_file in texts(overlay(view))
    assert "0 karts" in texts(overlay(View(view.frame, view.index, ())))


def test_views_are_drawn_by_seed_among_those_with_enough_karts(bundled):
    drawn = draw_views(bundled, "valid", 5, seed=1, min_karts=4)
    assert drawn == draw_views(bundled, "valid", 5, seed=1, min_karts=4) != draw_views(bundled, "valid", 5, seed=2)
    assert len(drawn) == 5 and all(len(read_scene(view).karts) >= 4 for view in drawn)
    assert draw_views(bundled, "valid", 5, seed=1, min_karts=99) == []
