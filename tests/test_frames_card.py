"""Dataset cards: numbers, sources, gaps, and the licences of the game's artwork."""

import re
import tomllib

import pytest
import yaml
from frame_files import write_frame
from PIL import Image

from stkvlm_lib import __main__ as cli
from stkvlm_lib.cards.frame_sources import KEYS, Kind, find_sources
from stkvlm_lib.cards.frames_card import MAX_RACES, make_card, write_card
from stkvlm_lib.cards.game_licences import CC_BY_SA, GPL, UNKNOWN, game_licences, has_gpl, licence_of
from stkvlm_lib.config import ROOT
from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.data.frames import FramesError
from stkvlm_lib.files import read_json, write_json
from stkvlm_lib.game.race_plans import KARTS, TRACKS
from stkvlm_lib.markdown import table

CLEAR = ["adiumy", "tux", "xue"]
BIG, SMALL = [1, 0, 200, 150, 400, 250], [1, 1, 300, 200, 312, 212]
COURSE_KEYS = {"distance_down_track": [0.0] * 3, "velocity": [[0.0] * 3] * 3}


def write_race(folder, seed: int, track: str, karts=tuple(CLEAR), frames: int = 1, views=((BIG,), ())) -> None:
    for frame in range(frames):
        write_frame(
            folder,
            f"{seed:04x}{frame:02x}",
            views=len(views),
            detections=[list(rows) for rows in views],
            track=track,
            karts=list(karts),
            race_seed=seed,
        )


@pytest.fixture
def folder(tmp_path):
    """Two races of train, one of test."""
    write_race(tmp_path / "train", 1, "abyss", frames=2)
    write_race(tmp_path / "train", 2, "hacienda", views=((BIG, SMALL), (BIG,)))
    write_race(tmp_path / "test", 3, "abyss", karts=["gnu", "tux", "suzanne"])
    return tmp_path


def manifest(**changes) -> dict:
    recipe = {"tracks": ["abyss", "hacienda"], "races": 1, "saved": [30, 20], "seed": 77}
    races = [
        {
            "number": f"{seed:04x}",
            "split": split,
            "seed": seed,
            "track": track,
            "reverse": seed == 2,
            "karts": CLEAR,
            "frames": frames,
            "skipped": skipped,
            "truth_sha256": "ab",
        }
        for seed, split, track, frames, skipped in (
            (1, "train", "abyss", [0, 1], {"2": "took longer than 30 s", "3": "took longer than 30 s"}),
            (2, "train", "hacienda", [0], {"1": "the process ended with status -11"}),
            (3, "test", "abyss", [0], {}),
        )
    ]
    return {
        "recipe": {"train": recipe, "test": recipe | {"races": 2}},
        "versions": {"stkvlm": "0.1.0", "PySuperTuxKart2": "0.7.4"},
        "complete": True,
        "images": 8,
        "frames": 4,
        "skipped_frames": 3,
        "truth_sha256": "beef" * 16,
        "races": races,
    } | changes


def card_of(*folders) -> str:
    return make_card(read_frames(folders if len(folders) > 1 else folders[0]))


def front_matter(card: str) -> dict:
    assert card.startswith("---\n")
    return yaml.safe_load(card.split("---\n")[1])


def section(card: str, heading: str) -> str:
    return re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", card, re.M | re.S)[1]


def rows_of(text: str, after: str = "") -> list[list[str]]:
    """The cells of the first table that follows some words, heading first."""
    lines = text[text.index(after) :].splitlines()
    begin = next(n for n, line in enumerate(lines) if line.startswith("| "))
    end = next((n for n in range(begin, len(lines)) if not lines[n].startswith("|")), len(lines))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[begin:end] if "---" not in line]


# What the set holds


def test_contents_by_split(folder):
    assert rows_of(section(card_of(folder), "Contents")) == [
        ["split", "races", "frames", "pictures", "tracks", "karts"],
        ["train", "2", "3", "6", "2", "3"],
        ["test", "1", "1", "2", "1", "3"],
        ["**all**", "3", "4", "8", "2", "5"],
    ]
    assert "JPEG of 30x20 px; 2 pictures a frame" in card_of(folder)


