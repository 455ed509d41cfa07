"""The view on show as a picture, for the explorer."""

import io
from collections.abc import Iterable

from PIL import Image

from stkvlm_lib.explore.occlusion import OcclusionMap, draw_occlusion
from stkvlm_lib.explore.state import ExplorerState
from stkvlm_lib.figures.drawing import draw_overlay, enlarged

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
    image = draw_overlay(state.view, PICTURE_WIDTH, **on) if overlay else enlarged(state.view, PICTURE_WIDTH)
    return png(draw_occlusion(image, found) if found else image)


def png(image: Image.Image) -> bytes:
    """A picture as a file for an image widget, packed little: on one machine time counts, not size."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
