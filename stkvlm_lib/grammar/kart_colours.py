"""Which colour each kart has, as a basic colour term, and how that was measured from frames.

A kart seen by the camera that follows it looks much the same in every race, and what is behind it does not. So its
pictures are laid over each other: pixels that stay the same from track to track are the kart, and their colours count.
"""

from collections import defaultdict
from collections.abc import Iterable
from colorsys import rgb_to_hsv
from dataclasses import dataclass
from math import ceil

import numpy as np
from PIL import Image

from stkvlm_lib.data.frames import BOX_FRAME, KART_CLASS, Detection, View

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey")
"""The basic colour terms of English (Berlin and Kay, 1969), spelled as here."""
KART_COLOURS = {
    "emule": "red",
    "nolok": "green",
    "pidgin": "purple",
    "puffy": "green",
    "tux": "red",
    "xue": "blue",
}
"""Kart -> its colour: measured, looked at, and the same in the released game as in the course's frames."""
UNCLEAR_KARTS = {
    "adiumy": "a green driver on a cream kart",
    "amanda": "between blue and purple",
    "beastie": "red in front, black behind; not in the released game",
    "gavroche": "a grey kart under a brown and purple driver",
    "gnu": "red and orange; green in the course's frames",
    "hexley": "blue and pink; not in the released game",
    "kiki": "white, pink and grey",
    "konqi": "blue here, orange in the course's frames",
    "sara_the_racer": "red and yellow; blue in the course's frames",
    "sara_the_wizard": "turquoise, between blue and green",
    "suzanne": "yellow, but brown and black from a distance",
    "wilber": "orange, blue, white and brown",
}
"""Kart -> why it has no one clear colour; no question about a colour is asked of it. The released game paints some
karts otherwise than the game of the course's frames did."""

SIDE = 32
"""Width and height in px to which pictures of a kart are brought before they are laid over each other."""
MIN_BOX = 48
"""Smallest side of a box that is measured, px in the 600x400 frame: smaller ones blur kart and road."""
MIN_TRACKS = 5
"""On fewer tracks a kart is not measured: what is behind it would look like a part of it."""
_MOST_PER_TRACK = 8
"""So many pictures of a kart on a track are enough."""
_SAME = 30
"""A pixel belongs to the kart when the middle half of the tracks spans at most this much of 255 per channel."""
_DARK, _LIGHT = 45, 190
"""Brightest channel of 0..255 under which a colour is black, and over which a colourless one is white."""
_SATURATED = 0.3
"""Under this saturation a colour is grey or white."""
_BROWN = (10, 50, 150)
"""Hues from 10 to 50 degrees whose brightest channel is under 150 of 255 are brown."""
_HUES = (
    (15, "red"),
    (42, "orange"),
    (68, "yellow"),
    (165, "green"),
    (190, "turquoise"),
    (255, "blue"),
    (320, "purple"),
    (345, "pink"),
    (360, "red"),
)
"""Upper bound of the hue in degrees -> colour. Turquoise stands between two basic terms; no kart is called it."""
_NO_PAINT = ("black", "grey", "white", "brown")
"""Tyres, shadows, drivers, and what the edge of a kart mixes to with a road: they do not count as a kart's colour."""
_SEEN, _PAINTED, _CLEAR, _LEAD = 0.3, 0.2, 0.6, 2.0
"""One clear colour: the kart fills this share of its box, paint this share of the kart, the colour this share of the
paint and so many times as much as the next."""


@dataclass(frozen=True, eq=False)
class KartColour:
    """What was measured of a kart.

    examples: one picture a track. picture: (SIDE, SIDE, 3) uint8 RGB, the median over tracks; mask: (SIDE, SIDE) bool,
    its pixels that are the kart. shares: colour -> share of the paint, the largest first. colour: the one clear colour
    that follows, or None.
    """

    kart: str
    examples: tuple[tuple[View, Detection], ...]
    picture: np.ndarray
    mask: np.ndarray
    shares: dict[str, float]
    colour: str | None


