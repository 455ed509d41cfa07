"""All questions of a data folder, written to a run's `qa/` folder by worker processes, at any size.

Workers turn a few frames at a time into finished lines; this process writes them as they come and keeps only counts and
one rank a question, by which the extended sets are balanced in a second pass over what was written. The files are the
same whatever the number of workers.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.data.frames import FLAT_SPLIT, SPLITS, Frame, View
from stkvlm_lib.files import whole_file, write_jsonl
from stkvlm_lib.grammar.captions import Choice, multiple_choice
from stkvlm_lib.grammar.families import Declined
from stkvlm_lib.grammar.questions import ask_extended
from stkvlm_lib.grammar.scene import STRICT_RULES, read_scene
from stkvlm_lib.parallel import Workers
from stkvlm_lib.qa.balance import Candidates, rank
from stkvlm_lib.qa.contrast import contrast_items
from stkvlm_lib.qa.qa_sets import (
    CONTRAST,
    COURSE,
    COURSE_JSON,
    EXTENDED,
    FILES,
    MULTIPLE_CHOICE,
    TRAIN,
    Composition,
    course_item,
    course_records,
    make_record,
    ordered,
    total,
)

FRAMES_A_CHUNK = 20
"""What a worker is given at once: some thousand questions."""
_encode = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True)
class Plan:
    """How sets are made. ratio, most: see balance.kept_counts. contrast_pictures: of each kind and split."""

    seed: int = 0
    ratio: float = 1.5
    most: int = 0
    contrast_pictures: int = 100


@dataclass
class Chunk:
    """What a worker makes of some frames: finished lines, and what is counted of them."""

    course_items: list[str] = field(default_factory=list)
    course_lines: list[str] = field(default_factory=list)
    choices: list[str] = field(default_factory=list)
    extended: list[tuple[str, str, int, str]] = field(default_factory=list)
    """(family, answer, rank, line)"""
    course: Counter = field(default_factory=Counter)
    declined: Counter = field(default_factory=Counter)


@dataclass(frozen=True)
class Tally:
    """What was written of a split. candidates: the extended questions before balancing; extended: after.

    declined: {family: {reason: questions}}, of the extended ones.
    """

    pictures: int
    course: Composition
    candidates: Composition
    extended: Composition
    declined: Composition
    choices: int
    contrast: int

    @property
    def questions(self) -> int:
        """Written questions: the ten forms and the extended ones."""
        return total(self.course) + total(self.extended)


def frames_by_split(folder: FrameSet, seed: int) -> dict[str, Sequence[Frame]]:
    """The splits of a folder. One without split folders gives `all`, and train, valid and test drawn from it by race
    where it has three races or more."""
    splits = dict(folder.splits)
    if FLAT_SPLIT in splits and len({frame.race for frame in splits[FLAT_SPLIT]}) >= 3:
        splits |= folder.drawn_by_race(seed).splits
    return splits


def shown_split(splits: Iterable[str]) -> str:
    """The split that is looked at: the one that is scored."""
    names = list(splits)
    return next((name for name in ("test", "valid") if name in names), names[-1])


def write_qa_sets(
    splits: dict[str, Sequence[Frame]], out: Path, plan: Plan = Plan(), workers: Workers | None = None
) -> dict[str, Tally]:
    """Write the files of every split, remove those of others that were left by other data; -> what was written."""
    out.mkdir(parents=True, exist_ok=True)
    for split in (*SPLITS, FLAT_SPLIT):
        for name in FILES if split not in splits else ():
            (out / name.format(split)).unlink(missing_ok=True)
    return {split: _write_split(frames, split, out, plan, workers or Workers()) for split, frames in splits.items()}


def _write_split(frames: Sequence[Frame], split: str, out: Path, plan: Plan, workers: Workers) -> Tally:
    parts = [frames[start : start + FRAMES_A_CHUNK] for start in range(0, len(frames), FRAMES_A_CHUNK)]
    jobs = (([frame.moved() for frame in part], split, plan) for part in parts)  # without what is parsed already
    candidates, declined, course, choices = Candidates(), Counter(), Counter(), 0
    with ExitStack() as files:
        course_json = _JsonList(files, out / COURSE_JSON.format(split))
        choice_json = _JsonList(files, out / MULTIPLE_CHOICE.format(split))
        course_lines = _open(files, out / COURSE.format(split))
        made = files.enter_context(tempfile.TemporaryFile("w+", dir=out, encoding="utf-8"))
        for chunk in workers.run(make_chunk, jobs, f"questions of {split}", total=len(parts)):
            course_json.add(chunk.course_items)
            choice_json.add(chunk.choices)
            course_lines.writelines(chunk.course_lines)
            made.writelines(line for *_, line in chunk.extended)
            for family, answer, number, _ in chunk.extended:
                candidates.add(family, answer, number)
            course.update(chunk.course)
            declined.update(chunk.declined)
            choices += len(chunk.choices)
        stay = candidates.stay(plan.ratio, plan.most)
        with whole_file(out / EXTENDED.format(split)) as part, part.open("w", encoding="utf-8") as file:
            made.seek(0)
            file.writelines(line for line, stays in zip(made, stay, strict=True) if stays)
    contrast = contrast_items(frames, split, plan.seed, plan.contrast_pictures)
    write_jsonl(out / CONTRAST.format(split), map(asdict, contrast))
    return Tally(
        pictures=sum(frame.view_count for frame in frames),
        course=ordered(course),
        candidates=candidates.composition(),
        extended=candidates.composition(stay),
        declined=ordered(declined),
        choices=choices,
        contrast=len(contrast) // 2,
    )


def make_chunk(frames: Sequence[Frame], split: str, plan: Plan) -> Chunk:
    """Every question about some frames; what a worker does."""
    chunk = Chunk()
    for frame in frames:
        for view in frame.views:
            add_course(chunk, view, split)
            for found in ask_extended(
                read_scene(view, rules=STRICT_RULES), view.image_file, plan.seed, held_out=split != TRAIN
            ):
                if isinstance(found, Declined):
                    chunk.declined[found.family, str(found.reason)] += 1
                    continue
                record = make_record(
                    view, found.question, found.answer, found.family, split, STRICT_RULES.name, found.wording
                )
                number = rank(plan.seed, view.image_file, found.question)
                chunk.extended.append((found.family, found.answer, number, _encode(vars(record)) + "\n"))
            for choice in multiple_choice(read_scene(view), view.image_file, plan.seed):
                if isinstance(choice, Choice):
                    named = {"candidates": choice.candidates, "correct_index": choice.correct_index}
                    chunk.choices.append(_list_item({"image_file": view.image_file, **named}))
    return chunk


def add_course(chunk: Chunk, view: View, split: str) -> None:
    """The ten forms about a view."""
    for record in course_records(view, split):
        chunk.course_items.append(_list_item(course_item(record)))
        chunk.course_lines.append(_encode(vars(record)) + "\n")
        chunk.course[record.family, record.answer] += 1


def _list_item(value: dict) -> str:
    """An object as it stands in a list that json.dumps(..., indent=2) writes."""
    return "  " + json.dumps(value, ensure_ascii=False, indent=2).replace("\n", "\n  ")


def _open(files: ExitStack, path: Path) -> IO[str]:
    """A file that takes its place when `files` closes without an error."""
    return files.enter_context(files.enter_context(whole_file(path)).open("w", encoding="utf-8"))


class _JsonList:
    """A file that json.dumps(..., indent=2) would write of a list, written item by item."""

    def __init__(self, files: ExitStack, path: Path):
        self._file, self._empty = _open(files, path), True
        self._file.write("[")
        files.callback(lambda: self._file.write("]\n" if self._empty else "\n]\n"))

    def add(self, items: Iterable[str]) -> None:
        for item in items:
            self._file.write("\n" if self._empty else ",\n")
            self._file.write(item)
            self._empty = False
