"""How the table in kart_extents was made: cameras around each kart, and depth with and without it."""

from collections.abc import Iterator, Sequence

import numpy as np

from stkvlm_lib.game import pystk_adapter as adapter
from stkvlm_lib.game.race_renderer import RacePlan, RenderSettings, running_race
from stkvlm_lib.game.view_truth import Extent, kart_points

TRACK = "lighthouse"
SETTINGS = RenderSettings((600, 400))
STARTED, MOMENTS, BETWEEN = 6.5, 5, 1.0
"""Seconds of game before the first look, looks, and seconds between them: a kart that turns, hops and steers."""
AROUND, AWAY, HEIGHTS = 8, 3.0, (0.3, 2.5)
"""Directions to look from, and metres from the kart, to the side and up."""
REACH = 3.0
"""Points further than this from the kart (metres) are none of it."""
STRAY = 0.05
"""Percent of the points at each end of an axis that may be strays."""


def measure_extents(karts: Sequence[str]) -> dict[str, Extent]:
    """Each kart's extent in its own coordinates, metres; the median over the looks, to the centimetre.

    Takes some seconds a kart. Raises RenderError when the game cannot be used.
    """
    return {kart: _measure(kart) for kart in karts}


def _measure(kart: str) -> Extent:
    plan = RacePlan(seed=1, track=TRACK, karts=(kart,), views=1, frames=1)
    looks = []
    with running_race(plan, SETTINGS) as race:
        race.play(STARTED)
        for _ in range(MOMENTS):
            race.play(BETWEEN)
            points = np.vstack(list(_points_around(race.game_race, race.cameras[0])))
            looks.append([np.percentile(points, STRAY, axis=0), np.percentile(points, 100 - STRAY, axis=0)])
    low, high = np.round(np.median(looks, axis=0), 2).tolist()
    return Extent(tuple(low), tuple(high))


def _points_around(game_race, camera: adapter.FollowCamera) -> Iterator[np.ndarray]:
    """What is seen of a kart from all around, one (n, 3) array a direction, in the kart's coordinates."""
    adapter.draw(game_race, [camera], 1)
    pose = adapter.read_model_pose(camera)
    right, up, forwards, origin = pose[:, :3]
    target = origin + 0.5 * up
    for angle in np.arange(AROUND) * 2 * np.pi / AROUND:
        for height in HEIGHTS:
            eye = target + AWAY * (np.sin(angle) * right + np.cos(angle) * forwards) + height * up
            adapter.place_camera(camera, eye, target)
            ((_, depth),) = adapter.draw(game_race, [camera], 1)
            ((_, without),) = adapter.draw(game_race, [camera], 1, hidden=[camera])
            view, projection = adapter.read_view(camera)
            points = kart_points(view, projection, pose, depth, without)
            yield points[np.abs(points).max(axis=1) < REACH]
