"""The course's zip: what is refused, what is unpacked, and how it goes on."""

import io
import json
import random
import shutil
import stat
import struct
import zipfile
from types import SimpleNamespace

import pytest
from filelock import FileLock
from PIL import Image

from stkvlm_lib import __main__ as cli
from stkvlm_lib.config import ROOT
from stkvlm_lib.data import course_zip
from stkvlm_lib.data.course_zip import COURSE_URL, FOLDER, CourseZipError, fetch, is_address, unpack
from stkvlm_lib.data.download import DownloadError
from stkvlm_lib.data.frame_sets import read_frames


def picture(colour) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (15, 10), colour).save(file, "JPEG")
    return file.getvalue()


def frames(folder: str, number: int, track: str = "abyss") -> dict[str, bytes]:
    """Files of so many frames of one view."""
    info = {"track": track, "karts": ["tux", "gnu"], "detections": [[[1, 0, 200, 150, 400, 250]]]}
    return {
        name: content
        for n in range(number)
        for name, content in (
            (f"{folder}/{n:05x}_info.json", json.dumps(info).encode()),
            (f"{folder}/{n:05x}_00_im.jpg", picture((40 * n, 90, 10))),
        )
    }


COURSE = frames("data/train", 3) | frames("data/valid", 2) | {"data/valid_grader/balanced_qa_pairs.json": b"[]"}


