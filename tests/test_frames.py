"""Frames as they stand on disk: what they hold, what is refused, and the frames that ship."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from frame_files import LINE_UP, NOTHING, write_frame
from PIL import Image, ImageDraw

from stkvlm_lib.config import ROOT
from stkvlm_lib.data import pictures
from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.data.frames import Detection, FramesError, load_image
from stkvlm_lib.grammar.names import KARTS, TRACKS

BUNDLED = ROOT / "frames"

# What a frame holds


def test_a_picture_is_shown_mirrored_on_demand(bundled):
    view = next(iter(bundled))
    plain, mirrored = np.asarray(view.image()), np.asarray(view.image(mirrored=True))
    assert (mirrored == plain[:, ::-1]).all() and (mirrored != plain).any()


def test_what_a_frame_holds(tmp_path):
    rows = [[[1, 2, 0, 1, 599, 399], [8, 40, 5, 6, 7, 8]], []]
    write_frame(tmp_path, "0beef", detections=rows, track="zengarden")
    folder = read_frames(str(tmp_path))
    (frame,) = folder.splits["all"]
    assert (frame.frame_id, frame.track, frame.karts) == ("0beef", "zengarden", tuple(LINE_UP))
    first, second = frame.views
    kart, projectile = first.detections
    assert (kart.class_id, kart.object_id, kart.box) == (1, 2, (0, 1, 599, 399))
    assert (projectile.class_id, projectile.object_id) == (8, 40)
    assert second.detections == () and second.index == 1
    assert first.image().mode == "RGB" and first.image().size == (30, 20)
    assert folder.skipped == ()


def test_views_may_be_fewer_than_karts(tmp_path):
    write_frame(tmp_path, "00000", views=1, karts=list(KARTS[:10]))
    (view,) = read_frames(tmp_path).views("all")
    assert len(view.frame.karts) == 10


def test_views_compare_and_hash_by_content(tmp_path):
    write_frame(tmp_path, "00000", views=2)
    once, again = read_frames(tmp_path).views("all"), read_frames(tmp_path).views("all")
    assert set(once) == set(again) and len(set(once)) == 2
    assert once[0] != once[1]


def test_rendered_frames_say_how_much_of_a_kart_one_sees(tmp_path):
    rows = [[[1, 2, 0, 1, 599, 399], [1, 0, 5, 6, 7, 8]], [[1, 1, 0, 0, 9, 9]]]
    measured = {"visible": [[1.0, 0.25], [0.5]], "pixels": [[1000, 3], [None]], "distance": [[2.5, 40], [7.25]]}
    write_frame(tmp_path, "00000", detections=rows, image_size=[300, 200], **measured)
    first, second = read_frames(tmp_path).views()
    assert first.detections == (
        Detection(1, 2, (0, 1, 599, 399), visible=1.0, pixels=4000, distance=2.5),
        Detection(1, 0, (5, 6, 7, 8), visible=0.25, pixels=12, distance=40),
    )
    assert second.detections == (Detection(1, 1, (0, 0, 9, 9), visible=0.5, pixels=None, distance=7.25),)


@pytest.mark.parametrize(("size", "pixels"), [([600, 400], 100), ([450, 300], 178), ([150, 100], 1600), (NOTHING, 400)])
def test_pixels_are_scaled_from_the_rendered_picture_to_600x400(tmp_path, size, pixels):
    write_frame(tmp_path, "00000", views=1, pixels=[[100]], image_size=size)
    (view,) = read_frames(tmp_path).views()
    assert view.detections[0].pixels == pixels


def test_what_an_info_file_does_not_say_is_none(tmp_path):
    write_frame(tmp_path, "00000", views=1)
    write_frame(tmp_path, "00001", views=1, visible=[[0.5]])
    plain, partly = read_frames(tmp_path).views()
    assert [(d.visible, d.pixels, d.distance) for d in plain.detections] == [(None, None, None)]
    assert [(d.visible, d.pixels, d.distance) for d in partly.detections] == [(0.5, None, None)]


# Races


def test_race_is_the_seed_where_there_is_one(tmp_path):
    write_frame(tmp_path, "00000", race_seed=7)
    write_frame(tmp_path, "00001", race_seed=7, karts=["xue"])
    write_frame(tmp_path, "00002", race_seed=8)
    first, second, third = (frame.race for frame in read_frames(tmp_path).splits["all"])
    assert first == second != third


@pytest.mark.parametrize(
    ("change", "same"),
    [({}, True), ({"track": "mines"}, False), ({"karts": LINE_UP[::-1]}, False), ({"race_seed": None}, True)],
)
def test_race_is_else_the_track_and_the_karts_in_order(tmp_path, change, same):
    write_frame(tmp_path, "00000")
    write_frame(tmp_path, "00001", **change)
    first, second = (frame.race for frame in read_frames(tmp_path).splits["all"])
    assert (first == second) is same


# Broken files: (what is done to the good frame, what the message must say beside the file's name)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _rewrite(**changes):
    return lambda folder: write_frame(folder, "00001", **changes)


BREAKAGES = {
    "broken JSON": (lambda d: _truncate(d / "00001_info.json"), "00001_info.json: not readable as JSON"),
    "not text": (
        lambda d: (d / "00001_info.json").write_bytes(b"\xff\xfe\xfa"),
        "00001_info.json: not readable as JSON",
    ),
    "JSON without keys": (lambda d: (d / "00001_info.json").write_text("[]"), "00001_info.json: holds a list"),
    "missing JSON": (lambda d: (d / "00001_info.json").unlink(), "00001_info.json: missing"),
    "missing picture": (
        lambda d: (d / "00001_01_im.jpg").unlink(),
        r"00001_info.json: 2 detection lists but 1 pictures.*missing: 00001_01_im.jpg",
    ),
    "picture too many": (_rewrite(pictures=3), "2 detection lists but 3 pictures.*of no view: 00001_02_im.jpg"),
    "detections too many": (_rewrite(views=3, pictures=2), "00001_info.json: 3 detection lists but 2 pictures"),
    "no track": (_rewrite(track=NOTHING), "00001_info.json: key 'track'"),
    "no karts": (_rewrite(karts=NOTHING), "00001_info.json: key 'karts'"),
    "no detections": (_rewrite(detections=NOTHING), "00001_info.json: key 'detections'"),
    "track of a wrong type": (_rewrite(track=3), "00001_info.json: key 'track'"),
    "kart without a name": (_rewrite(karts=["tux", None]), "00001_info.json: key 'karts'"),
    "view without a list": (_rewrite(detections=[[], None]), "00001_info.json: key 'detections'"),
    "unknown kart id": (_rewrite(detections=[[], [[1, 3, 0, 0, 9, 9]]]), "00001_info.json: view 1: unknown kart id 3"),
    "negative kart id": (
        _rewrite(detections=[[[1, -1, 0, 0, 9, 9]], []]),
        "00001_info.json: view 0: unknown kart id -1",
    ),
    "five numbers": (_rewrite(detections=[[[1, 0, 0, 0, 9]], []]), "00001_info.json: view 0: .* is not six numbers"),
    "visible for too few views": (_rewrite(visible=[[1.0]]), "00001_info.json: 'visible' is not one list a view"),
    "pixels too many": (_rewrite(pixels=[[1], [2, 3]]), "00001_info.json: 'pixels' is not one list a view"),
    "distance as no lists": (_rewrite(distance=[1.0, 2.0]), "00001_info.json: 'distance' is not one list a view"),
    "distance of no number": (_rewrite(distance=[["far"], [1.0]]), "00001_info.json: 'distance' holds something"),
    "pixels of no picture": (_rewrite(pixels=[[1], [1]], image_size=[0, 200]), r"00001_info.json: image_size \[0, 200"),
    "not a number": (
        _rewrite(detections=[[[1, 0, 0, 0, 9, "x"]], []]),
        "00001_info.json: view 0: .* is not six numbers",
    ),
    "no finite number": (
        _rewrite(detections=[[], [[1, 0, 0, 0, 9, float("inf")]]]),
        "00001_info.json: view 1: .* is not six numbers",
    ),
}


@pytest.mark.parametrize("what", BREAKAGES)
@pytest.mark.parametrize("split", ["", "valid"])
def test_a_broken_frame_is_named_or_skipped_and_listed(tmp_path, what, split):
    do_damage, message = BREAKAGES[what]
    folder = tmp_path / split
    for name in ("00000", "00001", "00002"):
        write_frame(folder, name)
    assert len(read_frames(tmp_path).views(split or "all")) == 6  # whole before the damage
    do_damage(folder)
    with pytest.raises(FramesError, match=message):
        read_frames(tmp_path)
    result = read_frames(tmp_path, skip_broken=True)
    assert [frame.frame_id for frame in result.splits[split or "all"]] == ["00000", "00002"]
    ((path, reason),) = result.skipped
    assert path == str(folder / "00001_info.json") and reason


@pytest.mark.parametrize("content", ["truncated", "empty", "text"])
def test_a_broken_picture_is_named_or_skipped_when_pictures_are_checked(tmp_path, content):
    for name in ("00000", "00001"):
        write_frame(tmp_path, name)
    picture = tmp_path / "00001_01_im.jpg"
    data = picture.read_bytes()
    picture.write_bytes({"truncated": data[: len(data) * 3 // 4], "empty": b"", "text": b"no picture"}[content])
    assert len(read_frames(tmp_path).splits["all"]) == 2  # pictures are decoded only where asked
    with pytest.raises(FramesError, match="00001_01_im.jpg: picture cannot be decoded"):
        read_frames(tmp_path, check_images=True)
    result = read_frames(tmp_path, check_images=True, skip_broken=True)
    assert [frame.frame_id for frame in result.splits["all"]] == ["00000"]
    ((path, reason),) = result.skipped
    assert path == str(picture) and "cannot be decoded" in reason
    with pytest.raises(FramesError, match="00001_01_im.jpg"):
        read_frames(tmp_path).by_image_file["00001_01_im.jpg"].image()


def test_each_skip_is_listed(tmp_path):
    for number in range(4):
        write_frame(tmp_path, f"0000{number}")
    (tmp_path / "00000_info.json").unlink()
    (tmp_path / "00002_01_im.jpg").unlink()
    (tmp_path / "00003_info.json").write_text("{")
    result = read_frames(tmp_path, skip_broken=True)
    assert sorted(Path(path).name for path, _ in result.skipped) == [
        "00000_info.json",
        "00002_info.json",
        "00003_info.json",
    ]
    assert [frame.frame_id for frame in result.splits["all"]] == ["00001"]


def test_load_image_names_a_missing_picture(tmp_path):
    with pytest.raises(FramesError, match="gone.jpg: picture is missing"):
        load_image(tmp_path / "gone.jpg")


def test_pictures_come_from_memory_until_their_file_changes(tmp_path, monkeypatch):
    write_frame(tmp_path, "00000", views=2)
    paths, decoded = sorted(tmp_path.glob("*.jpg")), []
    monkeypatch.setattr(pictures, "decode_image", lambda path: decoded.append(path) or Image.open(path).convert("RGB"))
    for path in (*paths, *paths):
        load_image(path)
    assert decoded == paths
    Image.new("RGB", (60, 40), "white").save(paths[0])
    assert load_image(paths[0]).size == (60, 40)
    paths[1].unlink()
    with pytest.raises(FileNotFoundError):
        load_image(paths[1])


def test_drawing_on_a_picture_leaves_the_next_one_clean(tmp_path):
    write_frame(tmp_path, "00000", views=1)
    (view,) = read_frames(tmp_path).views()
    before = view.image().tobytes()
    ImageDraw.Draw(view.image()).rectangle((0, 0, 20, 20), fill="red")
    assert view.image().tobytes() == before


def test_the_memory_for_pictures_is_bounded(tmp_path, monkeypatch):
    write_frame(tmp_path, "00000", views=4)
    paths, decoded = sorted(tmp_path.glob("*.jpg")), []
    side = int((pictures.CACHE_BYTES / 3 / 2.5) ** 0.5)  # two and a half of these pictures fill it
    monkeypatch.setattr(pictures, "decode_image", lambda path: decoded.append(path) or Image.new("RGB", (side, side)))
    for path in (paths[0], paths[1], paths[0], paths[2], paths[0], paths[1]):
        load_image(path)
    assert decoded == [paths[0], paths[1], paths[2], paths[1]], "the one used longest ago makes room"
    assert pictures._CACHE.currsize <= pictures.CACHE_BYTES
    pictures._CACHE.clear()


# The frames that ship


@pytest.fixture(scope="module")
def bundled():
    """Read with every picture decoded: this alone fails when a file is broken."""
    return read_frames(BUNDLED, check_images=True)


def test_bundled_frames_have_splits_of_different_races(bundled):
    assert list(bundled.splits)[:3] == ["train", "valid", "test"]
    races = {split: {frame.race for frame in frames} for split, frames in bundled.splits.items()}
    assert all(len(names) >= 5 for names in races.values())
    assert sum(map(len, races.values())) == len(set.union(*races.values()))
    assert bundled.skipped == ()


def test_bundled_frames_can_be_answered(bundled):
    assert {frame.track for frame in bundled.frames()} <= set(TRACKS)
    assert {kart for frame in bundled.frames() for kart in frame.karts} <= set(KARTS)


def test_bundled_frames_are_at_most_22_mb():
    assert 1e6 < sum(path.stat().st_size for path in BUNDLED.rglob("*") if path.is_file()) <= 22e6


def test_no_file_of_the_course_is_bundled(bundled):
    """The renderer writes a race seed and what it saw of each kart; the course's files have neither."""
    infos = sorted(BUNDLED.rglob("*_info.json"))
    assert len(infos) == len(bundled.frames())
    for info in infos:
        assert {"race_seed", "visible"} <= json.loads(info.read_text()).keys(), info
    assert not list(BUNDLED.rglob("*_qa*.json"))
    assert not {"beastie", "hexley"} & {kart for frame in bundled.frames() for kart in frame.karts}


def test_skipping_also_leaves_out_pictures_that_do_not_decode(tmp_path):
    source = sorted((ROOT / "frames" / "valid").glob("*_info.json"))[:2]
    for info in source:
        for file in info.parent.glob(info.name.removesuffix("_info.json") + "_*"):
            shutil.copy(file, tmp_path)
    broken = tmp_path / source[0].name.replace("_info.json", "_01_im.jpg")
    broken.write_bytes(broken.read_bytes()[:500])
    folder = read_frames(tmp_path, skip_broken=True)
    assert [frame.frame_id for frame in folder.splits["all"]] == [source[1].name.removesuffix("_info.json")]
    assert len(folder.skipped) == 1 and broken.name in "".join(folder.skipped[0])
