"""The game as a source of frames: truth from depth on made-up scenes, its data and build, and the game itself."""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from stkvlm_lib.game import game_assets, pystk_adapter, race_renderer
from stkvlm_lib.game.game_assets import RenderError, check_assets, find_assets, prepare_assets
from stkvlm_lib.game.kart_extents import EXTENTS
from stkvlm_lib.game.race_plans import KARTS
from stkvlm_lib.game.race_renderer import RacePlan
from stkvlm_lib.game.view_truth import Extent, box_of_pixels, project_extent, see_karts, share_in_image, view_depth

PROBE = Path(__file__).with_name("game_probe.py")
VIEW = np.eye(4)
PROJECTION = np.array([[0.868817, 0, 0, 0], [0, 1.303225, 0, 0], [0, 0, 1.001001, 1], [0, 0, -1.001001, 0]])
CUBE = Extent((-0.5, -0.5, -0.5), (0.5, 0.5, 0.5))


def pose(x=0.0, y=0.0, z=0.0, turned=0.0):
    """A kart's pose for row vectors, turned about the upright axis by radians."""
    cos, sin = np.cos(turned), np.sin(turned)
    return np.array([[cos, 0, -sin, 0], [0, 1, 0, 0], [sin, 0, cos, 0], [x, y, z, 1]])


def drawn(*plates, far=500.0):
    """OpenGL's depth (0..1, 300x200) of plates (metres, pixel box with open ends) before a wall at `far` metres."""
    metres = np.full((200, 300), far)
    for distance, (left, top, right, bottom) in plates:
        part = metres[top:bottom, left:right]
        metres[top:bottom, left:right] = np.minimum(part, distance)
    return ((PROJECTION[2, 2] + PROJECTION[3, 2] / metres + 1) / 2).astype(np.float32)


def see(poses, with_karts, without, extents=None):
    seen = see_karts(VIEW, PROJECTION, poses, extents or [CUBE] * len(poses), drawn(*with_karts), drawn(*without))
    return {kart.kart: kart for kart in seen}


def test_projection_is_that_of_a_pinhole_camera():
    # A cube of 1 m in the middle, its front face 9.5 m ahead: half a metre up is 0.5 / 9.5 * 1.303 of half the height.
    x1, y1, x2, y2 = project_extent(VIEW, PROJECTION, pose(z=10), CUBE)
    half_height, half_width = 0.5 / 9.5 * 1.303225 * 200, 0.5 / 9.5 * 0.868817 * 300
    assert (x1, x2) == pytest.approx((300 - half_width, 300 + half_width))
    assert (y1, y2) == pytest.approx((200 - half_height, 200 + half_height))


def test_a_turned_kart_is_wider():
    straight, turned = (project_extent(VIEW, PROJECTION, pose(z=10, turned=angle), CUBE) for angle in (0, np.pi / 4))
    assert turned[2] - turned[0] > 1.3 * (straight[2] - straight[0])


def test_an_extent_is_cut_at_the_near_plane_and_gone_behind_it():
    x1, _, x2, _ = project_extent(VIEW, PROJECTION, pose(x=0.3, z=0.6), CUBE)
    near = view_depth(np.zeros(1), PROJECTION)[0]
    assert near == pytest.approx(0.5, abs=0.001)
    assert (x1, x2) == pytest.approx(((1 - 0.2 / near * 0.868817) * 300, (1 + 0.8 / near * 0.868817) * 300))
    assert project_extent(VIEW, PROJECTION, pose(z=-3), CUBE) is None


def test_depth_is_read_as_metres():
    assert view_depth(drawn((7.0, (0, 0, 1, 1))), PROJECTION)[0, 0] == pytest.approx(7.0, rel=1e-5)


def test_a_box_is_around_a_karts_pixels_and_not_the_ground_beside_them():
    kart, ground = (9.8, (145, 95, 155, 104)), (9.9, (0, 104, 300, 200))
    found = see([pose(z=10)], [kart, ground], [ground])[0]
    assert found.box == (290, 190, 309, 207)
    assert (found.pixels, found.visible, found.in_image) == (90, 1.0, 1.0)
    assert found.distance == pytest.approx(10)


