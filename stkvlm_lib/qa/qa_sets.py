"""Question-answer records with their provenance: made of scenes, written, read and counted.

Files of a run, in `qa/`: `<split>_qa_pairs.json` and `<split>.jsonl` hold the course's ten forms, complete and under
the course rule; `<split>_extended.jsonl` all families in varied wordings under the strict rules, balanced.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.data.frames import FLAT_SPLIT, SPLITS, View
from stkvlm_lib.files import read_json_list
from stkvlm_lib.grammar.questions import FAMILIES, ask_all, family_of
from stkvlm_lib.grammar.scene import COURSE_RULES, read_scene
from stkvlm_lib.grouping import grouped
from stkvlm_lib.number_text import is_finite
from stkvlm_lib.typed import stream_rows

CUSTOM_SPLIT = "custom"
"""The split's name for questions that a user brought."""
TRAIN = "train"
"""The split whose questions never have a held-out wording."""
COURSE_JSON, COURSE, EXTENDED = "{}_qa_pairs.json", "{}.jsonl", "{}_extended.jsonl"
MULTIPLE_CHOICE, CONTRAST = "{}_mc.json", "{}_contrast.jsonl"
FILES = (COURSE_JSON, COURSE, EXTENDED, MULTIPLE_CHOICE, CONTRAST)
"""Names of the files of a split."""

Composition = dict[str, dict[str, int]]
"""{family: {answer: number of questions}}, the most frequent answer first."""


class QaError(ValueError):
    """A question file that cannot be used; the message names the file, the item and the remedy."""


@dataclass(frozen=True)
class Record:
    """One question about one picture, with where it comes from. `image_file` is relative to the data folder.

    rules: the rule set that gave the answer. wording: 0 is the family's template, then its paraphrases.
    """

    image_file: str
    question: str
    answer: str
    family: str
    split: str
    race: str
    frame: str
    view: int
    track: str
    rules: str = COURSE_RULES.name
    wording: int = 0

    @property
    def held_out(self) -> bool:
        """Whether its wording is the one that training never sees."""
        return self.family in FAMILIES and self.wording == FAMILIES[self.family].held_out


def make_records(folder: FrameSet, split: str) -> list[Record]:
    """Every question of the ten forms about a split: complete, unbalanced, under the course rule."""
    return [record for view in folder.views(split) for record in course_records(view, split)]


def course_records(view: View, split: str) -> Iterator[Record]:
    """The ten forms about a view."""
    for family, question, answer in ask_all(read_scene(view)):
        yield make_record(view, question, answer, family, split)


def make_record(
    view: View, question: str, answer: str, family: str, split: str, rules: str = COURSE_RULES.name, wording: int = 0
) -> Record:
    """A question about a view, with where it comes from."""
    frame, place = view.frame, (view.frame.frame_id, view.index, view.frame.track)
    return Record(view.image_file, question, answer, family, split, frame.race, *place, rules, wording)


def course_item(record: Record) -> dict[str, str]:
    """A question as the course's files hold it."""
    return {"question": record.question, "answer": record.answer, "image_file": record.image_file}


def read_records(path: Path) -> list[Record]:
    """Raises QaError for rows that are not records."""
    return list(stream_records(path))


def stream_records(path: Path) -> Iterator[Record]:
    """The records of a file one by one, for files larger than memory. Raises QaError for rows that are not records."""
    try:
        yield from stream_rows(path, Record, "write it again with notebook 02")
    except ValueError as error:
        raise QaError(str(error)) from None


def question_files(folder: Path) -> list[Path]:
    """The files of records that a run's `qa/` holds; those of `all` only where they are not drawn into splits."""
    drawn = any((folder / COURSE.format(split)).exists() for split in SPLITS)
    names = [form.format(split) for split in (SPLITS if drawn else (FLAT_SPLIT,)) for form in (COURSE, EXTENDED)]
    return [folder / name for name in names if (folder / name).exists()]


def read_course_qa(path: Path, folder: FrameSet) -> list[Record]:
    """Read any file in the course's QA format, in its order; pictures must lie in `folder`. Raises QaError."""
    items = given_items(path, "a JSON list of question, answer, image_file")
    return [_given_record(where, item, folder) for where, item in items]


def given_items(path: Path, form: str) -> Iterator[tuple[str, Any]]:
    """What somebody's file lists, each with where it stands, for errors. Raises QaError for what is no list of them."""
    items = read_json_list(path, f"give {form}")
    if not isinstance(items, list) or not items:
        raise QaError(f"{path}: {'an empty list' if items == [] else 'not a list of questions'}; give {form}")
    yield from ((f"{path}: item {number}", item) for number, item in enumerate(items))


def _given_record(where: str, item: Any, folder: FrameSet) -> Record:
    if not isinstance(item, dict) or not all(_is_text(item.get(key)) for key in ("question", "image_file")):
        raise QaError(f"{where} lacks the text keys question and image_file")
    answer = _given_answer(item.get("answer"))
    if not answer:
        raise QaError(f"{where} has no answer (a text or a number)")
    view = find_view(where, item["image_file"], folder)
    question = item["question"]
    return make_record(view, question, answer, family_of(question), CUSTOM_SPLIT)


def find_view(where: str, image_file: str, folder: FrameSet) -> View:
    """The view that an item of somebody's file means. Raises QaError naming the item: where."""
    view = folder.find(image_file)
    if view is None:
        raise QaError(
            f"{where}: no picture {image_file!r} in {folder.root} "
            f"(which has splits {', '.join(folder.splits)}); image_file counts from FRAMES_DIR"
        )
    return view


def _is_text(value: Any) -> bool:
    """Whether a value is a text with something in it that every file can hold."""
    return isinstance(value, str) and bool(value.strip()) and not any("\ud800" <= c <= "\udfff" for c in value)


def _given_answer(value: Any) -> str:
    """An answer as text, whole numbers without a decimal point; empty where it is none."""
    if is_finite(value):
        return str(int(value) if value == int(value) else value)
    return value if _is_text(value) else ""


def composition(records: Iterable[Record]) -> Composition:
    """How often each answer of each family is the right one."""
    return ordered(Counter((record.family, record.answer) for record in records))


def total(counts: Composition) -> int:
    """Number of questions."""
    return sum(sum(answers.values()) for answers in counts.values())


def ordered(counts: dict[tuple[str, str], int]) -> Composition:
    """{(family, answer): number} by family, the most frequent answer first, without those that never occur."""
    families: dict[str, Counter] = defaultdict(Counter)
    for (family, answer), n in counts.items():
        if n:
            families[family][answer] = n
    return {family: dict(counter.most_common()) for family, counter in families.items()}


def by_picture(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Records of each picture, in their order."""
    return grouped(records, attrgetter("image_file"))
