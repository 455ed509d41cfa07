"""Colour names, the measurement on painted pictures, and the table against the bundled frames."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from stkvlm_lib.data.frames import Detection, Frame, View
from stkvlm_lib.exploration.frame_pictures import colour_sheet
from stkvlm_lib.grammar.kart_colours import (
    COLOURS,
    KART_COLOURS,
    MIN_TRACKS,
    UNCLEAR_KARTS,
    clear_colour,
    colour_name,
    cut_out,
    measure_colours,
)
from stkvlm_lib.grammar.names import KARTS

BOX = (260, 160, 340, 240)
ROADS = ["#808080", "#a07040", "#e0e0e0", "#408030", "#303040", "#b0a080"]


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((200, 20, 20), "red"),
        ((230, 20, 60), "red"),
        ((240, 130, 20), "orange"),
        ((90, 60, 30), "brown"),
        ((240, 220, 40), "yellow"),
        ((30, 80, 30), "green"),
        ((40, 190, 190), "turquoise"),
        ((30, 90, 200), "blue"),
        ((110, 40, 130), "purple"),
        ((240, 60, 160), "pink"),
        ((20, 20, 30), "black"),
        ((40, 0, 0), "black"),
        ((120, 120, 110), "grey"),
        ((250, 250, 240), "white"),
    ],
)
def test_colour_names(rgb, name):
    assert colour_name(*rgb) == name


def test_every_colour_of_the_table_is_a_basic_term_and_every_kart_is_listed_once():
    assert set(KART_COLOURS.values()) <= set(COLOURS)
    assert sorted([*KART_COLOURS, *UNCLEAR_KARTS]) == KARTS
    assert all(UNCLEAR_KARTS.values())


def painted(folder: Path, paints: list[str], *, tracks: int = 6, box=BOX, kart: int = 0, visible=None) -> list[View]:
    """A view a track: a kart of horizontal stripes on the track's own road."""
    views = []
    for i in range(tracks):
        image = Image.new("RGB", (300, 200), ROADS[i])
        draw = ImageDraw.Draw(image)
        x1, y1, x2, y2 = (value // 2 for value in box)
        for stripe, paint in enumerate(paints):
            top = y1 + (y2 - y1) * stripe // len(paints)
            draw.rectangle((x1 + 4, top, x2 - 4, y1 + (y2 - y1) * (stripe + 1) // len(paints) - 1), fill=paint)
        frame = Frame(folder, "train", f"{i:05x}", f"track{i}", ("tux", "gnu"), "race")
        view = View(frame, 0, (Detection(1, kart, box, visible=visible),))
        image.save(view.image_path, quality=95)
        views.append(view)
    return views


@pytest.mark.parametrize(
    ("paints", "colour"),
    [
        (["#c81414"], "red"),
        (["#c81414", "#202020"], "red"),
        (["#c81414", "#1e5ac8"], None),
        (["#c81414", "#c81414", "#c81414", "#1e5ac8"], "red"),
        (["#28bebe"], None),
        (["#808080"], None),
    ],
)
def test_one_clear_colour_stands_out_from_the_others(tmp_path, paints, colour):
    """Tyres do not hide it, turquoise is no basic term, and a grey kart has no paint."""
    assert measure_colours(painted(tmp_path, paints))["tux"].colour == colour


def test_the_road_does_not_count(tmp_path):
    found = measure_colours(painted(tmp_path, ["#1e5ac8"]))["tux"]
    assert set(found.shares) == {"blue"} and found.shares["blue"] == pytest.approx(1)
    assert found.mask[:, 5:27].all() and not found.mask[:, :2].any() and not found.mask[:, -2:].any()
    assert len(found.examples) == 6


@pytest.mark.parametrize(
    "settings",
    [
        {"tracks": MIN_TRACKS - 1},
        {"box": (260, 160, 300, 200)},
        {"box": (0, 160, 80, 240)},
        {"kart": 1},
        {"visible": 0.5},
    ],
    ids=["few tracks", "small", "cut off", "not followed", "covered"],
)
def test_what_is_not_measured(tmp_path, settings):
    assert measure_colours(painted(tmp_path, ["#c81414"], **settings)) == {}


def test_shares_decide():
    assert clear_colour({"red": 0.61, "blue": 0.3}) == "red"
    assert clear_colour({"red": 0.59, "blue": 0.2}) is None
    assert clear_colour({"red": 0.65, "blue": 0.35}) is None
    assert clear_colour({"turquoise": 1.0}) is None
    assert clear_colour({}) is None


def test_cut_out_keeps_the_picture_s_pixels(tmp_path):
    (view, *_) = painted(tmp_path, ["#c81414"])
    assert cut_out(view, view.detections[0]).size == (40, 40)


@pytest.fixture(scope="module")
def measured(bundled):
    return measure_colours(view for split in bundled.splits for view in bundled.views(split))


def test_the_table_is_what_the_bundled_frames_show(measured):
    """Each colour of the table is measured again; karts that are measured clear but left out were looked at."""
    checked = set(KART_COLOURS) & set(measured)
    assert len(checked) >= 4
    assert {kart: measured[kart].colour for kart in checked} == {kart: KART_COLOURS[kart] for kart in checked}


def test_the_sheet_names_every_kart(measured, tmp_path):
    chart = colour_sheet(measured)
    texts = [text.get_text() for axes in chart.axes for text in axes.texts]
    assert [text for text in texts if ":" in text] == [
        f"{kart}: {KART_COLOURS[kart]}" if kart in KART_COLOURS else f"{kart}: no one colour ({UNCLEAR_KARTS[kart]})"
        for kart in KARTS
    ]
    assert sum(len(axes.images) for axes in chart.axes) == len(measured)
    chart.savefig(tmp_path / "sheet.png", dpi=30)
    assert np.asarray(Image.open(tmp_path / "sheet.png").convert("L")).std() > 10