def make_zip(path, files=COURSE, *entries, method=zipfile.ZIP_DEFLATED):
    """A zip of `files`, and of `entries`: (ZipInfo, content)."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        for info, content in entries:
            archive.writestr(info, content)
    return path


@pytest.fixture
def course(tmp_path):
    return make_zip(tmp_path / "course.zip")


def files_in(folder) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name != ".fetch.lock"
    }


# Unpacking


def test_what_is_unpacked_is_what_read_frames_takes(course, tmp_path):
    got = unpack(course, tmp_path / "to")
    assert files_in(tmp_path / "to") == COURSE
    assert (got.folder, got.frames, got.written, got.kept) == (
        tmp_path / "to" / "data",
        {"train": 3, "valid": 2},
        len(COURSE),
        0,
    )
    assert {split: len(frames) for split, frames in read_frames(got.folder).splits.items()} == got.frames


@pytest.mark.parametrize(
    ("inside", "folder", "split"),
    [("frames", "frames", "all"), ("a/b/valid", "a/b", "valid"), (".", ".", "all")],
)
def test_other_layouts_that_read_frames_takes(tmp_path, inside, folder, split):
    got = unpack(make_zip(tmp_path / "x.zip", frames(inside, 2)), tmp_path / "to")
    assert got.folder == tmp_path / "to" / folder
    assert got.frames == {split: 2} == {split: len(found) for split, found in read_frames(got.folder).splits.items()}


def test_only_what_is_missing_is_written(course, tmp_path):
    to = tmp_path / "to"
    unpack(course, to)
    names = sorted(COURSE)
    (to / names[0]).unlink()
    (to / names[1]).write_bytes(COURSE[names[1]][:-1])
    (to / names[2]).write_bytes(bytes(len(COURSE[names[2]])))  # as long, but other bytes
    untouched = {name: (to / name).stat().st_ino for name in names[3:]}
    got = unpack(course, to)
    assert (got.written, got.kept) == (3, len(COURSE) - 3)
    assert files_in(to) == COURSE
    assert {name: (to / name).stat().st_ino for name in names[3:]} == untouched


def test_a_killed_call_leaves_whole_files_and_the_next_one_goes_on(course, tmp_path, monkeypatch):
    to, copy, copies = tmp_path / "to", shutil.copyfileobj, []

    def copy_three_and_a_half(source, target, length):
        copies.append(1)
        if len(copies) == 4:
            target.write(source.read(10))
            target.flush()
            raise KeyboardInterrupt
        copy(source, target, length)

    monkeypatch.setattr(shutil, "copyfileobj", copy_three_and_a_half)
    with pytest.raises(KeyboardInterrupt):
        unpack(course, to)
    whole = {name: content for name, content in files_in(to).items() if not name.endswith(".part")}
    assert len(whole) == 3 and whole.items() <= COURSE.items()
    monkeypatch.undo()
    assert unpack(course, to).kept == 3
    assert files_in(to) == COURSE


def test_what_macos_adds_is_left_out(tmp_path):
    extra = {"__MACOSX/data/._train": b"x", "data/train/._00000_info.json": b"x", "data/.DS_Store": b"x"}
    got = unpack(make_zip(tmp_path / "x.zip", COURSE | extra), tmp_path / "to")
    assert files_in(tmp_path / "to") == COURSE
    assert got.frames == {"train": 3, "valid": 2}


# Refusals: nothing may be written


def entry(name: str, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (entry("../outside_info.json"), "leave the folder"),
        (entry("data/train/../../../outside.txt"), "leave the folder"),
        (entry("/etc/outside.txt"), "leave the folder"),
        (entry("..\\outside.txt"), "leave the folder"),
        (entry("C:outside.txt"), "leave the folder"),
        (entry("C:/outside.txt"), "leave the folder"),
        (entry("data/train/link", stat.S_IFLNK | 0o777), "link"),
        (entry("data/train/pipe", stat.S_IFIFO | 0o600), "link or a device"),
        (entry("data/train/a\x1bb"), "control character"),
        (entry("./"), "no name"),
    ],
)
def test_a_zip_with_a_bad_entry_is_refused_as_a_whole(tmp_path, info, reason):
    path = make_zip(tmp_path / "bad.zip", COURSE, (info, b"/etc"))
    with pytest.raises(CourseZipError, match=reason) as caught:
        unpack(path, tmp_path / "to" / "deep")
    assert str(path) in str(caught.value) and repr(info.filename) in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


def test_an_encrypted_entry_is_refused(tmp_path):
    path = make_zip(tmp_path / "x.zip", frames("data/train", 1))
    content = bytearray(path.read_bytes())
    at = content.find(b"PK\x01\x02")
    content[at + 8] |= 1  # general purpose flag, bit 0
    path.write_bytes(content)
    with pytest.raises(CourseZipError, match="encrypted"):
        unpack(path, tmp_path / "to")


def test_an_entry_packed_another_way_is_refused(tmp_path):
    path = make_zip(tmp_path / "x.zip", frames("data/train", 1), method=zipfile.ZIP_BZIP2)
    with pytest.raises(CourseZipError, match="deflate"):
        unpack(path, tmp_path / "to")


def test_two_entries_of_one_name_are_refused(tmp_path):
    name = next(iter(COURSE))
    path = make_zip(tmp_path / "x.zip", COURSE, (entry("./" + name), b"other"))
    with pytest.raises(CourseZipError, match=f"{name}' is there twice"):
        unpack(path, tmp_path / "to")


def test_a_zip_bomb_is_refused(tmp_path):
    bomb = {"data/train/bomb": bytes(8 << 20)}
    path = make_zip(tmp_path / "x.zip", COURSE | bomb)
    with pytest.raises(CourseZipError, match=r"bytes when unpacked, over the limit"):
        unpack(path, tmp_path / "to")
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("limit", "named"), [("MAX_ENTRIES", "11 entries"), ("MAX_TOTAL", "bytes"), ("MAX_FILE", "is ")]
)
def test_limits_on_entries_and_bytes(course, tmp_path, monkeypatch, limit, named):
    monkeypatch.setattr(course_zip, limit, 10)
    with pytest.raises(CourseZipError, match=f"{named}.*over the limit of 10"):
        unpack(course, tmp_path / "to")


def test_an_entry_cannot_be_longer_than_the_zip_says(tmp_path):
    """The directory tells 5 bytes; what is packed is 1 MB."""
    path = make_zip(tmp_path / "x.zip", {"data/train/00000_info.json": bytes(1 << 20)})
    content = bytearray(path.read_bytes())
    for at, offset in ((content.find(b"PK\x03\x04"), 22), (content.find(b"PK\x01\x02"), 24)):
        content[at + offset : at + offset + 4] = struct.pack("<I", 5)
    path.write_bytes(content)
    with pytest.raises(CourseZipError, match="damaged"):
        unpack(path, tmp_path / "to")
    assert files_in(tmp_path / "to") == {}


def test_no_room_is_said_before_anything_is_written(course, tmp_path, monkeypatch):
    to = tmp_path / "to"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4096 * (len(COURSE) - 1)))
    to.mkdir()
    with pytest.raises(DownloadError, match=f"{4096 * len(COURSE):,} bytes are still to come"):
        unpack(course, to)
    assert files_in(to) == {}
    (to / "data" / "train").mkdir(parents=True)
    name = next(iter(COURSE))
    (to / name).write_bytes(COURSE[name])  # one less to write: now it fits
    assert unpack(course, to).kept == 1


# Broken or wrong zips


def test_a_cut_zip_says_so(course, tmp_path):
    course.write_bytes(course.read_bytes()[:-40])
    with pytest.raises(CourseZipError, match=f"{course}: not a whole zip.*fetch it again"):
        unpack(course, tmp_path / "to")


def test_no_damage_comes_out_as_another_error(tmp_path):
    path = make_zip(tmp_path / "x.zip", frames("data/train", 1))
    whole, rng = path.read_bytes(), random.Random(0)
    for number in range(150):
        data = bytearray(whole)
        for _ in range(3):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            unpack(path, tmp_path / f"to{number}")
        except CourseZipError as error:
            assert str(error).startswith(str(tmp_path)) and "\n" not in str(error)


def test_a_name_that_is_a_file_and_a_folder_is_one_line(tmp_path):
    path = make_zip(tmp_path / "x.zip", frames("data/train", 1) | {"data/a": b"x", "data/a/b": b"x"})
    with pytest.raises(CourseZipError, match="a/b: cannot be written"):
        unpack(path, tmp_path / "to")


def test_a_name_that_no_disk_takes_is_one_line(tmp_path):
    path = make_zip(tmp_path / "x.zip", frames("data/train", 1) | {f"data/{'a' * 300}": b"x"})
    with pytest.raises(CourseZipError, match="cannot be written .*File name too long"):
        unpack(path, tmp_path / "to")


def test_a_damaged_entry_is_named_and_the_others_stay(course, tmp_path):
    content = bytearray(course.read_bytes())
    with zipfile.ZipFile(course) as archive:
        third = archive.infolist()[2]
    content[third.header_offset + 30 + len(third.filename) + 5] ^= 0xFF
    course.write_bytes(content)
    with pytest.raises(CourseZipError, match=rf"{course}: entry '{third.filename}' is damaged.*fetch it again"):
        unpack(course, tmp_path / "to")
    assert sorted(files_in(tmp_path / "to")) == sorted(list(COURSE)[:2])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"notes/a.txt": b"x"}, "no .*_info.json in it.*notes/a.txt.*give the course's zip"),
        ({}, "no file at all"),
        (frames("a", 1) | frames("b", 1), r"several folders \(a, b\)"),
        (frames("a/train", 1) | frames("b/valid", 1), r"several folders \(a, b\)"),
    ],
)
def test_wrong_content_says_what_was_found(tmp_path, files, message):
    with pytest.raises(CourseZipError, match=message):
        unpack(make_zip(tmp_path / "x.zip", files), tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_target_that_cannot_be_written_is_named(course, tmp_path):
    (tmp_path / "to" / "data" / "train" / "00000_info.json").mkdir(parents=True)
    with pytest.raises(CourseZipError, match="train/00000_info.json: cannot be written.*call again"):
        unpack(course, tmp_path / "to")


# Fetching


def test_only_http_addresses_are_downloaded():
    assert is_address(COURSE_URL)
    assert not any(map(is_address, ("course.zip", "/home/me/course.zip", "C:\\course.zip", "file:///course.zip")))


def test_a_downloaded_zip_stays_so_that_the_next_call_needs_no_network(course, tmp_path, monkeypatch):
    calls = []

    def download(url, path):
        calls.append(url)
        if not path.exists():
            shutil.copy(course, path)
        return path

    monkeypatch.setattr(course_zip, "download", download)
    for url in ("http://a/x.zip", "http://a/x.zip", "http://b/x.zip"):
        assert fetch(url, tmp_path / "to").folder == tmp_path / "to" / "data"
    assert len(list((tmp_path / "to").glob("x-*.zip"))) == 2, "one file an address"


def test_a_web_page_in_place_of_the_zip_is_not_kept(tmp_path, monkeypatch):
    def download(url, path):
        path.write_bytes(b"<!DOCTYPE html><title>Log in</title>")
        return path

    monkeypatch.setattr(course_zip, "download", download)
    with pytest.raises(CourseZipError, match="http://a/x.zip: what came is not a whole zip.*DOCTYPE html.*browser"):
        fetch("http://a/x.zip", tmp_path)
    assert files_in(tmp_path) == {}


def test_two_fetches_into_one_folder_do_not_meet(course, tmp_path):
    to = tmp_path / "to"
    to.mkdir()
    with FileLock(to / ".fetch.lock"), pytest.raises(CourseZipError, match="another fetch is at work"):
        fetch(course, to)
    assert fetch(course, to).written == len(COURSE)


# The command


def test_the_command_says_whose_the_data_are_and_what_to_call_next(course, tmp_path, capsys):
    to = tmp_path / "with space"
    assert cli.main(["fetch", str(course), "--to", str(to)]) == 0
    said = capsys.readouterr().out
    assert "UT Austin" in said and "may not be redistributed" in said
    assert "train 3, valid 2" in said
    assert said.splitlines()[-1].endswith(f"./run_all.sh -p FRAMES_DIR '{to / 'data'}'")


def test_the_command_takes_the_courses_zip_into_a_place_that_git_ignores(monkeypatch, capsys):
    calls = []

    def fetch(source, to):
        calls.append((source, to))
        return course_zip.Unpacked(to / "data", {"train": 1}, 1, 0)

    monkeypatch.setattr(course_zip, "fetch", fetch)
    assert cli.main(["fetch"]) == 0
    assert calls == [(COURSE_URL, ROOT / FOLDER)]
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"./run_all.sh -p FRAMES_DIR {FOLDER}/data")
    assert f"/{FOLDER.split('/')[0]}/" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_commands_help_tells_the_owner_and_the_default_place(capsys):
    with pytest.raises(SystemExit):
        cli.main(["fetch", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "UT Austin" in said and "may not be redistributed" in said and FOLDER in said


@pytest.mark.parametrize("written", [None, b"no zip", b"PK\5\6" + bytes(18)], ids=["absent", "broken", "empty"])
def test_a_wrong_zip_is_one_line_and_status_2_and_nothing_is_left_behind(tmp_path, capsys, written):
    file = tmp_path / "x.zip"
    if written:
        file.write_bytes(written)
    assert cli.main(["fetch", str(file), "--to", str(tmp_path / "a" / "to")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == ([file] if written else [])
