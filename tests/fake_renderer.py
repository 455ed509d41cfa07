"""A renderer without the game: the same truth for the same race, and races that hang, crash or raise on purpose."""

import os
import time
from pathlib import Path

import numpy as np

from stkvlm_lib.game.race_renderer import RenderedFrame

NAME = "fake_renderer:render_race"
HANGS, CRASHES, RAISES = "sandtrack", "mines", "minigolf"
NEVER_STARTS, LOADS_FOREVER = "abyss", "fortmagma"
BAD_FRAME = 1


def render_race(plan, size, *, skip=frozenset(), on_frame=None):
    if plan.track == NEVER_STARTS:
        os.write(2, b"warning: none\nno such driver\n")
        os._exit(7)
    if plan.track == LOADS_FOREVER:
        time.sleep(3600)
    for number in range(plan.frames):
        if number in skip:
            continue
        if on_frame:
            on_frame(number)
        trouble = number == BAD_FRAME and plan.track
        if trouble == HANGS:
            time.sleep(3600)
        elif trouble == CRASHES:
            os._exit(3)
        elif trouble == RAISES:
            raise ValueError("nothing to see")
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
        width, height = size
        images = [
            np.full((height, width, 3), (plan.seed + number + view) % 256, np.uint8) for view in range(plan.views)
        ]
        yield RenderedFrame(number, _truth(plan, number), images)


def _truth(plan, number):
    boxes = [[[1, view, 250 + number, 150, 350 + number, 250]] for view in range(plan.views)]
    return {
        "track": plan.track,
        "karts": list(plan.karts),
        "detections": boxes,
        "race_seed": plan.seed,
        "frame": number,
        "time": plan.warm_up + number * plan.seconds_between,
    }


def here() -> str:
    """The folder from which children import this module."""
    return str(Path(__file__).parent)
