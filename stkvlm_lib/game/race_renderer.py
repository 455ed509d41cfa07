"""Frames of SuperTuxKart rendered in this process: one race at a time, pictures with exact truth.

Every kart is driven by the game; view v follows kart v. A saved frame is drawn while no time passes and no camera
moves, so which frames are drawn changes nothing of the race. Two drawings of a moment, with and without karts, give
each kart's own pixels (see view_truth).
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from stkvlm_lib.data.frames import BOX_FRAME, KART_CLASS
from stkvlm_lib.game import pystk_adapter as adapter
from stkvlm_lib.game.game_assets import DATA_VARIABLE, INSTALL_PACKAGES, RenderError, find_assets
from stkvlm_lib.game.kart_extents import EXTENTS
from stkvlm_lib.game.view_truth import see_karts

LENS = 75
"""Field of view (height) in degrees."""
STEP = 0.1
"""Seconds of game in one step; cameras look at their karts once a step."""
SETTLED = 1.0
"""Seconds of game after which every camera stands behind its kart, all of them still on the grid."""
LAPS = 50
"""More than any race here drives, so that no kart finishes."""
DIFFICULTY = 2
_STARTED_SIZES: list[tuple[int, int]] = []


@dataclass(frozen=True)
class RacePlan:
    """One race: what decides its course, and which moments of it become frames.

    `karts`: one name a kart, in the order of their ids; `views`: how many of them are followed, from the first on;
    `warm_up`: seconds of game before frame 0 (the countdown takes about six of them).
    """

    seed: int
    track: str
    karts: tuple[str, ...]
    views: int
    frames: int
    seconds_between: float = 2.0
    warm_up: float = 8.0
    reverse: bool = False


@dataclass(frozen=True)
class RenderedFrame:
    """Frame `number` of a race: its truth as it is saved, and one picture a view, (H, W, 3) uint8."""

    number: int
    info: dict
    images: list[np.ndarray]


@dataclass
class RunningRace:
    """The race that the game plays now."""

    game: Any
    game_race: Any
    cameras: list[adapter.FollowCamera]
    milliseconds: int = 0

    def play(self, seconds: float) -> None:
        """Play on for some seconds, rounded to whole steps. Draws nothing."""
        for _ in range(round(seconds / STEP)):
            self.milliseconds += round(STEP * 1000)
            adapter.set_clock(self.milliseconds)
            adapter.play(self.game_race, self.cameras, STEP)


def render_race(
    plan: RacePlan,
    size: tuple[int, int],
    *,
    skip: frozenset[int] = frozenset(),
    on_frame: Callable[[int], None] | None = None,
) -> Iterator[RenderedFrame]:
    """Render a race's frames in order, those in `skip` played past. `on_frame(n)` is called before frame n is drawn.

    size: width and height of the pictures, px.
    Raises RenderError when the game, its data or a usable build is missing, or the plan asks for what there is not.
    """
    with running_race(plan, size) as race:
        _check_cameras(race, plan.views)
        race.play(plan.warm_up - SETTLED)
        for number in range(plan.frames):
            if number:
                race.play(plan.seconds_between)
            if number not in skip:
                if on_frame:
                    on_frame(number)
                yield draw_frame(race, plan, size, number)


@contextlib.contextmanager
def running_race(plan: RacePlan, size: tuple[int, int]) -> Iterator[RunningRace]:
    """A race that has just been started, and is stopped at the end. Raises RenderError."""
    game = start_game(size)
    if plan.track not in (known := game.list_tracks()):
        raise RenderError(f"race {plan.seed}: no track {plan.track!r}; there are {', '.join(sorted(known))}")
    adapter.forget_random_state(plan.seed)
    adapter.set_clock(0)
    race = RunningRace(game, game.Race(_race_config(game, plan)), [])
    try:
        race.game_race.start()
        race.cameras += adapter.read_cameras(len(plan.karts))
        for camera in race.cameras:
            adapter.set_lens(camera, LENS, size[0] / size[1])
        yield race
    finally:
        race.game_race.stop()
        # The game refuses another race while this one is held anywhere.
        race.game_race = None


def start_game(size: tuple[int, int]) -> Any:
    """Start the game, once a process; returns the module pystk2. Raises RenderError."""
    game = adapter.load_game()
    if _STARTED_SIZES:
        if size not in _STARTED_SIZES:
            raise RenderError(
                f"the game runs at {_STARTED_SIZES[0]} in this process and can start only once; "
                f"render at {size} in another process"
            )
        return game
    _prepare_environment()
    graphics = game.GraphicsConfig.ld()
    graphics.screen_width, graphics.screen_height = size
    graphics.display = False
    game.set_log_level(game.LogLevel.fatal)
    adapter.turn_off_anisotropy()
    try:
        game.init(graphics)
    except Exception as error:
        # It downloads its data with Python code of many libraries, which have as many kinds of error.
        raise RenderError(f"the game does not start ({error}); without internet, {INSTALL_PACKAGES}") from error
    _STARTED_SIZES.append(size)
    return game


def _prepare_environment() -> None:
    """No screen, one drawing thread a process, and the game's data; find_assets raises RenderError."""
    os.environ.pop("DISPLAY", None)
    os.environ.setdefault("LP_NUM_THREADS", "1")
    # Mesa looks for a screen there too, and complains when it is unset.
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
    assets = find_assets()
    if assets:
        os.environ[DATA_VARIABLE] = str(assets)


