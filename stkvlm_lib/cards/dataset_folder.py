"""A run's questions with their pictures as one folder that Hugging Face `datasets` loads, and reading it back.

`load_dataset(folder)` gives every question with its picture, the ten forms first and then the extended sets;
`load_dataset(folder, "multiple_choice")` and `"contrast"` the others. Each configuration is a folder a split, with its
pictures and a `metadata.jsonl` that names the picture of each line: the one form in which `datasets` opens pictures
without a copy in every line. `course/` holds the course's JSON files as they are.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from huggingface_hub import CardData, DatasetCardData, RepoCard

from stkvlm_lib.cards.frames_card import make_card, size_category
from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.data.frames import FLAT_SPLIT, SPLITS
from stkvlm_lib.files import read_json, whole_file, write_text
from stkvlm_lib.qa.qa_sets import CONTRAST, COURSE, COURSE_JSON, EXTENDED, MULTIPLE_CHOICE, QaError
from stkvlm_lib.typed import stream_rows

METADATA = "metadata.jsonl"
FILE_NAME = "file_name"
"""The column by which `datasets` finds the picture of a line, beside it in the folder."""
QUESTIONS = "questions"
CONFIGS = {QUESTIONS: (COURSE, EXTENDED), "multiple_choice": (MULTIPLE_CHOICE,), "contrast": (CONTRAST,)}
"""Configuration -> the files of a split that it holds."""


def export_dataset(qa_folder: Path, folder: FrameSet, out: Path, card: str) -> list[Path]:
    """Write the dataset folder of a run's `qa/`; what lay there before is replaced. -> its README.md and line files.

    card: the text of its README.md; FRAMES.md is the card of the pictures, with their licences. Pictures are linked
    where the disk allows and copied elsewhere. Raises QaError when there are no questions.
    """
    splits = [split for split in SPLITS if (qa_folder / COURSE.format(split)).exists()] or [FLAT_SPLIT]
    if not (qa_folder / COURSE.format(splits[0])).exists():
        raise QaError(f"{qa_folder}: no questions to export; run notebook 02 to write them")
    shutil.rmtree(out, ignore_errors=True)
    lines = {
        config: [_write_split(qa_folder, forms, split, folder, out / config / split) for split in splits]
        for config, forms in CONFIGS.items()
    }
    (out / "course").mkdir()
    for split in splits:
        shutil.copyfile(qa_folder / COURSE_JSON.format(split), out / "course" / COURSE_JSON.format(split))
    frames = RepoCard(make_card(folder))
    write_text(out / "FRAMES.md", frames.text.lstrip())
    write_text(out / "README.md", f"---\n{_front_matter(splits, sum(lines[QUESTIONS]), frames.data)}\n---\n\n{card}")
    return [out / "README.md", *sorted(out.glob(f"*/*/{METADATA}"))]


def _write_split(qa_folder: Path, forms: Sequence[str], split: str, folder: FrameSet, out: Path) -> int:
    """-> number of lines"""
    out.mkdir(parents=True)
    asked = Counter()
    with whole_file(out / METADATA) as part, part.open("w", encoding="utf-8") as file:
        for row in _rows(qa_folder, forms, split):
            asked[row["image_file"]] += 1
            file.write(json.dumps({FILE_NAME: _file_name(row["image_file"])} | row, ensure_ascii=False) + "\n")
    for image_file in asked:
        _link(folder.by_image_file[image_file].image_path, out / _file_name(image_file))
    return asked.total()


def _rows(qa_folder: Path, forms: Sequence[str], split: str) -> Iterator[dict]:
    for path in (qa_folder / form.format(split) for form in forms):
        if path.exists():
            yield from read_json(path) if path.suffix == ".json" else stream_rows(path, dict)


def _file_name(image_file: str) -> str:
    """A name for a picture in the folder of its split; joined data folders have equal names in several."""
    return image_file.replace("/", "-")


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)  # of a symbolic link, its target: the link itself may hang on a place nearby
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)


def read_dataset(folder: Path, config: str = QUESTIONS) -> dict[str, list[dict]]:
    """The rows of an exported configuration by split, as they stood in the run's files."""
    return {
        path.parent.name: [{k: v for k, v in row.items() if k != FILE_NAME} for row in stream_rows(path, dict)]
        for path in sorted(folder.glob(f"{config}/*/{METADATA}"))
    }


def _front_matter(splits: Sequence[str], number: int, frames: CardData) -> str:
    """YAML as the hub and `load_dataset` read it; the licence is that of the frames."""
    configs = [
        {
            "config_name": name,
            "data_files": [
                {"split": split, "path": [f"{name}/{split}/{METADATA}", f"{name}/{split}/*_im.*"]} for split in splits
            ],
            **({"default": True} if name == QUESTIONS else {}),
        }
        for name in CONFIGS
    ]
    return DatasetCardData(
        language="en",
        license=frames.get("license"),
        license_name=frames.get("license_name"),
        pretty_name="Questions about SuperTuxKart frames",
        size_categories=size_category(number),
        task_categories=["visual-question-answering", "multiple-choice"],
        tags=["supertuxkart", "synthetic", "simulation"],
        configs=configs,
    ).to_yaml()
