"""Question-answer records of a data folder: made from the scenes, written, read, counted and drawn for training."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from stkvlm_lib.config import FinetuneConfig
from stkvlm_lib.files import read_json, read_jsonl, write_json, write_jsonl
from stkvlm_lib.frame_sets import FrameSet, split_by_race
from stkvlm_lib.frames import FLAT_SPLIT, SPLITS, View
from stkvlm_lib.questions import ask_all, family_of
from stkvlm_lib.scene import mirror_box, read_scene

CUSTOM_SPLIT = "custom"
"""The split's name for questions that a user brought."""


class QaError(ValueError):
    """A question file that cannot be used; the message names the file, the item and the remedy."""


@dataclass(frozen=True)
class Record:
    """One question about one picture, with where it comes from. `image_file` is relative to the data folder."""

    image_file: str
    question: str
    answer: str
    family: str
    split: str
    race: str
    frame: str
    view: int
    track: str


@dataclass(frozen=True)
class TrainingPicture:
    """A picture drawn for training with its questions; `mirrored` flips it and its answers left to right."""

    image_file: str
    mirrored: bool
    questions: tuple[str, ...]
    answers: tuple[str, ...]


def make_records(folder: FrameSet, split: str) -> list[Record]:
    """Every question of every view of a split: complete, unbalanced, under the course rule."""
    return [
        _record(view, question, answer, family, split)
        for view in folder.views(split)
        for family, question, answer in ask_all(read_scene(view))
    ]


def _record(view: View, question: str, answer: str, family: str, split: str) -> Record:
    frame = view.frame
    return Record(view.image_file, question, answer, family, split, frame.race, frame.frame_id, view.index, frame.track)


def make_qa_sets(folder: FrameSet, seed: int) -> dict[str, list[Record]]:
    """Records of every split of a folder. A folder without split folders gives `all`, and train, valid and test drawn
    from it by race where it has three races or more."""
    sets = {split: make_records(folder, split) for split in folder.splits}
    frames = folder.splits.get(FLAT_SPLIT, [])
    if len({frame.race for frame in frames}) >= 3:
        for split, races in split_by_race(frames, seed).items():
            members = set(races)
            sets[split] = [replace(r, split=split) for r in sets[FLAT_SPLIT] if r.race in members]
    check_no_leak({split: records for split, records in sets.items() if split != FLAT_SPLIT})
    return sets


def write_qa_sets(sets: dict[str, list[Record]], folder: Path) -> list[Path]:
    """`<split>_qa_pairs.json` in the course's format and `<split>.jsonl` with provenance, for every split.

    Returns the files written. Those of other splits, left by other data, are removed.
    """
    written = []
    for split in (*SPLITS, FLAT_SPLIT):
        files = folder / f"{split}_qa_pairs.json", folder / f"{split}.jsonl"
        if split in sets:
            write_course_json(sets[split], files[0])
            write_records(sets[split], files[1])
            written += files
        else:
            for file in files:
                file.unlink(missing_ok=True)
    return written


def write_course_json(records: Iterable[Record], path: Path) -> None:
    """The course's format: a JSON list of question, answer, image_file."""
    write_json(path, [{"question": r.question, "answer": r.answer, "image_file": r.image_file} for r in records])


def write_records(records: Iterable[Record], path: Path) -> None:
    write_jsonl(path, map(asdict, records))


def read_records(path: Path) -> list[Record]:
    """Raises QaError for rows that are not records."""
    names = {field.name for field in fields(Record)}
    rows = read_jsonl(path, "run notebook 02_generate_qa to write it")
    for number, row in enumerate(rows, start=1):
        if set(row) != names:
            raise QaError(f"{path}: line {number} lacks {sorted(names - set(row))}; write it again with notebook 02")
    return [Record(**row) for row in rows]


def read_course_qa(path: Path, folder: FrameSet) -> list[Record]:
    """Read any file in the course's QA format, in its order; pictures must lie in `folder`. Raises QaError."""
    items = read_json(path, "give a JSON list of question, answer, image_file")
    if not isinstance(items, list) or not items:
        what = "an empty list" if items == [] else "not a list of questions"
        raise QaError(f"{path}: {what}; give a JSON list of question, answer, image_file")
    records = []
    for number, item in enumerate(items):
        if not isinstance(item, dict) or not all(isinstance(item.get(k), str) for k in ("question", "image_file")):
            raise QaError(f"{path}: item {number} lacks the text keys question and image_file")
        answer = item.get("answer")
        if isinstance(answer, bool) or not isinstance(answer, str | int | float) or not str(answer).strip():
            raise QaError(f"{path}: item {number} has no answer (a text or a number)")
        view = folder.by_image_file.get(item["image_file"])
        if view is None:
            raise QaError(
                f"{path}: item {number}: no picture {item['image_file']!r} in {folder.root} "
                f"(which has splits {', '.join(folder.splits)}); image_file counts from FRAMES_DIR"
            )
        question = item["question"]
        records.append(_record(view, question, str(answer), family_of(question), CUSTOM_SPLIT))
    return records