def test_a_single_pixel_apart_does_not_widen_a_box():
    found = see([pose(z=10)], [(9.8, (145, 95, 150, 104)), (9.8, (156, 98, 157, 99))], [])[0]
    assert found.box == (290, 190, 299, 207)


def test_what_stands_before_a_kart_cuts_its_box_and_its_visible_share():
    kart, post = (9.8, (143, 93, 157, 107)), (4.0, (150, 0, 160, 200))
    found = see([pose(z=10)], [kart, post], [post])[0]
    assert found.box == (286, 186, 299, 213)
    assert found.visible == pytest.approx(0.5, abs=0.1)
    assert not found.is_hidden


def test_a_kart_behind_a_wall_is_hidden():
    wall = (4.0, (0, 0, 300, 199))
    found = see([pose(z=10)], [(9.8, (143, 93, 157, 107)), wall], [wall])[0]
    assert (found.box, found.visible, found.is_hidden) == (None, 0.0, True)


@pytest.mark.parametrize(("pixels", "is_hidden"), [(5, True), (6, False)])
def test_a_kart_of_few_pixels_is_hidden(pixels, is_hidden):
    found = see([pose(z=100)], [(100.0, (148, 100, 148 + pixels, 101))], [], [Extent((-3, -3, -1), (3, 3, 1))])[0]
    assert (found.pixels, found.is_hidden) == (pixels, is_hidden)


def test_a_kart_before_another_takes_its_own_pixels_alone():
    near, far = (5.8, (140, 90, 150, 110)), (9.8, (143, 93, 157, 107))
    found = see([pose(x=-0.2, z=6), pose(z=10)], [near, far], [])
    assert found[0].box == (280, 180, 299, 219)
    assert found[1].box == (300, 186, 313, 213)


def test_where_extents_overlap_the_nearer_centre_wins():
    found = see([pose(x=-0.3, z=10), pose(x=0.3, z=10)], [(10.0, (140, 95, 160, 105))], [])
    assert found[0].box[2] + 1 == found[1].box[0] == 300


def test_a_kart_outside_the_picture_is_not_listed():
    assert see([pose(x=40, z=10), pose(z=-10)], [], []) == {}


def test_boxes_are_inclusive_and_stay_in_the_frame():
    assert box_of_pixels(np.ones((200, 300), dtype=bool), 0, 0, 300, 200) == (0, 0, 599, 399)
    assert box_of_pixels(np.ones((3, 2), dtype=bool), 10, 20, 450, 300) == (13, 26, 15, 30)
    assert box_of_pixels(np.zeros((3, 2), dtype=bool), 10, 20, 300, 200) is None


def test_share_of_a_box_in_the_picture():
    assert share_in_image((-50, 100, 50, 200)) == pytest.approx(0.5)
    assert share_in_image((10, 10, 20, 20)) == 1
    assert share_in_image((700, 10, 720, 20)) == 0


@pytest.fixture
def package(tmp_path):
    """What Debian's package holds, as far as it matters here."""
    folder = tmp_path / "package" / "data"
    for name in ("karts", "tracks", "shaders", "skins/cartoon", "skins/ocean"):
        (folder / name).mkdir(parents=True)
    for name in ("stk_config.xml", "supertuxkart.1.4"):
        (folder / name).touch()
    return folder


def test_prepared_assets_are_links_and_preparing_again_changes_nothing(tmp_path, package):
    data = prepare_assets(tmp_path / "overlay", package) / "data"
    made = {path.relative_to(data): os.readlink(path) for path in data.rglob("*") if path.is_symlink()}
    assert (data / "tracks").readlink() == package / "tracks"
    assert (data / "skins" / "classic").resolve() == (package / "skins" / "cartoon").resolve()
    assert (data / "supertuxkart.1.5").is_file()
    inodes = {path: path.lstat().st_ino for path in data.iterdir()}
    prepare_assets(tmp_path / "overlay", package)
    assert {path.relative_to(data): os.readlink(path) for path in data.rglob("*") if path.is_symlink()} == made
    assert {path: path.lstat().st_ino for path in data.iterdir()} == inodes


