"""Sets of frames: their layout on disk, statistics, drawing and joining."""

import pickle
import random
import shutil
from pathlib import Path

import pytest
from frame_files import NOTHING, write_frame

from stkvlm_lib.data.frame_sets import check_races_disjoint, join, read_frames, split_by_race
from stkvlm_lib.data.frames import Frame, FramesError


def races_of(folder) -> dict[str, list[str]]:
    return {split: [frame.race for frame in frames] for split, frames in folder.splits.items()}


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


def test_no_frames_is_an_error_that_names_the_folder(tmp_path):
    with pytest.raises(FramesError, match="nowhere: no such folder"):
        read_frames(tmp_path / "nowhere")
    with pytest.raises(FramesError, match="no frames found"):
        read_frames(tmp_path)
    write_frame(tmp_path, "00000", track=NOTHING)
    with pytest.raises(FramesError, match="no frames found.*1 broken ones were skipped"):
        read_frames(tmp_path, skip_broken=True)


@pytest.mark.parametrize("name", ["val", "Train", "."])
def test_frames_that_no_split_has_are_refused_by_their_folder(tmp_path, name):
    """Training on what is left would look like success."""
    root = tmp_path / "data"
    write_frame(root / "train", "00000")
    write_frame(root / name, "00001", karts=["xue"])
    with pytest.raises(FramesError, match=rf"{(root / name).name}: frames lie here .*; move them into one of train/, "):
        read_frames(root)
    (root / name / "00001_info.json").rename(root / name / ".00001_info.json")
    assert len(read_frames(root)) == 2


@pytest.mark.parametrize("name", [".old", ".ipynb_checkpoints"])
def test_hidden_folders_are_no_data(tmp_path, name):
    write_frame(tmp_path / "train", "00000")
    write_frame(tmp_path / name, "00001", karts=["xue"])
    assert len(read_frames(tmp_path)) == 2


def test_a_folder_too_high_is_told_where_the_frames_are(tmp_path):
    write_frame(tmp_path / "data" / "train", "00000")
    with pytest.raises(FramesError, match=r"no frames found .*but in .*data/train\); give the folder that holds them"):
        read_frames(tmp_path)


def test_frames_without_any_view_are_none(tmp_path):
    write_frame(tmp_path / "train", "00000", views=0)
    with pytest.raises(FramesError, match="no frames found"):
        read_frames(tmp_path)


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


@pytest.mark.parametrize(
    "box", [(65, 40, 85, 60), (0.4, 0.4, 0.6, 0.6)], ids=["px of a 150x100 picture", "shares of it"]
)
def test_boxes_in_another_frame_are_refused(tmp_path, box):
    write_frame(tmp_path, "00000", views=20, detections=[[[1, 0, *box]]] * 20)
    with pytest.raises(FramesError, match="all 20 boxes lie in the top left quarter of the 600x400 px"):
        read_frames(tmp_path)


def test_few_boxes_may_lie_in_one_corner(tmp_path):
    write_frame(tmp_path, "00000", detections=[[[1, 0, 65, 40, 85, 60]]] * 2)
    assert len(read_frames(tmp_path)) == 2