def check_no_leak(by_split: dict[str, Sequence[Record]]) -> None:
    """Refuse questions about one race in two splits."""
    home: dict[str, str] = {}
    for split, records in by_split.items():
        for record in records:
            if home.setdefault(record.race, split) != split:
                raise QaError(f"race {record.race} has questions in {home[record.race]} and {split}; write them again")


def composition(records: Iterable[Record]) -> dict[str, dict[str, int]]:
    """{family: {answer: count}}, the most frequent answer first."""
    counts: dict[str, Counter] = defaultdict(Counter)
    for record in records:
        counts[record.family][record.answer] += 1
    return {family: dict(counter.most_common()) for family, counter in counts.items()}


def by_picture(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Records of each picture, in their order."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.image_file].append(record)
    return dict(groups)


def draw_pictures(records: Sequence[Record], n: int, seed: int) -> list[str]:
    """n picture names (all for n = 0), the same for any order of the records."""
    names = sorted({record.image_file for record in records})
    random.Random(f"pictures-{seed}").shuffle(names)
    return sorted(names[: n or None])


def draw_training(
    records: Sequence[Record], folder: FrameSet, *, views: int, per_view: int, mirror: bool, seed: int
) -> list[TrainingPicture]:
    """Pictures and questions for training, at most `per_view` questions each, seeded per picture.

    mirror: each picture comes a second time, mirrored, with the answers that the mirrored boxes give.
    """
    groups = by_picture(records)
    drawn = []
    for name in draw_pictures(records, views, seed):
        pairs = [(r.question, r.answer) for r in groups[name]]
        drawn.append(_draw_questions(name, False, pairs, per_view, seed))
        if mirror:
            scene = read_scene(folder.by_image_file[name], mirror_box)
            drawn.append(_draw_questions(name, True, [(q, a) for _, q, a in ask_all(scene)], per_view, seed))
    return drawn


def read_questions(config: FinetuneConfig, folder: FrameSet) -> tuple[list[TrainingPicture], list[Record]]:
    """What notebook 03 trains on and chooses the checkpoint by, drawn from the run's qa/train.jsonl and qa/valid.jsonl.

    Without valid questions, or where valid is the only held-out split and so must stay unseen for scoring, the second
    is empty and the last checkpoint is kept.
    """
    written = config.run_path / "qa"
    if not (written / "train.jsonl").exists():
        raise QaError(
            f"{written}: no train questions (a folder of under three races, or without train/); nothing to train"
        )
    train = draw_training(
        read_records(written / "train.jsonl"),
        folder,
        views=config.train_views,
        per_view=config.questions_per_view,
        mirror=config.mirror,
        seed=config.seed,
    )
    if not all((written / f"{split}.jsonl").exists() for split in ("valid", "test")):
        return train, []
    valid = read_records(written / "valid.jsonl")
    names = set(draw_pictures(valid, config.valid_views, config.seed))
    return train, [record for record in valid if record.image_file in names]


def write_drawn(pictures: Iterable[TrainingPicture], path: Path) -> None:
    """What was drawn for training, a picture a line."""
    write_jsonl(path, map(asdict, pictures))


def drawn_composition(pictures: Iterable[TrainingPicture]) -> dict[str, dict[str, int]]:
    """`composition` of what was drawn."""
    counts: dict[str, Counter] = defaultdict(Counter)
    for picture in pictures:
        for question, answer in zip(picture.questions, picture.answers, strict=True):
            counts[family_of(question)][answer] += 1
    return {family: dict(counter.most_common()) for family, counter in counts.items()}


def _draw_questions(name: str, mirrored: bool, pairs: list[tuple[str, str]], n: int, seed: int) -> TrainingPicture:
    rng = random.Random(f"questions-{seed}-{name}-{mirrored}")
    chosen = pairs if len(pairs) <= n else rng.sample(pairs, n)
    questions, answers = zip(*chosen, strict=True)
    return TrainingPicture(name, mirrored, questions, answers)
