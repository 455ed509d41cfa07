"""What PySuperTuxKart2 0.7.4 does not offer itself: its cameras, the drawn karts, and drawing without playing on.

The library exports its C++ symbols, so they are reached through ctypes. The byte offsets are those of the wheel of
0.7.4. Another build is refused: when a symbol is missing, when an offset leads to something that is no object of the
library, or when a followed kart does not stand in the middle of its own view. Where a later version fills
`Player.camera`, that is used.

The game draws when its pictures are asked for after a step, once for each camera in its list. Here they are asked for
after steps of zero seconds alone, with the cameras held still, so playing never depends on what was drawn.
"""

import ctypes
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from stkvlm_lib.game.game_assets import DEBIAN_PACKAGES, RenderError

MADE_FOR = "PySuperTuxKart2 0.7.4"
INSTALL = 'pip install -e ".[render]"'
CAMERA_FOV, CAMERA_ASPECT, CAMERA_NODE, CAMERA_KART = 128, 132, 136, 144
KART_NODE = 376
SETTING_VALUE, ANISOTROPY_AS_SHIPPED = 80, 4
POINTER = 8
MIDDLE = ((0.2, 0.8), (0.2, 1.0))
"""Where a followed kart stands in its own view: shares of the width and of the height."""
PLAUSIBLE_METRES = (0.5, 30.0)


@dataclass(frozen=True)
class FollowCamera:
    """One camera of the running race: addresses of it, its scene node, its kart, and the drawn kart's scene node."""

    address: int
    node: int
    kart: int
    model: int


@functools.cache
def load_game() -> ModuleType:
    """The module pystk2. Raises RenderError when it is missing."""
    try:
        import pystk2
    except ImportError as error:
        raise RenderError(
            f"rendering needs {MADE_FOR} ({error}): {INSTALL}, and Debian's packages {DEBIAN_PACKAGES}"
        ) from None
    return pystk2


def turn_off_anisotropy() -> None:
    """Before the game starts: no anisotropic texture filter.

    Mesa's software renderer loops over the filter's footprint, which is next to endless for some surfaces; pictures
    that take seconds or never end come from it.
    """
    value = ctypes.c_int.from_address(_address("_ZN16UserConfigParams13m_anisotropicE") + SETTING_VALUE)
    if value.value not in (0, ANISOTROPY_AS_SHIPPED):
        raise _other_build("the setting for anisotropy is elsewhere")
    value.value = 0


def forget_random_state(seed: int) -> None:
    """Before a race is made: leave no random state of an earlier race of this process.

    The game seeds its generator only when the seed differs from the last one, so it is seeded with another one here.
    """
    ctypes.c_uint.from_address(_address("_ZN15RandomGenerator14m_random_valueE")).value = (seed + 1) % 2**32
    _function("_ZN15RandomGenerator12getGeneratorEv", ctypes.c_void_p)()
    ctypes.CDLL(None).srand(ctypes.c_uint(seed % 2**32))


def set_clock(milliseconds: int) -> None:
    """Set the clock that moves animated scenery, and keep it from running with the wall's."""
    _function("_ZN3irr2os5Timer8setSpeedEf", None, ctypes.c_float)(0.0)
    _function("_ZN3irr2os5Timer7setTimeEj", None, ctypes.c_uint)(milliseconds)


def read_cameras(count: int) -> list[FollowCamera]:
    """The cameras of the race that has just started, `count` of them; camera i follows kart i."""
    begin, end, _ = (value or 0 for value in _camera_list())
    if end - begin != POINTER * count:
        raise _other_build(f"{(end - begin) / POINTER:g} cameras for {count} karts")
    is_object = _object_test()
    cameras = []
    for index in range(count):
        address = _follow(begin + POINTER * index, is_object, "camera")
        kart = _follow(address + CAMERA_KART, is_object, "camera's kart")
        node = _follow(address + CAMERA_NODE, is_object, "camera's scene node")
        cameras.append(FollowCamera(address, node, kart, _follow(kart + KART_NODE, is_object, "kart's scene node")))
    return cameras


def set_lens(camera: FollowCamera, degrees: float, aspect: float) -> None:
    """Give a camera its field of view (height, in degrees) and its ratio of width to height."""
    ctypes.c_float.from_address(camera.address + CAMERA_FOV).value = math.radians(degrees)
    ctypes.c_float.from_address(camera.address + CAMERA_ASPECT).value = aspect
    _function("_ZN3irr5scene16CCameraSceneNode6setFOVEf", None, ctypes.c_void_p, ctypes.c_float)(
        camera.node, math.radians(degrees)
    )
    _function("_ZN3irr5scene16CCameraSceneNode14setAspectRatioEf", None, ctypes.c_void_p, ctypes.c_float)(
        camera.node, aspect
    )


