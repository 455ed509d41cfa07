"""Views that hypothesis draws: any line-up, boxes of any size and place, with and without what a renderer measures."""

from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st

from stkvlm_lib.data.frames import Detection, Frame, View
from stkvlm_lib.grammar.names import KARTS, TRACKS

SETTINGS = settings(max_examples=300, deadline=None, derandomize=True, database=None)
"""The same examples in every run, and nothing kept on disk."""
_SIDES = st.one_of(st.integers(0, 40), st.integers(0, 200))
"""Half of the boxes are near the sizes at which karts begin to count as visible."""


_X = st.one_of(st.integers(0, 599), st.integers(240, 320))
_Y = st.one_of(st.integers(0, 399), st.integers(140, 220))
_BOXES = st.builds(lambda x, y, w, h: (x, y, min(599, x + w), min(399, y + h)), _X, _Y, _SIDES, _SIDES)
_MEASURED = st.tuples(st.floats(0, 1), st.integers(0, 4000), st.floats(0.5, 60))


@st.composite
def views(draw) -> View:
    """A view of a race of 2 to 8 karts; distances and visible pixels are given for all its detections or for none."""
    start, n = draw(st.integers(0, len(KARTS) - 1)), draw(st.integers(2, 8))
    line_up = tuple((KARTS * 2)[start : start + n])
    measured = draw(st.booleans())
    rows = []
    for kart, box in enumerate(draw(st.lists(_BOXES, max_size=n))):
        more = draw(_MEASURED) if measured else ()
        rows.append(Detection(draw(st.sampled_from((1, 1, 1, 2))), kart, box, *more))
    frame = Frame(Path("data"), "train", "00000", draw(st.sampled_from(TRACKS)), line_up, "race")
    return View(frame, draw(st.integers(0, n - 1)), tuple(rows))
