"""Info files of any content: a frame comes out, or the file is named with what is wrong in it."""

import json

import pytest
from frame_files import write_frame

from stkvlm_lib.data import info_files
from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.data.frames import FramesError
from stkvlm_lib.grammar.scene import read_scene

BOX = [1, 0, 260, 160, 340, 240]
DEEP = "[" * 100_000 + "]" * 100_000


def views_of(*rows):
    return {"views": len(rows), "detections": list(rows)}


def boxed(*corners):
    return views_of([[1, 0, *corners]])


BROKEN = {
    "a name of 100,000 letters": ({"track": "a" * 100_000}, "'track': the name .* has 100,000 characters"),
    "an empty track": ({"track": ""}, "'track': the name '' is empty"),
    "an empty kart": ({"karts": ["tux", "", "kiki"]}, "'karts': the name '' is empty"),
    "a kart of spaces": ({"karts": [" ", "gnu", "kiki"]}, "'karts': the name ' ' has"),
    "a control character": ({"track": "aby\x1b[2Jss"}, r"'track': the name 'aby\\x1b\[2Jss' has a character"),
    "a new line": ({"karts": ["tu\nx"]}, "'karts': the name"),
    "half a character": ({"track": "abyss\ud800"}, "'track': the name"),
    "text that runs backwards": ({"karts": ["\u202etux"]}, "'karts': the name"),
    "a name of signs": ({"track": "$^{}"}, "'track': the name .* no letter"),
    "1,000 karts": ({"karts": [f"kart{n}" for n in range(1000)]}, "'karts' lists 1,000 names"),
    "a seed that is a list": ({"race_seed": [1]}, "'race_seed' is .*neither a whole number nor a name"),
    "a seed of 4,000 digits": ({"race_seed": 10**4000}, "'race_seed' is"),
    "a seed of control characters": ({"race_seed": "a\x00"}, "'race_seed': the name"),
    "a box of 1e308": (boxed(0, 0, 1e308, 9), r"view 0: box .* is none of a picture of 600x400 px"),
    "a box of 10**400": (boxed(0, 0, 10**400, 9), "view 0: detection .* is not six numbers"),
    "a box of negative width": (boxed(50, 0, 40, 9), r"view 0: box \[50, 0, 40, 9\] is none of a picture"),
    "a box of negative height": (boxed(0, 50, 40, 9), "view 0: box .* is none of a picture"),
    "a corner that is no number": (boxed(0, float("nan"), 40, 9), "view 0: detection .* is not six numbers"),
    "an endless corner": (boxed(0, float("-inf"), 40, 9), "view 0: detection .* is not six numbers"),
    "a corner in quotes": (boxed(0, "0", 40, 9), "view 0: detection .* is not six numbers"),
    "a corner that is true": (boxed(0, True, 40, 9), "view 0: detection .* is not six numbers"),
    "a detection that is an object": (views_of([{"box": 1}]), "view 0: detection .* is not six numbers"),
    "half a class": (
        views_of([[1.5, *BOX[1:]]]),
        "view 0: detection .* is not six numbers .*whole",
    ),
    "half a kart": (
        views_of([[1, 0.5, *BOX[2:]]]),
        "view 0: detection .* is not six numbers .*whole",
    ),
    "100,000 detections": (views_of([BOX] * 100_000), "view 0: 100,000 detections, over the limit of 1,000"),
    "100,000 views": (
        {"detections": [[]] * 100_000},
        "100000 detection lists but 2 pictures .*missing: 00001_02_im.jpg, .*, 00001_06_im.jpg and more",
    ),
    "a distance of 10**400": ({"distance": [[10**400], [1]]}, "'distance' holds 1000.*, not 0 to 1,000,000"),
    "a distance that is no number": ({"distance": [[float("nan")], [1]]}, "'distance' holds nan"),
    "a negative distance": ({"distance": [[-1], [1]]}, "'distance' holds -1"),
    "more visible than all of it": ({"visible": [[1.5], [1]]}, "'visible' holds 1.5, not 0 to 1"),
    "endless pixels": ({"pixels": [[float("inf")], [1]]}, "'pixels' holds inf"),
    "a picture of 1e-300 px": ({"pixels": [[5], [1]], "image_size": [1e-300, 1]}, "image_size .* is not the width"),
    "a picture of 10**400 px": ({"pixels": [[5], [1]], "image_size": [10**400, 9]}, "image_size .* is not the width"),
}
"""What is wrong -> changes of a good frame, and what is said of its file."""


@pytest.mark.parametrize("what", BROKEN)
def test_a_value_that_cannot_be_is_refused_by_file_and_key_or_skipped(tmp_path, what):
    changes, message = BROKEN[what]
    write_frame(tmp_path, "00000")
    write_frame(tmp_path, "00001", **changes)
    with pytest.raises(FramesError, match=f"00001_info.json: .*{message}") as error:
        read_frames(tmp_path)
    assert len(str(error.value)) < 500 and str(error.value).isprintable()
    assert str(error.value).endswith("; restore it, or correct it (SKIP_BROKEN leaves out such frames)")
    folder = read_frames(tmp_path, skip_broken=True)
    assert [frame.frame_id for frame in folder.frames()] == ["00000"]
    ((file, reason),) = folder.skipped
    assert file.endswith("00001_info.json") and f"{reason}; restore it" in str(error.value)


