import json

import pytest
from frame_files import write_frame
from huggingface_hub import DatasetCard
from PIL import Image

from stkvlm_lib.cards import dataset_folder
from stkvlm_lib.cards.dataset_folder import CONFIGS, export_dataset, read_dataset
from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.files import read_json
from stkvlm_lib.parallel import Workers
from stkvlm_lib.qa.generate import Plan, write_qa_sets
from stkvlm_lib.qa.qa_sets import QaError, Record, read_records
from stkvlm_lib.typed import read_rows

SPLITS = {"train", "valid", "test"}


@pytest.fixture(scope="module")
def exported(written, bundled, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    (folder / "left over.txt").touch()
    return folder, export_dataset(written[0], bundled, folder, "# A card\n")


def test_reading_back_gives_the_same_records(exported, written):
    folder, _ = exported
    questions, choices, contrast = (read_dataset(folder, config) for config in CONFIGS)
    assert SPLITS <= set(questions) == set(choices) == set(contrast)
    for split in questions:
        expected = [
            r for form in ("{}.jsonl", "{}_extended.jsonl") for r in read_records(written[0] / form.format(split))
        ]
        assert [Record(**row) for row in questions[split]] == expected
        assert choices[split] == read_json(written[0] / f"{split}_mc.json")
        assert contrast[split] == read_rows(written[0] / f"{split}_contrast.jsonl", dict)
        name = f"{split}_qa_pairs.json"
        assert (folder / "course" / name).read_bytes() == (written[0] / name).read_bytes()


def test_every_line_names_a_picture_beside_it_that_is_the_right_one(exported, bundled):
    folder, files = exported
    assert not (folder / "left over.txt").exists() and folder / "README.md" in files
    for metadata in folder.glob("*/*/metadata.jsonl"):
        rows = [json.loads(line) for line in metadata.read_text().splitlines()]
        assert {row["file_name"] for row in rows} == {path.name for path in metadata.parent.glob("*.jpg")}
        for row in rows[:: max(1, len(rows) // 20)]:
            picture = Image.open(metadata.parent / row["file_name"])
            assert picture.convert("RGB") == bundled.by_image_file[row["image_file"]].image()


def test_the_card_names_every_file_of_every_configuration(exported):
    folder, _ = exported
    card = DatasetCard.load(folder / "README.md")
    assert card.text.strip() == "# A card" and card.data.license
    configs = {config["config_name"]: config for config in card.data.to_dict()["configs"]}
    assert set(configs) == set(CONFIGS) and [name for name in configs if configs[name].get("default")] == ["questions"]
    for config in configs.values():
        assert {entry["split"] for entry in config["data_files"]} >= SPLITS
        for entry in config["data_files"]:
            assert all(list(folder.glob(pattern)) for pattern in entry["path"])
    assert "Licences" in (folder / "FRAMES.md").read_text()


def test_pictures_are_copied_where_the_disk_has_no_links(written, bundled, tmp_path, monkeypatch):
    def no_link(source, target):
        raise OSError("no links here")

    monkeypatch.setattr(dataset_folder.os, "link", no_link)
    export_dataset(written[0], bundled, tmp_path / "dataset", "# A card\n")
    picture = next((tmp_path / "dataset").glob("questions/test/*.jpg"))
    original = bundled.by_image_file[picture.name.replace("-", "/")].image_path
    assert picture.read_bytes() == original.read_bytes() and not picture.samefile(original)


def test_pictures_keep_their_endings(tmp_path):
    for number in range(2):
        write_frame(tmp_path / "data" / "train", f"0000{number}", views=1)
    jpeg = tmp_path / "data" / "train" / "00001_00_im.jpg"
    Image.new("RGB", (30, 20)).save(jpeg.with_suffix(".PNG"))
    jpeg.unlink()
    folder = read_frames(tmp_path / "data")
    write_qa_sets({"train": folder.frames()}, tmp_path / "qa", Plan(contrast_pictures=0), Workers(quiet=True))
    export_dataset(tmp_path / "qa", folder, tmp_path / "dataset", "")
    questions = tmp_path / "dataset" / "questions" / "train"
    named = {row["file_name"] for row in read_rows(questions / "metadata.jsonl", dict)}
    assert named == {"train-00000_00_im.jpg", "train-00001_00_im.PNG"}
    (entry,) = DatasetCard.load(tmp_path / "dataset" / "README.md").data.to_dict()["configs"][0]["data_files"]
    found = {path.name for pattern in entry["path"] for path in (tmp_path / "dataset").glob(pattern)}
    assert found == {*named, "metadata.jsonl"} == {path.name for path in questions.iterdir()}


def test_a_folder_without_questions_is_refused(tmp_path, bundled):
    with pytest.raises(QaError, match="no questions to export"):
        export_dataset(tmp_path, bundled, tmp_path / "dataset", "")
