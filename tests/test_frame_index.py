"""The index of info files: it spares parsing and never hides a change."""

import gzip
import os
import shutil
from pathlib import Path

import pytest
from frame_files import write_frame

from stkvlm_lib.data import frame_index
from stkvlm_lib.data.frame_index import index_path
from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.data.frames import FramesError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """An index in a cache folder of its own, which also takes files that have only just been written."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.delenv("STKVLM_INDEX")
    monkeypatch.setattr(frame_index, "SETTLED_SECONDS", -60)
    return folder


@pytest.fixture
def parsed(monkeypatch):
    """The names of the info files parsed so far."""
    names, read_info = [], frame_index.read_info
    monkeypatch.setattr(frame_index, "read_info", lambda path: names.append(path.name) or read_info(path))
    return names


@pytest.fixture
def data(tmp_path):
    for number in range(3):
        write_frame(tmp_path / "train", f"0000{number}", race_seed=number, visible=[[0.5], [1.0]])
    write_frame(tmp_path / "test", "00003", race_seed=3)
    return tmp_path


ALL = [f"0000{number}_info.json" for number in range(4)]


def test_info_files_are_parsed_once(data, parsed):
    first = read_frames(data)
    assert parsed == ALL
    second = read_frames(data)
    assert parsed == ALL
    assert first.views() == second.views() and first.frames() == second.frames()
    assert second.views()[0].detections[0].visible == 0.5


def test_the_same_folder_by_another_way_is_the_same(data, parsed, tmp_path_factory):
    read_frames(data)
    link = tmp_path_factory.mktemp("links") / "data"
    link.symlink_to(data)
    frames = read_frames(link)
    assert parsed == ALL
    assert frames.views()[0].image_path == link / "train" / "00000_00_im.jpg"


def test_a_flat_reading_shares_the_index_and_names_its_own_races(data, parsed):
    write_frame(data / "train", "00009", karts=["tux"], track="mines")
    named = read_frames(data).frames("train")[-1].race
    assert (named, read_frames(data / "train").frames()[-1].race) == ("train:mines:tux", "all:mines:tux")
    assert len(parsed) == 5


def test_a_change_is_noticed_and_only_it_is_parsed(data, parsed):
    read_frames(data)
    write_frame(data / "train", "00001", race_seed=1, track="mines")
    assert [frame.track for frame in read_frames(data).frames("train")] == ["abyss", "mines", "abyss"]
    assert parsed == [*ALL, "00001_info.json"]
    read_frames(data)
    assert len(parsed) == 5


def test_a_change_of_neither_size_nor_time_of_contents_is_noticed(data):
    read_frames(data)
    info = data / "train" / "00001_info.json"
    before = info.stat()
    info.write_text(info.read_text().replace("abyss", "mines"))
    os.utime(info, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert info.stat().st_size == before.st_size
    assert read_frames(data).frames("train")[1].track == "mines"


def test_an_added_and_a_removed_frame_are_noticed(data, parsed):
    read_frames(data)
    write_frame(data / "train", "00007", race_seed=7)
    for file in (data / "train").glob("00000_*"):
        file.unlink()
    assert [frame.frame_id for frame in read_frames(data).frames("train")] == ["00001", "00002", "00007"]
    assert parsed == [*ALL, "00007_info.json"]


@pytest.mark.parametrize("skip", [False, True])
def test_a_picture_that_went_is_noticed(data, skip):
    read_frames(data)
    (data / "train" / "00001_01_im.jpg").unlink()
    if not skip:
        with pytest.raises(FramesError, match="00001_info.json: 2 detection lists but 1 pictures"):
            read_frames(data)
        return
    frames = read_frames(data, skip_broken=True)
    assert [frame.frame_id for frame in frames.frames("train")] == ["00000", "00002"] and len(frames.skipped) == 1


def test_an_info_file_that_went_is_noticed(data):
    read_frames(data)
    (data / "train" / "00001_info.json").unlink()
    with pytest.raises(FramesError, match="00001_info.json: missing"):
        read_frames(data)


def test_a_broken_picture_is_found_when_pictures_are_checked(data):
    read_frames(data, check_images=True)
    picture = data / "train" / "00001_01_im.jpg"
    stat = picture.stat()
    picture.write_bytes(b"x" * stat.st_size)
    os.utime(picture, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert len(read_frames(data)) == 8
    with pytest.raises(FramesError, match="00001_01_im.jpg: picture cannot be decoded"):
        read_frames(data, check_images=True)


def test_a_broken_info_file_is_refused_each_time(data):
    (data / "train" / "00001_info.json").write_text("{")
    for _ in range(2):
        with pytest.raises(FramesError, match="00001_info.json: not readable"):
            read_frames(data)


def _indexes(cache: Path) -> list[Path]:
    return sorted((cache / "stkvlm" / "index").iterdir())


@pytest.mark.parametrize(
    "damage",
    [
        lambda old: b"",
        lambda old: old[: len(old) // 2],
        lambda old: b"x" * len(old),
        lambda old: gzip.compress(b"[]"),
        lambda old: gzip.compress(gzip.decompress(old).replace(b'"format": 2', b'"format": 99')),
        lambda old: gzip.compress(b"\n".join(gzip.decompress(old).split(b"\n")[:3])),
    ],
    ids=["empty", "cut", "no gzip", "no index", "another format", "lines missing"],
)
def test_a_broken_index_is_ignored_and_written_anew(data, cache, parsed, damage):
    expected = read_frames(data).views()
    whole = {file: file.read_bytes() for file in _indexes(cache)}
    for file, old in whole.items():
        file.write_bytes(damage(old))
    assert read_frames(data).views() == expected
    assert sorted(parsed) == sorted(2 * ALL)
    assert {file: file.read_bytes() for file in _indexes(cache)} == whole


@pytest.mark.parametrize("value", ["0", "off"])
def test_it_can_be_switched_off(data, cache, parsed, monkeypatch, value):
    monkeypatch.setenv("STKVLM_INDEX", value)
    read_frames(data)
    read_frames(data)
    assert len(parsed) == 8 and not list(cache.iterdir())


def test_a_cache_folder_that_cannot_be_written_is_no_error(data, cache):
    (cache / "stkvlm").write_text("a file where the folder should be")
    assert len(read_frames(data)) == 8


def test_files_written_a_moment_ago_are_not_kept(data, parsed, monkeypatch):
    """Such a file may be written again within the same tick of the clock, and would look the same."""
    monkeypatch.setattr(frame_index, "SETTLED_SECONDS", 60)
    read_frames(data)
    read_frames(data)
    assert len(parsed) == 8


def test_a_copied_folder_has_an_index_of_its_own(data, tmp_path_factory, cache):
    copy = tmp_path_factory.mktemp("copy") / "data"
    shutil.copytree(data, copy)
    assert index_path(data / "train") != index_path(copy / "train")
    assert index_path(data / "train").is_relative_to(cache)
    write_frame(copy / "train", "00001", race_seed=1, track="mines")
    read_frames(copy)
    assert {frame.track for frame in read_frames(data).frames()} == {"abyss"}