def test_links_to_another_place_are_renewed(tmp_path, package):
    prepare_assets(tmp_path / "overlay", package)
    moved = package.parent / "moved"
    package.rename(moved)
    data = prepare_assets(tmp_path / "overlay", moved) / "data"
    assert (data / "karts").is_dir()


def test_without_the_package_the_packages_to_install_are_named(tmp_path):
    with pytest.raises(RenderError, match="supertuxkart-data libgl1 libegl1 libgl1-mesa-dri"):
        prepare_assets(tmp_path / "overlay", tmp_path / "nothing")


def test_a_wrong_data_folder_is_refused_before_the_game_sees_it(tmp_path, package):
    with pytest.raises(RenderError, match=r"data/supertuxkart\.1\.5 is missing"):
        check_assets(package.parent)


def test_assets_are_looked_for_in_order(tmp_path, package, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(game_assets.DATA_VARIABLE, raising=False)
    monkeypatch.setattr(game_assets, "DEBIAN_DATA", tmp_path / "nothing")
    assert find_assets() is None
    monkeypatch.setattr(game_assets, "DEBIAN_DATA", package)
    overlay = find_assets()
    assert overlay == tmp_path / "cache" / "stkvlm" / "supertuxkart"
    assert (overlay / "data" / "karts").readlink() == package / "karts"
    downloaded = tmp_path / "cache" / "PySuperTuxKart2" / "1.5"
    downloaded.mkdir(parents=True)
    (downloaded / "__downloaded__.txt").touch()
    assert find_assets() == downloaded
    monkeypatch.setenv(game_assets.DATA_VARIABLE, str(overlay))
    assert find_assets() == overlay
    monkeypatch.setenv(game_assets.DATA_VARIABLE, str(tmp_path))
    with pytest.raises(RenderError, match="unset SUPERTUXKART_DATADIR"):
        find_assets()


@pytest.fixture
def no_caches():
    """The adapter remembers the library that it found."""
    cached = (pystk_adapter.load_game, pystk_adapter._library, pystk_adapter._function)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


def test_a_missing_game_says_what_to_install(monkeypatch, no_caches):
    monkeypatch.setitem(sys.modules, "pystk2", None)
    with pytest.raises(RenderError) as error:
        next(race_renderer.render_race(RacePlan(1, "lighthouse", ("tux",), 1, 1), (300, 200)))
    assert 'pip install -e ".[render]"' in str(error.value)
    assert "supertuxkart-data libgl1 libegl1 libgl1-mesa-dri" in str(error.value)


@pytest.mark.parametrize(
    "use",
    [pystk_adapter.turn_off_anisotropy, lambda: pystk_adapter.set_clock(0), lambda: pystk_adapter.read_cameras(1)],
)
def test_a_library_without_the_symbols_is_refused(use, monkeypatch, no_caches):
    monkeypatch.setattr(pystk_adapter, "_library", lambda: ctypes.CDLL(None))
    with pytest.raises(RenderError, match="PySuperTuxKart2 0.7.4"):
        use()


def test_the_slow_texture_filter_is_turned_off_where_it_is_expected(monkeypatch):
    memory = ctypes.create_string_buffer(128)
    setting = ctypes.c_int.from_buffer(memory, pystk_adapter.SETTING_VALUE)
    monkeypatch.setattr(pystk_adapter, "_address", lambda symbol: ctypes.addressof(memory))
    setting.value = 4
    pystk_adapter.turn_off_anisotropy()
    assert setting.value == 0
    setting.value = 7
    with pytest.raises(RenderError, match="the setting for anisotropy is elsewhere"):
        pystk_adapter.turn_off_anisotropy()
    assert setting.value == 7


def test_cameras_that_lead_nowhere_are_refused(monkeypatch):
    nothing = ctypes.create_string_buffer(256)
    start = ctypes.addressof(nothing)
    listed = (ctypes.c_void_p * 3)(start, start + 8, start + 8)
    monkeypatch.setattr(pystk_adapter, "_camera_list", lambda: listed)
    monkeypatch.setattr(pystk_adapter, "load_game", lambda: SimpleNamespace(__file__="/nowhere/pystk2.so"))
    with pytest.raises(RenderError, match=r"no camera where .*0\.7\.4"):
        pystk_adapter.read_cameras(1)
    with pytest.raises(RenderError, match="1 cameras for 2 karts"):
        pystk_adapter.read_cameras(2)


def test_the_camera_of_a_later_version_is_used_when_it_is_filled():
    player = SimpleNamespace(camera=SimpleNamespace(view=2 * VIEW, projection=PROJECTION))
    view, projection = pystk_adapter.read_view(camera=None, player=player)
    assert (view == 2 * VIEW).all() and (projection == PROJECTION).all()


@pytest.mark.parametrize(
    "wrong", [pose(x=9, z=10), pose(z=-4), pose(z=60), pose(y=3, z=4), pose(x=float("nan"), z=4)], ids=str
)
def test_a_build_whose_karts_are_out_of_place_is_refused(wrong):
    pystk_adapter.check_views([(VIEW, PROJECTION)], [pose(y=-0.5, z=4)])
    with pytest.raises(RenderError, match=r"middle of their own views \[1\].*0\.7\.4"):
        pystk_adapter.check_views([(VIEW, PROJECTION)] * 2, [pose(y=-0.5, z=4), wrong])


def test_a_track_that_the_game_does_not_have_is_refused(monkeypatch):
    game = SimpleNamespace(list_tracks=lambda: ["lighthouse"])
    monkeypatch.setattr(race_renderer, "start_game", lambda size: game)
    with pytest.raises(RenderError, match="no track 'moon'; there are lighthouse"):
        next(race_renderer.render_race(RacePlan(1, "moon", ("tux",), 1, 1), (300, 200)))


def test_every_kart_that_is_planned_has_an_extent():
    assert set(KARTS) == set(EXTENTS)


def test_every_extent_is_about_as_large_as_a_kart():
    assert len(EXTENTS) == 16
    sizes = np.array([np.subtract(extent.high, extent.low) for extent in EXTENTS.values()])
    assert (sizes > (0.4, 0.6, 0.9)).all() and (sizes < (1.2, 1.2, 1.8)).all()


def probe(*arguments):
    """What game_probe prints; a process each, as the game starts only once in one."""
    command = [sys.executable, str(PROBE), *arguments]
    environment = os.environ | {"PYTHONPATH": str(PROBE.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.render
@pytest.mark.parametrize("track", ["lighthouse", "snowmountain"])
def test_a_followed_karts_box_is_what_changes_when_it_is_hidden(track):
    found = probe("boxes", track)
    assert len(found) == 6
    for kart in found:
        # One pixel of the drawn picture, which is two of the frame that boxes are given in.
        assert kart["box"] == pytest.approx(kart["changed"], abs=2)


@pytest.mark.render
def test_truth_does_not_depend_on_the_process_or_on_what_is_skipped():
    whole, part = probe("truth", "[]"), probe("truth", "[1]")
    assert (whole["begun"], part["begun"]) == ([0, 1, 2], [0, 2])
    assert part["infos"] == {number: whole["infos"][number] for number in ("0", "2")}
    assert whole["shapes"] == [[200, 300, 3]] * 6
    assert whole["infos"]["1"] != whole["infos"]["2"]
    for info in whole["infos"].values():
        lengths = [
            [len(view) for view in info[key]] for key in ("detections", "visible", "pixels", "distance", "in_image")
        ]
        assert lengths == [lengths[0]] * 5 and len(lengths[0]) == 2
        assert any(row[1] == 0 for row in info["detections"][0])