def test_pictures_are_told_by_kind_and_shape(folder, tmp_path):
    assert "Not 3 to 2" not in card_of(folder)
    (picture,) = (tmp_path / "test").glob("*_00_im.jpg")
    picture.unlink()
    Image.new("RGB", (320, 240)).save(picture.with_suffix(".png"))
    told = "JPEG and PNG of 30x20 and 320x240 px; .* Not 3 to 2: 320x240; a model sees them pressed into that shape."
    assert re.search(told, card_of(folder))


def test_pictures_by_karts_that_the_rule_keeps(folder):
    """The small box is 3 px wide at 150x100 px, so the rule drops it; an empty view counts as 0."""
    assert rows_of(section(card_of(folder), "What the pictures show")) == [
        ["karts", "train", "test"],
        ["0", "2 (33.3 %)", "1 (50.0 %)"],
        ["1", "4 (66.7 %)", "1 (50.0 %)"],
    ]


def test_line_ups_count_races_not_frames(folder):
    drives = section(card_of(folder), "Who drives where")
    assert rows_of(drives, "train: 6 of 10 pairs") == [
        ["track", "adi", "gnu", "suz", "tux", "xue"],
        ["abyss", "1", "·", "·", "1", "1"],
        ["hacienda", "1", "·", "·", "1", "1"],
    ]
    assert rows_of(drives, "test: 3 of 5 pairs of a track and a kart occur; 1 of them in train too")[1] == [
        *("abyss", "·", "1", "1", "1", "·")
    ]


def test_names_from_data_are_no_markup_in_a_card(tmp_path):
    evil = "<svg/onload=window.XSS=1>|`x`[a](http://b)"
    write_race(tmp_path / "train", 1, evil, karts=[evil, "tux"])
    write_race(tmp_path / "test", 2, "abyss", karts=["tux", "gnu"])
    info = next((tmp_path / "train").glob("*_info.json"))
    write_json(info, read_json(info) | {"<b>`key`|": 1})
    card = card_of(tmp_path)
    assert "<svg" not in card and "<b>" not in card.replace("`<b>'key'\\|`", "")
    assert r"test has none of the tracks &lt;svg/onload=window.XSS=1&gt;\|\`x\`\[a\](http://b)" in card


def test_headings_of_karts_tell_them_apart(tmp_path):
    write_race(tmp_path, 1, "abyss", karts=["sara_the_racer", "sara_the_wizard", "tux"])
    assert rows_of(card_of(tmp_path), "Who drives")[0] == ["track", "sar<br>rac", "sar<br>wiz", "tux"]
    write_race(tmp_path, 2, "abyss", karts=["tuxedo", "tux"])
    assert rows_of(card_of(tmp_path), "Who drives")[0][-2:] == ["tux", "tuxedo"]


def test_unseen_pairs_are_promised_only_where_there_is_such_a_split(folder):
    assert "`test_unseen`" not in card_of(folder)
    write_race(folder / "test_unseen", 4, "abyss", karts=["gnu", "kiki"])
    card = card_of(folder)
    assert "`test_unseen` no kart drives that drives there in `train`" in card
    assert "test_unseen: 2 of 6 pairs of a track and a kart occur; 0 of them in train too" in card


def test_keys_that_the_info_files_have(folder):
    keys = [row[0].strip("`") for row in rows_of(section(card_of(folder), "What an info file says"))[1:]]
    assert keys == list(read_json(next((folder / "train").glob("*_info.json"))))


def test_every_key_of_the_bundled_frames_is_explained(bundled):
    (source,) = find_sources(bundled)
    assert set(source.keys) <= set(KEYS)


