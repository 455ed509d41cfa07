"""Pictures side by side, and questions on their pictures."""

import numpy as np
import pytest
from figure_texts import texts
from hand_made import TUX, answered, draw_picture, frame_set, make_view

from stkvlm_lib.data.frames import FramesError
from stkvlm_lib.figures.tiles import question_tiles, show_question, tile_figure, wrapped


@pytest.fixture
def view(tmp_path):
    return draw_picture(make_view({"tux": TUX, "gnu": (20, 10, 40, 25)}, folder=tmp_path))


def pick(view, family):
    return next(p for p in answered(view) if p.family == family)


def test_questions_stand_under_their_pictures(view):
    rows = [(pick(view, name), f"about {name}") for name in ("ego", "left_right", "track", "count")]
    chart = question_tiles(frame_set(view), rows)
    assert [axes.texts[0].get_text() for axes in chart.axes] == [text for _, text in rows]
    assert all(len(axes.images) == 1 for axes in chart.axes)


def test_zones_and_the_kart_asked_about_are_marked_only_where_they_are_asked_for(view):
    drawn = {}
    for family in ("ego", "track", "left_right"):
        _, (axes,) = tile_figure(1, 1, lines=1)
        show_question(axes, frame_set(view), pick(view, family))
        drawn[family] = np.asarray(axes.images[0].get_array())
    assert np.array_equal(drawn["ego"], drawn["track"]), "neither asks where something is"
    assert not np.array_equal(drawn["ego"], drawn["left_right"])


def test_a_picture_that_is_not_there_is_named(view):
    row = pick(view, "ego")
    with pytest.raises(FramesError, match=r"no picture .*; give the data folder the questions were made of"):
        question_tiles(frame_set(make_view({"tux": TUX}, race="r2")), [(row, "?")])


def test_an_empty_figure_says_so_and_tiles_do_not_overlap():
    chart, tiles = tile_figure(0, 3, lines=1)
    assert tiles == [] and "No pictures." in texts(chart)
    _, tiles = tile_figure(5, 3, lines=2)
    boxes = [axes.get_position() for axes in tiles]
    assert len(boxes) == 5 and not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_a_long_question_is_cut_to_two_lines():
    assert wrapped("short") == "short"
    lines = wrapped("word " * 60).splitlines()
    assert len(lines) == 2 and lines[1].endswith(" …") and max(map(len, lines)) <= 48