def read_view(camera: FollowCamera, player: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """(view, projection) as 4x4 arrays for row vectors: clip = [x y z 1] @ view @ projection. Right once drawn."""
    if getattr(player, "camera", None) is not None:
        return np.array(player.camera.view).reshape(4, 4), np.array(player.camera.projection).reshape(4, 4)
    view = _function("_ZNK3irr5scene16CCameraSceneNode13getViewMatrixEv", ctypes.c_void_p, ctypes.c_void_p)
    lens = _function("_ZNK3irr5scene16CCameraSceneNode19getProjectionMatrixEv", ctypes.c_void_p, ctypes.c_void_p)
    return _matrix(view(camera.node)), _matrix(lens(camera.node))


def read_model_pose(camera: FollowCamera) -> np.ndarray:
    """The 4x4 pose of the drawn kart that a camera follows, for row vectors: world = [x y z 1] @ pose."""
    name = "_ZNK3irr5scene10ISceneNode25getAbsoluteTransformationEv"
    return _matrix(_function(name, ctypes.c_void_p, ctypes.c_void_p)(camera.model))


def play(race: Any, cameras: Sequence[FollowCamera], seconds: float) -> None:
    """One step of the game. It draws nothing, because no picture is asked for."""
    race.config.step_size = seconds
    _activate(cameras)
    race.step()


def draw(
    race: Any, cameras: Sequence[FollowCamera], views: int, hidden: Sequence[FollowCamera] = ()
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The present moment as the first `views` cameras see it: (picture, depth) of each.

    Karts that the cameras in `hidden` follow are left out. No game time passes and no camera moves. Picture: (H, W, 3)
    uint8; depth: (H, W) float32 in 0..1.
    """
    race.config.step_size = 0.0
    set_visible = _function("_ZN3irr5scene10ISceneNode10setVisibleEb", None, ctypes.c_void_p, ctypes.c_bool)
    listed = _camera_list()
    end = listed[1]
    try:
        listed[1] = listed[0] + POINTER * views
        for camera in cameras:  # without a kart it stays where it is; even a step of zero seconds would move it
            ctypes.c_void_p.from_address(camera.address + CAMERA_KART).value = None
        for camera in hidden:
            set_visible(camera.model, False)
        _activate(cameras)
        race.step()
        return [(np.array(data.image), np.array(data.depth)) for data in race.render_data[:views]]
    finally:
        for camera in hidden:
            set_visible(camera.model, True)
        for camera in cameras:
            ctypes.c_void_p.from_address(camera.address + CAMERA_KART).value = camera.kart
        listed[1] = end


def check_views(lenses: Sequence[tuple[np.ndarray, np.ndarray]], poses: Sequence[np.ndarray]) -> None:
    """Raise RenderError unless each followed kart stands in the middle of its own view.

    `lenses`: (view, projection) of each camera; `poses`: of the kart that each follows.
    """
    bad = [
        index
        for index, ((view, projection), pose) in enumerate(zip(lenses, poses, strict=True))
        if not _in_the_middle(view, projection, pose)
    ]
    if bad:
        raise _other_build(f"followed karts are not in the middle of their own views {bad}")


def _in_the_middle(view: np.ndarray, projection: np.ndarray, pose: np.ndarray) -> bool:
    seen = pose[3] @ view
    clip = seen @ projection
    if not np.isfinite(clip).all() or clip[3] <= 0:
        return False
    across, down = (clip[0] / clip[3] + 1) / 2, (1 - clip[1] / clip[3]) / 2
    (left, right), (top, bottom) = MIDDLE
    near, far = PLAUSIBLE_METRES
    return bool(left <= across <= right and top <= down <= bottom and near <= np.linalg.norm(seen[:3]) <= far)


def _other_build(what: str) -> RenderError:
    return RenderError(
        f"this build of PySuperTuxKart2 cannot be read ({what}); cameras are read for {MADE_FOR} on Linux x86_64: "
        f"{INSTALL}"
    )


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(load_game().__file__)


@functools.cache
def _function(name: str, result: Any, *arguments: Any) -> Any:
    try:
        function = getattr(_library(), name)
    except AttributeError:
        raise _other_build(f"no symbol {name}") from None
    function.restype, function.argtypes = result, arguments
    return function


def _address(symbol: str) -> int:
    try:
        return ctypes.addressof(ctypes.c_char.in_dll(_library(), symbol))
    except ValueError:
        raise _other_build(f"no symbol {symbol}") from None


def _camera_list() -> ctypes.Array:
    """The game's vector of cameras: begin, end, end of storage."""
    return (ctypes.c_void_p * 3).from_address(_address("_ZN6Camera13m_all_camerasE"))


def _matrix(address: int) -> np.ndarray:
    return np.array((ctypes.c_float * 16).from_address(address), dtype=np.float64).reshape(4, 4)


def _follow(address: int, is_object: Callable[[int], bool], what: str) -> int:
    """The pointer at an address; RenderError unless it leads to an object of the library."""
    target = ctypes.c_void_p.from_address(address).value or 0
    if not is_object(target):
        raise _other_build(f"no {what} where {MADE_FOR} has it")
    return target


def _object_test() -> Callable[[int], bool]:
    """Tells whether an address is readable and holds an object whose table of methods is the library's."""
    library, readable, own = str(Path(load_game().__file__).resolve()), [], []
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        span, rights, *rest = line.split(maxsplit=5)
        begin, end = (int(part, 16) for part in span.split("-"))
        if rights.startswith("r"):
            readable.append((begin, end))
            if rest[-1].endswith(library):
                own.append((begin, end))

    def within(address: int, spans: list[tuple[int, int]]) -> bool:
        return any(begin <= address and address + POINTER <= end for begin, end in spans)

    def is_object(address: int) -> bool:
        if address % POINTER or not within(address, readable):
            return False
        return within(ctypes.c_void_p.from_address(address).value or 0, own)

    return is_object


def _activate(cameras: Sequence[FollowCamera]) -> None:
    """Make the cameras the active ones in turn, in the scene too; without one, some tracks (mines) end the process."""
    for camera in cameras:
        _function("_ZN6Camera8activateEb", None, ctypes.c_void_p, ctypes.c_bool)(camera.address, True)