def test_gaps_are_counted(folder):
    gaps = section(card_of(folder), "Known gaps").strip().splitlines()
    assert "- test has none of the tracks hacienda." in gaps
    assert "- test has none of the karts adiumy, xue." in gaps
    assert "- train has none of the karts gnu, suzanne." in gaps
    assert any("No picture shows the karts" in gap and "beastie" in gap and "tux" not in gap for gap in gaps)
    assert any(gap.startswith("- In 3 (37.5 %) of all pictures the course's rule keeps no kart") for gap in gaps)
    assert any(gap.startswith("- In 4 (50.0 %) of all pictures the kart that the camera follows") for gap in gaps)
    assert "- Only karts are detected (class 1), no items and no other objects." in gaps
    write_race(folder / "test", 9, "abyss", views=([[5, 0, 1, 1, 9, 9]],))
    assert "Only karts are detected" not in card_of(folder)


def test_broken_frames_that_were_left_out_are_counted(folder):
    (folder / "test" / "000300_00_im.jpg").write_bytes(b"")
    write_race(folder / "test", 4, "abyss")
    assert "- 1 broken frames of the folder are left out here." in make_card(read_frames(folder, skip_broken=True))


@pytest.mark.parametrize(("pictures", "category"), [(8, "n<1K"), (1_000, "1K<n<10K"), (52_500, "10K<n<100K")])
def test_front_matter_names_the_size(folder, monkeypatch, pictures, category):
    frames = read_frames(folder)
    monkeypatch.setattr(type(frames), "__len__", lambda _: pictures)
    assert front_matter(make_card(frames))["size_categories"] == category


def test_front_matter_is_what_the_hub_reads(folder):
    card = make_card(read_frames(folder), "Frames: a set")
    data = front_matter(card)
    assert data["pretty_name"] == "Frames: a set" and "\n# Frames: a set\n" in card
    assert data["license"] == ["cc-by-sa-4.0", "gpl-3.0"]
    assert "visual-question-answering" in data["task_categories"]
    assert [files["path"] for files in data["configs"][0]["data_files"]] == ["train/*.jpg", "test/*.jpg"]


# Sources


def test_a_rendered_set_tells_how_to_make_it_again(folder):
    write_json(folder / "manifest.json", manifest())
    source = section(card_of(folder), "Source")
    assert rows_of(source)[0] == ["setting", "train", "test"]
    assert ["races on each track", "1", "2"] in rows_of(source)
    assert ["seed", "77", "77"] in rows_of(source)
    assert ["tracks", "2", "2"] in rows_of(source)
    assert ["saved at, px", "30x20", "30x20"] in rows_of(source)
    assert f"python -m stkvlm_lib render FOLDER --replay {folder.name}/manifest.json" in source
    assert "PySuperTuxKart2 0.7.4" in source and "beef" * 16 in source
    assert rows_of(source, "races with their seeds")[1:] == [
        ["0001", "train", "1", "abyss", "adiumy tux xue", "2", "2 3"],
        ["0002", "train", "2", "hacienda (reverse)", "adiumy tux xue", "1", "1"],
        ["0003", "test", "3", "abyss", "adiumy tux xue", "1", "·"],
    ]
    assert "not complete" not in source


def test_the_command_can_be_called_as_it_stands(folder):
    write_json(folder / "manifest.json", manifest())
    command = re.search(r"^python -m stkvlm_lib (render .*)$", card_of(folder), re.M)[1]
    options = cli.build_parser().parse_args(command.split())
    assert str(options.replay) == f"{folder.name}/manifest.json"


def test_skipped_frames_are_named_with_their_reasons(folder):
    write_json(folder / "manifest.json", manifest())
    source = section(card_of(folder), "Source")
    assert rows_of(source, "3 of 7 frames were skipped (abyss 2, hacienda 1)")[1:] == [
        ["took longer than 30 s", "2"],
        ["the process ended with status -11", "1"],
    ]
    races = [race | {"skipped": {}} for race in manifest()["races"]]
    write_json(folder / "manifest.json", manifest(races=races))
    assert "No frame was skipped." in card_of(folder)


def test_a_set_that_is_still_being_rendered_says_so(folder):
    begun = {"recipe": manifest()["recipe"], "versions": {}, "complete": False, "races": []}
    write_json(folder / "manifest.json", begun)
    assert "**The set is not complete.**" in card_of(folder)