RAW = {
    "nested 100,000 deep": (DEEP, "nested too deep"),
    "an integer of 10,000 digits": ('{"track": %s}' % ("9" * 10_000), "digits"),
    "a key that stands twice": ('{"track": "abyss", "track": "mines"}', "the key 'track' stands twice in one object"),
    "nothing": ("", "Expecting value"),
    "null": ("null", "holds a NoneType"),
}


@pytest.mark.parametrize("what", RAW)
def test_a_text_that_is_no_info_file_is_refused(tmp_path, what):
    text, message = RAW[what]
    write_frame(tmp_path, "00000").write_text(text)
    with pytest.raises(FramesError, match=f"00000_info.json: .*{message}"):
        read_frames(tmp_path)


def test_a_file_over_the_limit_is_not_even_read(tmp_path, monkeypatch):
    write_frame(tmp_path, "00000")
    monkeypatch.setattr(info_files, "MAX_BYTES", 50)
    with pytest.raises(FramesError, match="00000_info.json: .*bytes, over the limit of 50"):
        read_frames(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_read_over(tmp_path, encoding):
    info = write_frame(tmp_path, "00000", track="bücherei")
    info.write_bytes(info.read_text().encode(encoding))
    assert read_frames(tmp_path).frames()[0].track == "bücherei"


def test_links_that_lead_to_themselves_are_broken_files(tmp_path):
    for name in ("00000", "00001", "00002"):
        write_frame(tmp_path, name)
    for file in (tmp_path / "00001_info.json", tmp_path / "00002_01_im.jpg"):
        file.unlink()
        file.symlink_to(file)
    with pytest.raises(FramesError, match="00001_info.json: .*symbolic links"):
        read_frames(tmp_path)
    folder = read_frames(tmp_path, skip_broken=True)
    assert [frame.frame_id for frame in folder.frames()] == ["00000"]
    assert [reason for _, reason in folder.skipped if "symbolic links" in reason] == [r for _, r in folder.skipped]


@pytest.mark.parametrize("name", ["it's", 'a "b"', "ünïcödé", "two\nlines", "-rf", "a: b"])
def test_folders_of_any_name_are_told_in_one_line(tmp_path, name):
    write_frame(tmp_path / name, "00000")
    write_frame(tmp_path / name, "00001").write_text("{")
    folder = read_frames(tmp_path / name, skip_broken=True)
    assert len(folder) == 2
    ((file, reason),) = folder.skipped
    assert reason.startswith("not readable as JSON") and "\n" not in file
    assert file == str(tmp_path / name / "00001_info.json").replace("\n", r"\n")


def test_hidden_files_are_no_data(tmp_path):
    """macOS adds them to what it copies."""
    write_frame(tmp_path, "00000")
    for name in ("00000_info.json", "00000_00_im.jpg", "00001_info.json"):
        (tmp_path / f"._{name}").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / ".DS_Store").touch()
    folder = read_frames(tmp_path, check_images=True)
    assert len(folder) == 2 and folder.skipped == ()


@pytest.mark.parametrize("ending", [".JPG", ".jpeg", ".JPEG", ".png"])
def test_pictures_may_have_other_endings(tmp_path, ending):
    write_frame(tmp_path / "test", "00000")
    for picture in (tmp_path / "test").glob("*.jpg"):
        picture.rename(picture.with_suffix(ending))
    folder = read_frames(tmp_path, check_images=True)
    assert [view.image_file for view in folder] == [f"test/00000_00_im{ending}", f"test/00000_01_im{ending}"]
    assert folder.views()[1].image().size == (30, 20)
    assert folder.find("test/00000_01_im.jpg") == folder.views()[1]


def test_two_pictures_of_one_view_are_refused(tmp_path):
    write_frame(tmp_path, "00000")
    (tmp_path / "00000_01_im.JPG").write_bytes((tmp_path / "00000_01_im.jpg").read_bytes())
    with pytest.raises(
        FramesError, match=r"2 detection lists but 3 pictures .*of a view that has another: 00000_01_im\.JPG"
    ):
        read_frames(tmp_path)


OUTSIDE = [[640, 180, 720, 260], [-90, 0, -1, 40], [10, 400, 40, 500], [10, -60, 40, -1]]


@pytest.mark.parametrize("box", OUTSIDE)
def test_a_box_wholly_outside_the_picture_is_dropped_and_told(tmp_path, box):
    rows = [[BOX, [1, 1, *box]], [BOX]]
    measured = {"visible": [[0.5, 1.0], [0.25]], "distance": [[3, 4], [5]]}
    write_frame(tmp_path, "00000", detections=rows, **measured)
    folder = read_frames(tmp_path)
    first, second = folder.views()
    assert [(d.object_id, d.visible, d.distance) for d in first.detections] == [(0, 0.5, 3)]
    assert [kart.name for kart in read_scene(first).karts] == ["tux"] and len(second.detections) == 1
    assert folder.outside() == [{"file": str(tmp_path / "00000_info.json"), "boxes left out": 1}]


def test_a_box_of_which_a_pixel_is_inside_stays(tmp_path):
    rows = [[[1, 0, 599, 399, 700, 500]], [[1, 0, -50, -50, 0, 0]]]
    write_frame(tmp_path, "00000", detections=rows)
    folder = read_frames(tmp_path)
    assert [len(view.detections) for view in folder] == [1, 1] and folder.outside() == []


def test_an_add_on_is_a_kart_like_any_other(tmp_path):
    info = write_frame(tmp_path, "00000", karts=["add-on kart 2.0", "gnu", "$x^{$"], track="my track")
    assert json.loads(info.read_text())["karts"] == list(read_frames(tmp_path).frames()[0].karts)