def test_a_flat_set_is_drawn_by_race_and_its_pictures_keep_their_names(tmp_path):
    for number in range(8):
        write_frame(tmp_path, f"{number:05x}", race_seed=number // 2)
    flat = read_frames(tmp_path)
    drawn = flat.drawn_by_race(seed=3)
    assert {split: sorted(drawn.races(split)) for split in drawn.splits} == split_by_race(flat.frames(), seed=3)
    assert set(drawn.by_image_file) == set(flat.by_image_file)
    assert {frame.split for frame in drawn.frames("valid")} == {"valid"}
    assert drawn.by_image_file["00000_01_im.jpg"].image().size == (30, 20)
    assert drawn.drawn_by_race(seed=4) is drawn


# As a collection


@pytest.fixture
def mixed(tmp_path):
    """Five views of four races on two tracks."""
    write_frame(tmp_path / "train", "00000", race_seed=1, views=2)
    write_frame(tmp_path / "train", "00001", race_seed=2, views=1, track="mines", karts=["xue", "tux"])
    write_frame(tmp_path / "train", "00002", race_seed=1, views=1)
    write_frame(tmp_path / "test", "00003", race_seed=3, views=1, track="mines", karts=["gnu", "amanda"])
    write_frame(tmp_path / "test_unseen", "00004", race_seed=4, views=0, track="mines", karts=["wilber"])
    return read_frames(tmp_path)


def test_a_set_counts_and_gives_its_views(mixed):
    assert len(mixed) == 5 == len(list(mixed)) == len(mixed.views())
    assert [view.image_file for view in mixed][-2:] == ["train/00002_00_im.jpg", "test/00003_00_im.jpg"]
    assert [frame.frame_id for frame in mixed.frames("train")] == ["00000", "00001", "00002"]
    assert {race: len(frames) for race, frames in mixed.races().items()} == {
        "race-1": 2,
        "race-2": 1,
        "race-3": 1,
        "race-4": 1,
    }


def test_pictures_are_found_by_name(mixed):
    assert list(mixed.by_image_file) == [view.image_file for view in mixed]
    assert all(mixed.by_image_file[view.image_file] is view for view in mixed)
    assert "train/00000_02_im.jpg" not in mixed.by_image_file
    assert mixed.by_image_file.get("00000_00_im.jpg") is None
    assert len(mixed.by_image_file) == 5


def test_a_set_can_be_sent_to_another_process(mixed):
    used = mixed.views("train")
    again = pickle.loads(pickle.dumps(mixed))
    assert again.views("train") == used and len(again) == len(mixed)


def test_statistics_count_races_by_split_and_views_that_show_a_kart(tmp_path):
    two, far = [[1, 0, 0, 0, 9, 9], [1, 1, 0, 0, 9, 9]], [[1, 0, 0, 0, 1, 1], [8, 40, 5, 6, 7, 8]]
    write_frame(tmp_path / "train", "00000", race_seed=1, detections=[two, far])
    write_frame(tmp_path / "train", "00001", race_seed=1, detections=[two, []])
    write_frame(tmp_path / "test", "00002", race_seed=2, detections=[far, far], track="mines", karts=["gnu", "tux"])
    write_frame(tmp_path / "test", "00003", race_seed=3, detections=[far, far], karts=["gnu", "xue"])
    counted = read_frames(tmp_path).statistics()
    assert counted["tracks"] == [
        {"track": "abyss", "train": 1, "test": 1, "karts": 4, "views": 6},
        {"track": "mines", "train": 0, "test": 1, "karts": 2, "views": 2},
    ]
    assert [tuple(row.values()) for row in counted["karts"]] == [
        ("gnu", 1, 2, 2, 6),
        ("kiki", 1, 0, 1, 0),
        ("tux", 1, 1, 2, 3),
        ("xue", 0, 1, 1, 0),
    ]
    assert counted["pairs"] == [
        {"split": "train", "track-kart pairs": 3, "of these in train": 3},
        {"split": "test", "track-kart pairs": 4, "of these in train": 1},
    ]
    assert read_frames(tmp_path).line_ups("test") == {"abyss": {"gnu": 1, "xue": 1}, "mines": {"gnu": 1, "tux": 1}}


# Races that must stay unseen


def test_an_unseen_race_with_a_pair_of_train_is_refused(tmp_path):
    write_frame(tmp_path / "train", "00000", race_seed=1)
    write_frame(tmp_path / "test_unseen", "00001", race_seed=2, track="mines")
    write_frame(tmp_path / "test_unseen", "00002", race_seed=3, karts=["xue"])
    assert list(read_frames(tmp_path).splits) == ["train", "test_unseen"]
    write_frame(tmp_path / "test_unseen", "00003", race_seed=4, karts=["xue", "gnu"])
    with pytest.raises(FramesError, match="test_unseen/00003: gnu on abyss is in train too"):
        read_frames(tmp_path)


# Several folders


def folders(root: Path, *names: str) -> list[Path]:
    return [root / name for name in names]


def test_joined_pictures_carry_their_sets_name(tmp_path):
    one, two = folders(tmp_path, "one", "two")
    write_frame(one / "train", "00000", race_seed=1)
    write_frame(two / "train", "00000", race_seed=2, track="mines")
    write_frame(two / "test", "00001", race_seed=3, views=1)
    both = read_frames([one, two])
    assert [view.image_file for view in both] == [
        "one/train/00000_00_im.jpg",
        "one/train/00000_01_im.jpg",
        "two/train/00000_00_im.jpg",
        "two/train/00000_01_im.jpg",
        "two/test/00001_00_im.jpg",
    ]
    assert both.by_image_file["two/train/00000_01_im.jpg"].image_path == two / "train" / "00000_01_im.jpg"
    assert both.by_image_file["two/train/00000_01_im.jpg"].frame.track == "mines"
    assert {frame.race for frame in both.frames("train")} == {"race-1", "race-2"}
    assert str(both.root) == f"{one}:{two}"
    assert [view.image_file for view in read_frames([one])][0] == "train/00000_00_im.jpg", "alone, it needs no name"


def test_the_order_of_the_folders_does_not_matter(tmp_path):
    places = folders(tmp_path, "b/data", "a/data", "c")
    for number, place in enumerate(places):
        write_frame(place / "train", "00000", race_seed=number)
    once, again = read_frames(places), read_frames(places[::-1])
    assert [view.image_file for view in once] == [view.image_file for view in again]
    assert once.views() == again.views()
    assert {view.image_file.split("/train/")[0] for view in once} == {"a/data", "b/data", "c"}


def test_flat_sets_are_joined_with_flat_sets_only(tmp_path):
    one, two, three = folders(tmp_path, "one", "two", "three")
    write_frame(one, "00000", race_seed=1)
    write_frame(two, "00000", race_seed=2)
    write_frame(three / "train", "00000", race_seed=3)
    assert [view.image_file for view in read_frames([one, two]).views("all")][::2] == [
        "one/00000_00_im.jpg",
        "two/00000_00_im.jpg",
    ]
    with pytest.raises(FramesError, match="one: has no split folders"):
        read_frames([one, three])


def test_a_folder_named_twice_is_refused(tmp_path):
    write_frame(tmp_path / "one", "00000")
    (tmp_path / "other").mkdir()
    with pytest.raises(FramesError, match="the same folder twice"):
        read_frames([tmp_path / "one", tmp_path / "other" / ".." / "one"])


@pytest.mark.parametrize("seed", [7, NOTHING])
def test_a_race_in_different_splits_of_two_sets_is_refused(tmp_path, seed):
    one, two = folders(tmp_path, "one", "two")
    write_frame(one / "train", "00000", race_seed=seed)
    write_frame(two / "test", "00001", race_seed=seed)
    with pytest.raises(FramesError, match="train/00000_info.json stands in .*test/00001_info.json too"):
        read_frames([one, two])


def test_a_race_in_the_same_split_of_two_sets_stays_one_race(tmp_path):
    one, two = folders(tmp_path, "one", "two")
    write_frame(one / "train", "00000", race_seed=7)
    write_frame(two / "train", "00001", race_seed=7)
    assert list(read_frames([one, two]).races()) == ["race-7"]


def test_the_same_seed_on_another_track_is_another_race(tmp_path):
    one, two = folders(tmp_path, "one", "two")
    write_frame(one / "train", "00000", race_seed=7)
    write_frame(two / "test", "00001", race_seed=7, track="mines")
    assert list(read_frames([one, two]).races()) == ["one/race-7", "two/race-7"]


def test_what_another_set_shows_in_train_is_no_longer_unseen(tmp_path):
    one, two = folders(tmp_path, "one", "two")
    write_frame(one / "train", "00000", race_seed=1)
    write_frame(one / "test_unseen", "00001", race_seed=2, track="mines")
    write_frame(one / "test_unseen", "00002", race_seed=3, track="mines", karts=["xue"])
    write_frame(two / "train", "00000", race_seed=4, track="mines", karts=["gnu"])
    both = read_frames([one, two])
    assert [frame.frame_id for frame in both.frames("test_unseen")] == ["00002"]
    ((path, reason),) = both.skipped
    assert path == str(one / "test_unseen" / "00001_info.json") and "in train of another set" in reason


def test_what_was_skipped_in_each_folder_is_listed(tmp_path):
    places = folders(tmp_path, "one", "two")
    for number, place in enumerate(places):
        write_frame(place / "train", "00000", race_seed=number)
        (place / "train" / "00001_info.json").write_text("{")
    skipped = read_frames(places, skip_broken=True).skipped
    assert [path for path, _ in skipped] == [str(place / "train" / "00001_info.json") for place in places]


def test_hand_made_frames_keep_their_views_when_joined(tmp_path):
    places = folders(tmp_path, "one", "two")
    for number, place in enumerate(places):
        write_frame(place / "train", "00000", race_seed=number)
    sets = [read_frames(place) for place in places]
    joined = join(sets)
    assert [view.detections for view in joined] == [view.detections for one in sets for view in one]
    assert all(view.frame is frame for frame in joined.frames() for view in frame.views)
