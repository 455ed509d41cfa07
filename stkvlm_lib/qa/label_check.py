"""A check of the labels by eye: questions drawn from the written files, marks made on them, and the label error.

Nothing here asks a scene or knows a rule: a mark says whether an answer, as it was written, is what the picture shows.
Marks are a JSON-lines file, a line a mark, appended at once; where a question was marked twice, the later mark counts.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from heapq import nsmallest
from math import sqrt
from operator import attrgetter, itemgetter
from pathlib import Path

from stkvlm_lib.grammar.families import pick
from stkvlm_lib.grouping import by_turns, grouped
from stkvlm_lib.number_text import interval, percent
from stkvlm_lib.qa.qa_sets import Record, question_files, stream_records
from stkvlm_lib.typed import read_rows

MARKS_FILE = "label_marks.jsonl"
"""The name of the file with the marks: in `qa/` of a run, and beside the bundled frames those made on them."""
RIGHT, WRONG, WITHDRAWN = "right", "wrong", "withdrawn"
_Z95 = 1.959964


Key = tuple[str, str, str]
"""image_file, question, answer: with another answer it is another label"""


@dataclass(frozen=True)
class Mark:
    """What a person found: whether `answer` is what the picture shows. verdict: `right`, `wrong`, or `withdrawn` where
    an earlier mark no longer holds."""

    image_file: str
    question: str
    answer: str
    family: str
    rules: str
    verdict: str
    note: str = ""

    def __post_init__(self):
        if self.verdict not in (RIGHT, WRONG, WITHDRAWN):
            raise ValueError(f"verdict {self.verdict!r} of {self.image_file}: must be {RIGHT}, {WRONG} or {WITHDRAWN}")

    @property
    def key(self) -> Key:
        """The label it is about. A mark does not outlive a rule that changes the answer."""
        return self.image_file, self.question, self.answer


def mark(record: Record, verdict: str, note: str = "") -> Mark:
    """A mark on a question."""
    asked = (record.image_file, record.question, record.answer, record.family, record.rules)
    return Mark(*asked, verdict, note)


def key_of(record: Record) -> Key:
    """The label of a question."""
    return record.image_file, record.question, record.answer


def marks_on(sample: Iterable[Record], marks: Iterable[Mark]) -> list[Mark]:
    """The marks on the labels of a sample."""
    keys = set(map(key_of, sample))
    return [found for found in marks if found.key in keys]


@dataclass(frozen=True)
class MarksByOrigin:
    """Marks by what they are good for.

    drawn: on labels drawn at random, which measure the label error. chosen: on other labels of the files, which
    someone looked at for a reason. outdated: on labels that the files no longer hold, because a rule has changed since.
    """

    drawn: Sequence[Mark] = ()
    chosen: Sequence[Mark] = ()
    outdated: Sequence[Mark] = ()


def by_origin(marks: Sequence[Mark], sample: Sequence[Record], qa_folder: Path) -> MarksByOrigin:
    """Sort marks by their origin; the files are read through only when some are on no label of the sample."""
    drawn = marks_on(sample, marks)
    others = {found.key: found for found in marks if found not in drawn}
    asked = set()
    if others:
        records = (record for path in question_files(qa_folder) for record in stream_records(path))
        asked = {key for key in map(key_of, records) if key in others}
    chosen, outdated = ([m for key, m in others.items() if (key in asked) is there] for there in (True, False))
    return MarksByOrigin(drawn, chosen, outdated)


@dataclass(frozen=True)
class LabelError:
    """How many of the marked labels are wrong. rate: their share, with its 95 % Wilson interval (all 0..1); None where
    nothing is marked."""

    what: str
    n: int
    wrong: int

    @property
    def rate(self) -> float | None:
        return self.wrong / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float] | None:
        return wilson(self.wrong, self.n) if self.n else None

    def row(self) -> dict:
        """A line of a table."""
        told = {"error": percent(self.rate), "95 % interval": interval(self.interval)}
        return {"labels": self.what, "marked": self.n, "wrong": self.wrong, **told}


def draw_sample(qa_folder: Path, n: int, seed: int) -> list[Record]:
    """n questions from the files of a run's `qa/`, each family under each rule set in turn, so that none is missing.

    The same for any order of the lines; the files are read through once, and only what is drawn is kept.
    """
    piles: dict[tuple[str, str], list[tuple[int, Record]]] = defaultdict(list)
    for path in question_files(qa_folder):
        for record in stream_records(path):
            pile = piles[record.family, record.rules]
            pile.append((pick(1 << 64, "labels", seed, record.image_file, record.question), record))
            if len(pile) > 2 * n:
                pile[:] = nsmallest(n, pile, key=itemgetter(0))
    drawn = [record for _, pile in sorted(piles.items()) for _, record in nsmallest(n, pile, key=itemgetter(0))]
    return by_turns(drawn, lambda record: (record.family, record.rules))[:n]


def add_mark(path: str | Path, new: Mark) -> None:
    """Append a mark as one whole line, on the disk when this returns."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(asdict(new), ensure_ascii=False) + "\n"
    with path.open("ab+") as file:
        if end := file.tell():
            file.seek(end - 1)
            if file.read(1) != b"\n":
                line = "\n" + line  # what a killed process left of its line must not swallow this one
        os.write(file.fileno(), line.encode())
        os.fsync(file.fileno())


def read_marks(*paths: str | Path) -> list[Mark]:
    """The last mark of every label over all files, in the order in which they were first made, without those withdrawn;
    files may be missing."""
    remedy = "remove that line, and mark the question again"
    marks = (found for path in paths if Path(path).exists() for found in read_rows(path, Mark, remedy))
    last = {found.key: found for found in marks}
    return [found for found in last.values() if found.verdict != WITHDRAWN]


def label_error(marks: Iterable[Mark], what: str = "all") -> LabelError:
    """The measured share of wrong labels."""
    verdicts = [found.verdict for found in marks]
    return LabelError(what, len(verdicts), verdicts.count(WRONG))


def label_errors(marks: MarksByOrigin) -> list[LabelError]:
    """All labels drawn, then those of each rule set; then, if there are any, the labels that were marked without having
    been drawn, and those that are no longer asked: neither tells how many labels are wrong."""
    rules = sorted({found.rules for found in marks.drawn})
    return [
        label_error(marks.drawn),
        *(label_error([m for m in marks.drawn if m.rules == name], f"{name} rules") for name in rules),
        *([label_error(marks.chosen, "chosen, not drawn")] if marks.chosen else []),
        *([label_error(marks.outdated, "no longer asked")] if marks.outdated else []),
    ]


def family_errors(marks: Sequence[Mark]) -> list[dict]:
    """Marked and wrong labels of each family under each rule set, those with errors first."""
    rows = [
        {"family": family, "rules": rules, "marked": len(mine), "wrong": sum(m.verdict == WRONG for m in mine)}
        for (family, rules), mine in grouped(marks, attrgetter("family", "rules")).items()
    ]
    return sorted(rows, key=lambda row: (-row["wrong"], row["family"], row["rules"]))


def wilson(hits: float, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share: unlike the usual one, it says something when there are no hits."""
    if not n:
        return 0.0, 1.0
    share, z2 = hits / n, _Z95**2
    middle, half = share + z2 / (2 * n), _Z95 * sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    scale = 1 + z2 / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
