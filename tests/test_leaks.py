import shutil

import numpy as np
import pytest
from PIL import Image, ImageDraw
from tiny import copy_frames

from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.data.frames import FLAT_SPLIT
from stkvlm_lib.parallel import Workers
from stkvlm_lib.qa.leaks import BITS, NEAR, LeakError, check_leaks, difference_hash

QUIET = Workers(quiet=True)


@pytest.fixture
def folder(tmp_path):
    """Two frames of train and one of test, to be spoilt."""
    copy_frames(tmp_path, "train", 2)
    return copy_frames(tmp_path, "test", 1)


def frames_of(folder):
    """Read split by split: reading the whole folder would refuse some leaks itself."""
    return {
        split.name: [
            frame.moved(split=split.name, prefix=f"{split.name}/", race=f"{split.name}-{frame.race}")
            for frame in read_frames(split).frames()
        ]
        for split in sorted(folder.iterdir(), reverse=True)
    }


def names_both(error, *places):
    return all(place in str(error.value) for place in places)


def test_the_bundled_frames_have_no_leak(few):
    comparisons = check_leaks(few, QUIET)
    splits = [split for split, frames in few.items() if frames]
    assert len(comparisons) == len(splits) * (len(splits) - 1) / 2
    for found in comparisons:
        assert found.pictures == sum(frame.view_count for frame in few[found.second])
        assert found.near <= found.pictures and 0 < found.median < BITS
        bits = [pair.bits for pair in found.closest]
        assert bits == sorted(bits) and len({pair.second.frame.race for pair in found.closest}) > 1


def test_a_race_in_two_splits_is_refused(bundled):
    frames = bundled.frames("test")
    with pytest.raises(LeakError) as error:
        check_leaks({"train": frames[:1], "test": [frames[1].moved(split="test")]}, QUIET)
    assert names_both(error, frames[0].race, f"test/{frames[0].frame_id} (train)", f"test/{frames[1].frame_id} (test)")


def test_a_frame_in_two_splits_is_refused_whatever_its_name_and_pictures(folder):
    (info,) = (folder / "test").glob("*_info.json")
    frame = info.name.removesuffix("_info.json")
    for file in list((folder / "test").iterdir()):
        copy = folder / "train" / file.name.replace(frame, "fffff")
        shutil.copy(file, copy)
        if copy.suffix == ".jpg":
            Image.effect_noise((60, 40), 50).convert("RGB").save(copy)
    with pytest.raises(LeakError) as error:
        check_leaks(frames_of(folder), QUIET)
    assert names_both(error, "the same frame", "train/fffff", f"test/{frame}")


def test_an_identical_picture_in_two_splits_is_refused_whatever_its_file(folder):
    source, target = sorted((folder / "train").glob("*.jpg"))[3], sorted((folder / "test").glob("*.jpg"))[1]
    Image.open(source).save(target.with_suffix(".png"))
    target.with_suffix(".png").rename(target)  # other bytes, the same pixels
    with pytest.raises(LeakError) as error:
        check_leaks(frames_of(folder), QUIET)
    assert names_both(error, "the same picture", f"train/{source.name}", f"test/{target.name}")


def test_near_copies_are_counted_and_shown_but_not_refused(folder):
    source, target = sorted((folder / "train").glob("*.jpg"))[0], sorted((folder / "test").glob("*.jpg"))[0]
    picture = Image.open(source)
    ImageDraw.Draw(picture).ellipse((70, 50, 90, 70), "red")
    picture.save(target, quality=95)
    (found,) = check_leaks(frames_of(folder), QUIET)
    assert (found.first, found.second, found.near) == ("train", "test", 1)
    nearest = found.closest[0]
    assert (nearest.first.image_path.name, nearest.second.image_path.name) == (source.name, target.name)
    assert nearest.bits <= NEAR and found.row()["identical"] == 0


def test_the_same_frames_drawn_from_all_are_no_leak(few):
    assert check_leaks({FLAT_SPLIT: few["test"], "test": few["test"]}, QUIET) == []


def test_two_workers_find_the_same(few):
    some = {"train": few["train"][:4], "test": few["test"][:4]}
    assert [c.row() for c in check_leaks(some, Workers(2, quiet=True))] == [c.row() for c in check_leaks(some, QUIET)]


def test_the_difference_hash_sees_edges_and_not_brightness():
    ramp = Image.fromarray(np.tile(np.arange(170, dtype=np.uint8), (160, 1)))
    assert np.bitwise_count(difference_hash(ramp)).sum() == BITS
    assert np.bitwise_count(difference_hash(ramp.transpose(Image.Transpose.FLIP_LEFT_RIGHT))).sum() == 0
    darker = ramp.point(lambda value: value // 2)
    assert np.bitwise_count(difference_hash(ramp) ^ difference_hash(darker)).sum() < 5
