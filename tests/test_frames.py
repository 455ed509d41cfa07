"""Reading and checking data folders: hand-made ones, and the frames that ship."""

import json
import random
import shutil
from pathlib import Path

import pytest
from PIL import Image

from stkvlm_lib.config import ROOT
from stkvlm_lib.frame_sets import check_races_disjoint, read_frames, split_by_race
from stkvlm_lib.frames import Frame, FramesError, load_image
from stkvlm_lib.questions import KARTS, TRACKS

BUNDLED = Path(__file__).parent.parent / "frames"
LINE_UP = ["tux", "gnu", "kiki"]
NOTHING = object()


def write_frame(folder: Path, frame_id: str, *, views: int = 2, pictures: int | None = None, **changes) -> Path:
    """A frame as the course writes it; `changes` replace keys, NOTHING removes one. Returns its info file."""
    folder.mkdir(parents=True, exist_ok=True)
    box = [1, 0, 260, 160, 340, 240]
    data = {"track": "abyss", "karts": LINE_UP, "detections": [[box]] * views} | changes
    info = folder / f"{frame_id}_info.json"
    info.write_text(json.dumps({key: value for key, value in data.items() if value is not NOTHING}))
    for view in range(views if pictures is None else pictures):
        Image.new("RGB", (30, 20), (40 * view, 90, 10)).save(folder / f"{frame_id}_{view:02d}_im.jpg")
    return info


def races_of(folder) -> dict[str, list[str]]:
    return {split: [frame.race for frame in frames] for split, frames in folder.splits.items()}


# Layout


def test_flat_folder_is_one_split_named_all(tmp_path):
    write_frame(tmp_path, "00000")
    folder = read_frames(tmp_path)
    assert list(folder.splits) == ["all"]
    assert [view.image_file for view in folder.views("all")] == ["00000_00_im.jpg", "00000_01_im.jpg"]
    assert all((tmp_path / view.image_file).is_file() for view in folder.views("all"))


def test_split_folders_are_kept_and_prefix_the_image_file(tmp_path):
    for number, split in enumerate(("train", "valid", "test")):
        write_frame(tmp_path / split, f"0000{number}", views=number + 1)
    folder = read_frames(tmp_path)
    assert {split: len(folder.views(split)) for split in folder.splits} == {"train": 1, "valid": 2, "test": 3}
    assert [view.image_file for view in folder.views("valid")] == ["valid/00001_00_im.jpg", "valid/00001_01_im.jpg"]
    assert folder.by_image_file["test/00002_02_im.jpg"] is folder.views("test")[2]
    assert {frame.split for frame in folder.splits["test"]} == {"test"}


@pytest.mark.parametrize("present", [("train",), ("valid",), ("train", "test"), ("valid", "test")])
def test_only_the_split_folders_that_are_there(tmp_path, present):
    for split in present:
        write_frame(tmp_path / split, "00000")
    folder = read_frames(tmp_path)
    assert tuple(folder.splits) == present
    absent = ({"train", "valid", "test"} - set(present)).pop()
    with pytest.raises(FramesError, match=f"no split '{absent}'; it has {', '.join(present)}"):
        folder.views(absent)


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
    assert folder.skipped == []


def test_views_may_be_fewer_than_karts(tmp_path):
    write_frame(tmp_path, "00000", views=1, karts=list(KARTS[:10]))
    (view,) = read_frames(tmp_path).views("all")
    assert len(view.frame.karts) == 10


def test_summary_counts_each_split(tmp_path):
    write_frame(tmp_path / "train", "00000", views=3, race_seed=1)
    write_frame(tmp_path / "train", "00001", views=2, race_seed=1)
    write_frame(tmp_path / "train", "00002", views=1, race_seed=2, track="mines", karts=["tux", "xue"])
    write_frame(tmp_path / "test", "00003", views=1, race_seed=3)
    assert read_frames(tmp_path).summary() == [
        {"split": "train", "races": 2, "frames": 3, "views": 6, "tracks": 2, "karts": 4},
        {"split": "test", "races": 1, "frames": 1, "views": 1, "tracks": 1, "karts": 3},
    ]


def test_order_on_disk_does_not_matter(tmp_path):
    root, names = tmp_path / "data", ["00007", "00001", "0000a", "00003"]
    both = []
    for order in (names, names[::-1]):
        shutil.rmtree(root, ignore_errors=True)
        for name in order:
            write_frame(root, name, race_seed=int(name, 16))
        both.append(read_frames(root))
    assert both[0].views("all") == both[1].views("all")
    assert [frame.frame_id for frame in both[0].splits["all"]] == sorted(names)


def test_views_compare_and_hash_by_content(tmp_path):
    write_frame(tmp_path, "00000", views=2)
    once, again = read_frames(tmp_path).views("all"), read_frames(tmp_path).views("all")
    assert set(once) == set(again) and len(set(once)) == 2
    assert once[0] != once[1]


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