def _race_config(game: Any, plan: RacePlan) -> Any:
    config = game.RaceConfig()
    config.track, config.seed, config.reverse = plan.track, plan.seed, plan.reverse
    config.num_kart, config.laps, config.difficulty = len(plan.karts), LAPS, DIFFICULTY
    config.overlay, config.num_cameras, config.step_size = False, 0, STEP
    config.players.clear()
    for kart in plan.karts:
        player = game.PlayerConfig()
        # The name would be drawn over the kart.
        player.kart, player.name = kart, ""
        player.controller = game.PlayerConfig.Controller.AI_CONTROL
        player.camera_mode = game.PlayerConfig.CameraMode.ON
        config.players.append(player)
    return config


def _check_cameras(race: RunningRace, views: int) -> None:
    """Raise RenderError when the cameras are not read right, with every kart still on the grid."""
    race.play(SETTLED)
    adapter.draw(race.game_race, race.cameras, views)
    poses = [adapter.read_model_pose(camera) for camera in race.cameras[:views]]
    adapter.check_views(_lenses(race, _state(race), views), poses)


def _state(race: RunningRace) -> Any:
    state = race.game.WorldState()
    state.update()
    return state


def _lenses(race: RunningRace, state: Any, views: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return [adapter.read_view(race.cameras[view], state.players[view]) for view in range(views)]


def draw_frame(race: RunningRace, plan: RacePlan, size: tuple[int, int], number: int) -> RenderedFrame:
    """The present moment as frame `number`."""
    drawn = adapter.draw(race.game_race, race.cameras, plan.views)
    without_karts = adapter.draw(race.game_race, race.cameras, plan.views, hidden=race.cameras)
    state = _state(race)
    poses = [adapter.read_model_pose(camera) for camera in race.cameras]
    extents = [EXTENTS[kart] for kart in plan.karts]
    lenses = _lenses(race, state, plan.views)
    seen = [
        see_karts(view, projection, poses, extents, depth, without)
        for (view, projection), (_, depth), (_, without) in zip(lenses, drawn, without_karts, strict=True)
    ]
    shown = [[kart for kart in view if not kart.is_hidden] for view in seen]
    hidden = [[kart for kart in view if kart.is_hidden] for view in seen]
    info = {
        # the five keys that the course's frames have
        "track": plan.track,
        "karts": list(plan.karts),
        "detections": [[[KART_CLASS, kart.kart, *kart.box] for kart in view] for view in shown],
        "distance_down_track": [round(float(kart.distance_down_track), 3) for kart in state.karts],
        "velocity": [_rounded(kart.velocity, 3) for kart in state.karts],
        # of each detection, lists as `detections`
        "visible": [[round(kart.visible, 3) for kart in view] for view in shown],
        "pixels": [[kart.pixels for kart in view] for view in shown],
        "distance": [[round(kart.distance, 2) for kart in view] for view in shown],
        "in_image": [[round(kart.in_image, 3) for kart in view] for view in shown],
        "box_raw": [[_rounded(kart.box_raw, 1) for kart in view] for view in shown],
        # of each view
        "hidden": [[[KART_CLASS, kart.kart, *_rounded(kart.box_raw, 1)] for kart in view] for view in hidden],
        "box_frame": list(BOX_FRAME),
        "image_size": list(size),
        "view": [_rounded(view, 5) for view, _ in lenses],
        "projection": [_rounded(projection, 6) for _, projection in lenses],
        "fov": LENS,
        # of each kart, and of the race
        "model_pose": [[*_rounded(pose[:3, :3].ravel(), 5), *_rounded(pose[3, :3], 3)] for pose in poses],
        "location": [_rounded(kart.location, 3) for kart in state.karts],
        "rotation": [_rounded(kart.rotation, 5) for kart in state.karts],
        "size": [_rounded(kart.size, 3) for kart in state.karts],
        "position": [int(kart.position) for kart in state.karts],
        "laps": [int(kart.finished_laps) for kart in state.karts],
        "overall_distance": [round(float(kart.overall_distance), 3) for kart in state.karts],
        "time": round(float(state.time), 3),
        "race": plan.seed,
        "race_seed": plan.seed,
        "frame": number,
        "reverse": plan.reverse,
    }
    return RenderedFrame(number, info, [image for image, _ in drawn])


def _rounded(values: Any, digits: int) -> list:
    """Nested lists of rounded floats; minus zero becomes zero, so that equal truth is written alike."""
    return (np.round(np.asarray(values, dtype=np.float64), digits) + 0.0).tolist()
