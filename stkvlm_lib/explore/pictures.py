"""The view on show as a picture: for the explorer, and as a figure with its questions for an executed notebook."""

import io
from collections.abc import Iterable

from matplotlib.figure import Figure
from PIL import Image

from stkvlm_lib.explore.occlusion import OcclusionMap, draw_occlusion
from stkvlm_lib.explore.rows import Row
from stkvlm_lib.explore.state import NOTHING_LEFT, ExplorerState
from stkvlm_lib.figures.drawing import draw_overlay
from stkvlm_lib.figures.style import BLACK, GREEN, GREY, VERMILLION, Chart
from stkvlm_lib.figures.style import message as message_figure

PICTURE_WIDTH = 1200
"""Width in px of the picture sent, or nearly: more than is shown, so that it is crisp on fine screens too."""
DETAILS = {"zones": "Zones", "shares": "Visible share", "limit": "5 px limit"}
"""Parts of the overlay with a switch of their own, beside boxes and names."""


def picture_png(
    state: ExplorerState, overlay: bool = True, details: Iterable[str] = (), found: OcclusionMap | None = None
) -> bytes:
    """The picture on show, enlarged, as PNG; empty when there is none.

    overlay: mark the karts; details: with these parts of DETAILS. found: a map to draw over the boxes.
    """
    if not state.view:
        return b""
    on = {name: name in details for name in DETAILS} | {"zone_names": "zones" in details}
    if found:  # names and lines would hide it
        on = dict.fromkeys(on, False) | {"names": set()}
    image = draw_overlay(state.view, PICTURE_WIDTH, karts=overlay, **on)
    return png(draw_occlusion(image, found) if found else image)


def png(image: Image.Image) -> bytes:
    """A picture as a file for an image widget, packed little: on one machine time counts, not size."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def static_picture(state: ExplorerState) -> Figure:
    """The view on show and its questions as a figure, for readers of the executed notebook."""
    if not state.view:
        return message_figure(NOTHING_LEFT)
    rows = state.rows()
    picture = draw_overlay(state.view, 1280, text=0.03)
    width, line, wide = 9.6, 0.2, 4.4  # inches: figure, line of text, picture
    high = wide * picture.height / picture.width
    height = max(high + 0.3, line * (len(rows) + 2))
    chart = Chart(figsize=(width, height))
    axes = chart.add_axes((0, 1 - (0.3 + high) / height, wide / width, high / height))
    axes.imshow(picture, interpolation="antialiased")
    axes.set_axis_off()
    chart.text(0, 1, f"{state.position()} · {state.place()}", va="top", fontsize=9)
    for number, row in enumerate(rows):
        _static_row(chart, wide / width + 0.015, 1 - (0.42 + number * line) / height, row)
    return chart


def _static_row(chart: Figure, x: float, y: float, row: Row) -> None:
    ink = BLACK if row.matches else GREY
    mark, colour = {True: ("✓", GREEN), False: ("✗", VERMILLION), None: ("", ink)}[row.correct]
    truth = row.record.answer
    answer = truth if row.prediction is None else f"{row.prediction or '(nothing)'} ({row.confidence:.0%})"
    if row.correct is False:
        answer += f", label: {truth}"
    chart.text(x, y, row.record.question, va="center", fontsize=7.5, color=ink)
    chart.text(0.775, y, mark, va="center", fontsize=8, color=colour, fontweight="bold")
    chart.text(0.795, y, answer, va="center", fontsize=7.5, color=ink)