def test_many_races_are_left_to_the_manifest(folder):
    races = manifest()["races"][:1] * (MAX_RACES + 1)
    write_json(folder / "manifest.json", manifest(races=races))
    source = section(card_of(folder), "Source")
    assert f"All {MAX_RACES + 1} races are in `manifest.json`." in source and "adiumy tux xue" not in source


def test_a_manifest_that_does_not_fit_the_folder_is_a_gap(folder):
    write_json(folder / "manifest.json", manifest(frames=5))
    assert "`manifest.json` records 5 frames, but 4 are in the folder." in card_of(folder)
    write_json(folder / "manifest.json", manifest())
    assert "records" not in section(card_of(folder), "Known gaps")


def test_a_broken_manifest_is_named(folder):
    (folder / "manifest.json").write_text("{")
    with pytest.raises(FramesError, match="manifest.json: not readable as JSON"):
        card_of(folder)


def test_rendered_frames_without_a_manifest_say_what_is_not_known(folder):
    source = section(card_of(folder), "Source")
    assert "no `manifest.json`" in source and "render FOLDER" not in source


def test_course_data_are_recognised_and_not_offered(tmp_path):
    write_frame(tmp_path / "train", "00000", **COURSE_KEYS)
    card = card_of(tmp_path)
    assert find_sources(read_frames(tmp_path))[0].kind == Kind.COURSE
    assert "belong to UT Austin and may not be redistributed" in section(card, "Licences and credits")
    assert "offered under" not in card and "SuperTuxKart-Team" not in card
    assert front_matter(card)["license"] == "other"


@pytest.mark.parametrize("change", [{"extra": 1}, {"track": "my_own_track"}, {"karts": ["mine"] * 3}])
def test_frames_of_another_form_have_an_unknown_source(tmp_path, change):
    write_frame(tmp_path / "train", "00000", **COURSE_KEYS | change)
    card = card_of(tmp_path)
    assert "Unknown source" in section(card, "Source") and "SuperTuxKart" not in card.split("---\n")[2]
    assert "licence of frames of unknown source is unknown" in card
    assert "UT Austin and may not" not in card
    assert front_matter(card)["license"] == "unknown"


@pytest.mark.parametrize("name", ["data", "all", "train"])
def test_the_manifest_of_a_set_without_splits_is_found(tmp_path, name):
    write_race(tmp_path / name, 1, "abyss")
    write_json(tmp_path / name / "manifest.json", manifest(recipe={"all": {"seed": 5}}, frames=1))
    (source,) = find_sources(read_frames(tmp_path / name))
    assert (source.root, source.kind) == (tmp_path / name, Kind.RENDERED)
    assert "configs" not in front_matter(card_of(tmp_path / name))


def test_several_sets_have_a_source_each(folder, tmp_path_factory):
    course = tmp_path_factory.mktemp("course")
    write_frame(course / "train", "00000", **COURSE_KEYS)
    write_json(folder / "manifest.json", manifest())
    card = card_of(folder, course)
    assert "beef" in section(card, f"Source of {folder.name}")
    assert "UT Austin" in section(card, f"Source of {course.name}")
    assert "may not be redistributed" in card and "offered under" in card
    assert front_matter(card)["license"] == "other"
    assert rows_of(section(card, "Contents"))[1][:4] == ["train", "3", "4", "8"]


# Licences


def test_every_track_and_kart_that_can_be_rendered_has_its_licences():
    known = game_licences()
    assert set(known["tracks"]) == set(TRACKS) and set(known["karts"]) == set(KARTS)
    for artwork in (*known["tracks"].values(), *known["karts"].values()):
        assert artwork["name"] and artwork["credits"] and sum(artwork["licences"].values()) > 0


@pytest.mark.parametrize(
    ("track", "karts", "licence"),
    [
        ("abyss", CLEAR, CC_BY_SA),
        ("stk_enterprise", CLEAR, GPL),
        ("hacienda", CLEAR, GPL),
        ("abyss", [*CLEAR, "suzanne"], GPL),
        ("abyss", [*CLEAR, "wilber"], GPL),
        ("abyss", [*CLEAR, "hexley"], UNKNOWN),
        ("somewhere", ["suzanne"], UNKNOWN),
    ],
)
def test_the_licence_of_a_picture_follows_from_track_and_karts(track, karts, licence):
    assert licence_of(track, karts) == licence


