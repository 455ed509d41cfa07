"""Run in a process of its own by test_race_renderer: the game can start only once a process. Prints one JSON line.

python game_probe.py boxes TRACK     for each followed kart its box, and the box of what changes when it alone is hidden
python game_probe.py truth SKIPPED   the truth of a race's frames, some of them played past
"""

import json
import sys

import numpy as np

from stkvlm_lib.game import pystk_adapter as adapter
from stkvlm_lib.game.race_renderer import RacePlan, draw_frame, render_race, running_race

SIZE = (300, 200)
KARTS = ("tux", "konqi", "sara_the_racer", "wilber", "puffy")


def followed_boxes(track: str) -> list[dict]:
    plan = RacePlan(seed=11, track=track, karts=KARTS, views=3, frames=2)
    found = []
    with running_race(plan, SIZE) as race:
        race.play(plan.warm_up)
        for number in range(plan.frames):
            race.play(plan.seconds_between)
            frame = draw_frame(race, plan, SIZE, number)
            shown = adapter.draw(race.game_race, race.cameras, plan.views)
            for view in range(plan.views):
                hidden = adapter.draw(race.game_race, race.cameras, plan.views, hidden=[race.cameras[view]])
                rows, columns = np.nonzero(shown[view][1] != hidden[view][1])
                boxes = [row[2:] for row in frame.info["detections"][view] if row[1] == view]
                if len(rows):
                    changed = [2 * columns.min(), 2 * rows.min(), 2 * columns.max() + 1, 2 * rows.max() + 1]
                    found.append({"box": boxes[0] if boxes else None, "changed": [int(edge) for edge in changed]})
    return found


def truth(skipped: frozenset[int]) -> dict:
    plan = RacePlan(seed=11, track="lighthouse", karts=KARTS, views=2, frames=3)
    begun = []
    frames = list(render_race(plan, SIZE, skip=skipped, on_frame=begun.append))
    shapes = [image.shape for frame in frames for image in frame.images]
    return {"begun": begun, "infos": {frame.number: frame.info for frame in frames}, "shapes": shapes}


if __name__ == "__main__":
    what, value = sys.argv[1:]
    result = followed_boxes(value) if what == "boxes" else truth(frozenset(json.loads(value)))
    print(json.dumps(result))
