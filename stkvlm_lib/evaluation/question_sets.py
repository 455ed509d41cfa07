"""Which questions are answered: those scored; beside them, of valid and further splits, and in other wordings."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

from stkvlm_lib.config import ScoreConfig, resolve
from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.data.frames import FLAT_SPLIT
from stkvlm_lib.grammar.families import pick
from stkvlm_lib.grammar.questions import FAMILIES, read_question
from stkvlm_lib.grouping import by_turns, grouped
from stkvlm_lib.qa.contrast import KINDS, Pair, pairs_of, read_contrast
from stkvlm_lib.qa.qa_sets import (
    CONTRAST,
    COURSE,
    CUSTOM_SPLIT,
    EXTENDED,
    QaError,
    Record,
    make_records,
    read_course_qa,
    read_records,
)
from stkvlm_lib.qa.training_draw import draw_pictures

T = TypeVar("T")

HELD_OUT = ("test", "valid", FLAT_SPLIT)
"""Splits that are scored, the first that is there."""
FURTHER_SPLITS = ("test_unseen",)
"""Splits that are scored by themselves where the data have them."""
FIT_SPLIT = "valid"
"""The split on which the confidence threshold is fitted, and nothing else of the score."""


def records_to_score(config: ScoreConfig, folder: FrameSet, qa: Path | None = None) -> tuple[str, list[Record]]:
    """(split, records): QA_FILE if given, else the run's own test split, else the held-out split of the folder.

    Of TEST_VIEWS pictures. qa: another folder with question files than the run's own.
    """
    if config.qa_file:
        split, records = CUSTOM_SPLIT, read_course_qa(resolve(config.qa_file), folder)
    else:
        qa = qa or config.run_path / "qa"
        written = [split for split in HELD_OUT if (qa / COURSE.format(split)).exists()]
        there = [*written, *(split for split in HELD_OUT if split in folder.splits)]
        if not there:
            has = ", ".join(folder.splits)
            raise QaError(f"{folder.root}: no held-out split (it has {has}); name the questions in QA_FILE")
        split, records = there[0], _of_split(qa, folder, there[0])
    return split, draw_views(records, config.test_views)


def draw_views(records: Sequence[Record], n: int) -> list[Record]:
    """The records about n pictures (all for n = 0), every race in turn.

    Which ones follows from the records alone and not from SEED, so that runs of several seeds are asked the same.
    """
    races = {record.image_file: record.race for record in records}
    shuffled = sorted(races, key=lambda name: (pick(1 << 64, "test views", name), name))
    kept = set(by_turns(shuffled, races.__getitem__)[: n or None])
    return [record for record in records if record.image_file in kept]


def further_records(config: ScoreConfig, folder: FrameSet, split: str, scored: str) -> list[Record]:
    """The questions of the ten forms about another split than the scored one, of TEST_VIEWS pictures; none for a user's
    own questions."""
    if scored in (CUSTOM_SPLIT, split):
        return []
    return draw_views(_of_split(config.run_path / "qa", folder, split), config.test_views)


def valid_records(config: ScoreConfig, folder: FrameSet, scored: Iterable[Record]) -> list[Record]:
    """All questions about CALIBRATION_VIEWS drawn pictures of valid races that are not scored."""
    races = {r.race for r in scored}
    records = [r for r in _of_split(config.run_path / "qa", folder, FIT_SPLIT) if r.race not in races]
    drawn = set(draw_pictures((r.image_file for r in records), config.calibration_views, config.seed))
    return [r for r in records if r.image_file in drawn]


def _of_split(qa: Path, folder: FrameSet, split: str) -> list[Record]:
    """The questions of a split that a run has written, else those that its frames give."""
    written = qa / COURSE.format(split)
    if written.exists():
        return read_known(written, folder)
    return make_records(folder, split) if folder.splits.get(split) else []


def extended_records(config: ScoreConfig, folder: FrameSet, split: str) -> tuple[list[Record], list[Record]]:
    """The run's extended questions of a split, EXTENDED_SCORED of each family: in wordings that training draws from,
    and the same ones in the wording that it never has."""
    written = config.run_path / "qa" / EXTENDED.format(split)
    if split == CUSTOM_SPLIT or not written.exists():
        return [], []
    records = draw(read_known(written, folder), config)
    trained = [reworded(r, trained_wording(r, config.seed)) for r in records]
    return trained, [reworded(r, FAMILIES[r.family].held_out) for r in records]


def pairs_to_ask(config: ScoreConfig, folder: FrameSet, split: str) -> list[Pair]:
    """The run's contrast pairs, EXTENDED_SCORED of each kind and family; none where it has none."""
    written = config.run_path / "qa" / CONTRAST.format(split)
    if split == CUSTOM_SPLIT or not written.exists():
        return []
    of_first = {pair[0]: pair for pair in pairs_of(read_known(written, folder, read_contrast))}
    return [of_first[item] for kind in KINDS for item in draw((i for i in of_first if i.kind == kind), config)]


def read_known(path: Path, folder: FrameSet, read: Callable[[Path], list[T]] = read_records) -> list[T]:
    """A run's records, whose pictures must lie in the folder. Raises QaError naming the first that does not."""
    items = read(path)
    strange = next((item.image_file for item in items if item.image_file not in folder.by_image_file), None)
    if strange:
        raise QaError(f"{path}: {strange} is not in {folder.root}; run notebook 02 with this FRAMES_DIR again")
    return items


def draw(items: Iterable[T], config: ScoreConfig) -> list[T]:
    """EXTENDED_SCORED items of each family in the order of `items`, the same ones for any order."""
    ranked = sorted(enumerate(items), key=lambda each: (pick(1 << 64, "scored", config.seed, str(each[1])), each[0]))
    families = grouped(ranked, lambda each: each[1].family).values()
    kept = [each for mine in families for each in mine[: config.extended_scored or None]]
    return [item for _, item in sorted(kept, key=itemgetter(0))]


def trained_wording(record: Record, seed: int) -> int:
    """The record's own wording where training draws from it, else one of those that it draws from."""
    if not record.held_out:
        return record.wording
    return pick(FAMILIES[record.family].held_out, "trained", seed, record.image_file, record.question)


def reworded(record: Record, wording: int) -> Record:
    """The same question in another wording of its family."""
    family, _, names = read_question(record.question)
    return replace(record, question=FAMILIES[family].write(wording, names), wording=wording)