def test_tracks_and_karts_with_gpl_artwork():
    """As audited by hand from the package's copyright file."""
    known = game_licences()
    assert {name for name, artwork in known["tracks"].items() if not has_gpl(artwork)} == {
        *("abyss", "black_forest", "candela_city", "cocoa_temple", "cornfield_crossing", "fortmagma"),
        *("gran_paradiso_island", "ravenbridge_mansion"),
    }
    assert {name for name, artwork in known["karts"].items() if has_gpl(artwork)} == {"suzanne", "wilber"}


def test_the_card_offers_every_picture_under_one_licence(folder):
    licences = section(card_of(folder), "Licences and credits")
    offered = {re.match(r"\[(.*?)\]", row[0])[1]: row[2] for row in rows_of(licences, "no legal advice")[1:]}
    assert offered == {"CC-BY-SA 4.0": "4", "GPL-3.0-or-later": "4"}


def test_the_card_tells_licence_notes_and_credits_of_what_is_shown_alone(folder):
    licences = section(card_of(folder), "Licences and credits")
    assert rows_of(licences, "| track |")[1:] == [
        ["abyss", "Antediluvian Abyss", "22 CC-BY-SA-4.0", ""],
        ["hacienda", "Hacienda", "67 GPL-3+ (general entry)", "yes"],
    ]
    assert [row[0] for row in rows_of(licences, "| kart |")[1:]] == ["adiumy", "gnu", "suzanne", "tux", "xue"]
    assert '- suzanne: Body, kart and wheel textures are under "GPL" without a version.' in licences
    assert "- tux: Julian Schönbächler (XGhost), Benau" in licences
    assert "zengarden" not in licences
    assert "no legal advice" in licences


def test_a_track_that_is_not_in_the_package_is_not_offered(tmp_path):
    write_race(tmp_path, 1, "new_track")
    card = card_of(tmp_path)
    assert ["new_track", "?", "not in this package", "?"] in rows_of(card, "| track | in the game")
    assert front_matter(card)["license"] == ["unknown"]


# Writing


def test_the_command_writes_the_card_into_the_folder(folder, capsys):
    assert cli.main(["card", str(folder), "--title", "Mine"]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "README.md")
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text == make_card(read_frames(folder), "Mine")
    assert cli.main(["card", str(folder), "--out", str(folder / "other.md")]) == 0
    assert "# Frames of SuperTuxKart (" in (folder / "other.md").read_text(encoding="utf-8")


def test_a_card_has_no_unfilled_place_no_gap_and_no_path_of_this_machine(bundled, tmp_path):
    text = write_card(bundled, tmp_path / "card.md").read_text(encoding="utf-8")
    assert not re.search(r"\{\{|\}\}|\{%|None|StrictUndefined", text)
    assert str(ROOT) not in text
    assert "\n\n\n" not in text


def test_the_card_of_the_bundled_frames_is_up_to_date(bundled):
    text = (ROOT / "frames" / "README.md").read_text(encoding="utf-8")
    title = re.search(r"^# (.*)$", text, re.M)[1]
    assert text == make_card(bundled, title), f'call python -m stkvlm_lib card frames --title "{title}"'


def test_tables_escape_what_would_break_them():
    assert table([{"a": "x|y\nz", "b": 1234}], right=True) == "| a | b |\n| --- | --: |\n| x\\|y z | 1,234 |"
    assert table([]) == ""


def test_what_the_library_reads_beside_its_modules_is_installed_with_it():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    packages = [path.parent for path in (ROOT / "stkvlm_lib").rglob("__init__.py")]
    files = [path for folder in packages for path in folder.iterdir() if path.is_file() and path.suffix != ".py"]
    assert files and all(any(path.match(pattern) for pattern in patterns) for path in files)