def measure_colours(views: Iterable[View]) -> dict[str, KartColour]:
    """Measure every kart that the views follow, fully visible and large enough, on MIN_TRACKS tracks or more."""
    found: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for view in views:
        for detection in view.detections:
            pile = found[view.frame.karts[view.index]][view.frame.track] if _is_measurable(view, detection) else None
            if pile is not None and len(pile) < _MOST_PER_TRACK:
                pile.append((view, detection))
    return {kart: _measure(kart, found[kart]) for kart in sorted(found) if len(found[kart]) >= MIN_TRACKS}


def _is_measurable(view: View, detection: Detection) -> bool:
    if detection.class_id != KART_CLASS or detection.object_id != view.index:
        return False
    x1, y1, x2, y2 = detection.box
    whole = x1 > 0 and y1 > 0 and x2 < BOX_FRAME[0] - 1 and y2 < BOX_FRAME[1] - 1
    uncovered = detection.visible is None or detection.visible >= 0.95
    return whole and uncovered and min(x2 - x1, y2 - y1) >= MIN_BOX


def cut_out(view: View, detection: Detection) -> Image.Image:
    """What a detection's box shows, in the picture's own pixels."""
    image = view.image()
    sx, sy = image.width / BOX_FRAME[0], image.height / BOX_FRAME[1]
    x1, y1, x2, y2 = detection.box
    return image.crop((int(x1 * sx), int(y1 * sy), max(int(x1 * sx) + 1, ceil(x2 * sx)), ceil(y2 * sy)))


def _measure(kart: str, by_track: dict[str, list[tuple[View, Detection]]]) -> KartColour:
    """The median over the tracks of the median over each track's pictures: every track counts once."""
    tracks = [by_track[track] for track in sorted(by_track)]
    looks = np.stack([np.median([_small(*seen) for seen in track], axis=0) for track in tracks])
    picture = np.median(looks, axis=0).astype(np.uint8)
    low, high = np.percentile(looks, (25, 75), axis=0)
    mask = (high - low).mean(axis=-1) <= _SAME
    names = np.array([colour_name(*pixel) for pixel in picture[mask].tolist()])
    painted = ~np.isin(names, _NO_PAINT)
    shares = _paint_shares(names[painted], picture[mask][painted])
    clear = mask.mean() >= _SEEN and painted.mean() >= _PAINTED
    return KartColour(
        kart, tuple(track[0] for track in tracks), picture, mask, shares, clear_colour(shares) if clear else None
    )


def _small(view: View, detection: Detection) -> np.ndarray:
    return np.asarray(cut_out(view, detection).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _paint_shares(names: np.ndarray, pixels: np.ndarray) -> dict[str, float]:
    """Colour -> share of the paint, by the names (N,) of pixels (N, 3); bright pixels count more than pale ones."""
    weights = np.ptp(pixels.astype(float), axis=-1)
    shares = {str(name): float(weights[names == name].sum() / weights.sum()) for name in set(names.tolist())}
    return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))


def clear_colour(shares: dict[str, float]) -> str | None:
    """The colour that stands out from the others, if one does and it is a basic colour term."""
    (name, most), (_, next_most) = [*shares.items(), ("", 0.0), ("", 0.0)][:2]
    return name if name in COLOURS and most >= _CLEAR and most >= _LEAD * next_most else None


def colour_name(red: float, green: float, blue: float) -> str:
    """The basic colour term (or turquoise) of an RGB colour of 0..255, by its hue, saturation and brightness."""
    hue, saturation, most = rgb_to_hsv(red, green, blue)
    hue = round(360 * hue, 9)  # so that a hue on a bound below stands on it
    if most < _DARK:
        return "black"
    if saturation < _SATURATED:
        return "white" if most > _LIGHT else "grey"
    low, high, dark = _BROWN
    if low <= hue <= high and most < dark:
        return "brown"
    return next(name for bound, name in _HUES if hue <= bound)