def test_without_a_seed_the_split_folder_is_part_of_the_race(tmp_path):
    write_frame(tmp_path / "train", "00000")
    write_frame(tmp_path / "valid", "00000")
    races = races_of(read_frames(tmp_path))
    assert races["train"] != races["valid"]


def test_a_race_in_two_splits_is_refused(tmp_path):
    write_frame(tmp_path / "train", "00000", race_seed=1)
    write_frame(tmp_path / "train", "00001", race_seed=2)
    write_frame(tmp_path / "test", "00002", race_seed=2)
    with pytest.raises(FramesError, match="race-2 stands in two splits: train/00001 and test/00002"):
        read_frames(tmp_path)
    with pytest.raises(FramesError, match="two splits"):
        read_frames(tmp_path, skip_broken=True)


def test_check_races_disjoint_lets_a_race_fill_one_split(tmp_path):
    frames = [Frame(tmp_path, "train", f"{n}", "abyss", ("tux",), "a") for n in range(3)]
    check_races_disjoint({"train": frames, "test": [Frame(tmp_path, "test", "9", "abyss", ("tux",), "b")]})


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
        r"00001_info.json: 2 detection lists but 1 pictures.*view 01 is missing",
    ),
    "picture too many": (_rewrite(pictures=3), "00001_info.json: 2 detection lists but 3 pictures"),
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


def test_no_frames_is_an_error_that_names_the_folder(tmp_path):
    with pytest.raises(FramesError, match="nowhere: no such folder"):
        read_frames(tmp_path / "nowhere")
    with pytest.raises(FramesError, match="no frames found"):
        read_frames(tmp_path)
    write_frame(tmp_path, "00000", track=NOTHING)
    with pytest.raises(FramesError, match="no frames found.*1 broken ones were skipped"):
        read_frames(tmp_path, skip_broken=True)


def test_load_image_names_a_missing_picture(tmp_path):
    with pytest.raises(FramesError, match="gone.jpg: picture is missing"):
        load_image(tmp_path / "gone.jpg")


# Splitting by race


def frames_of_races(n: int, each: int = 3) -> list[Frame]:
    return [
        Frame(Path("data"), "all", f"{race:02x}{frame:03x}", "abyss", ("tux",), f"race-{race}")
        for race in range(n)
        for frame in range(each)
    ]


@pytest.mark.parametrize("n", [3, 4, 20])
def test_split_by_race_gives_every_race_to_one_split(n):
    splits = split_by_race(frames_of_races(n), seed=0)
    assert list(splits) == ["train", "valid", "test"]
    assert all(splits.values())
    assert sorted(race for races in splits.values() for race in races) == sorted(f"race-{i}" for i in range(n))


def test_split_by_race_holds_out_the_share_asked_for():
    sizes = {name: len(races) for name, races in split_by_race(frames_of_races(20), seed=0, held_out=0.2).items()}
    assert sizes == {"train": 12, "valid": 4, "test": 4}


def test_split_by_race_follows_the_seed_and_no_order():
    frames = frames_of_races(20)
    shuffled = random.Random(5).sample(frames, len(frames))
    assert split_by_race(frames, seed=1) == split_by_race(shuffled, seed=1)
    assert split_by_race(frames, seed=1) != split_by_race(frames, seed=2)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_split_by_race_refuses_fewer_than_three_races(n):
    with pytest.raises(FramesError, match=rf"{n} race\(s\) cannot be split"):
        split_by_race(frames_of_races(n), seed=0)


# The frames that ship


@pytest.fixture(scope="module")
def bundled():
    """Read with every picture decoded: this alone fails when a file is broken."""
    return read_frames(BUNDLED, check_images=True)


def test_bundled_frames_have_three_splits_of_different_races(bundled):
    assert list(bundled.splits) == ["train", "valid", "test"]
    races = {split: {frame.race for frame in frames} for split, frames in bundled.splits.items()}
    assert all(len(names) >= 5 for names in races.values())
    assert sum(map(len, races.values())) == len(set.union(*races.values()))
    assert bundled.skipped == []


def test_bundled_frames_can_be_answered(bundled):
    frames = [frame for split in bundled.splits.values() for frame in split]
    assert {frame.track for frame in frames} <= set(TRACKS)
    assert {kart for frame in frames for kart in frame.karts} <= set(KARTS)


def test_bundled_frames_are_under_12_mb():
    assert 1e6 < sum(path.stat().st_size for path in BUNDLED.rglob("*") if path.is_file()) < 12e6


def test_no_file_of_the_course_is_bundled(bundled):
    """The renderer writes a race seed and what it saw of each kart; the course's files have neither."""
    infos = sorted(BUNDLED.rglob("*_info.json"))
    assert len(infos) == sum(len(frames) for frames in bundled.splits.values())
    for info in infos:
        assert {"race_seed", "visible"} <= json.loads(info.read_text()).keys(), info
    assert not list(BUNDLED.rglob("*_qa*.json"))
    only_in_course = {"beastie", "hexley"}
    assert not only_in_course & {kart for frames in bundled.splits.values() for f in frames for kart in f.karts}


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
