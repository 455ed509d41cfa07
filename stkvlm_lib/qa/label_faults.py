"""What is wrong with the labels of scored questions, as far as it can be told without a picture.

Labels that no right answer can match make a score look like the model's fault; so they are counted and named beside it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.data.frames import View
from stkvlm_lib.grammar.families import Family
from stkvlm_lib.grammar.names import KARTS
from stkvlm_lib.grammar.questions import FAMILIES, normalise
from stkvlm_lib.qa.qa_sets import Record

IMPOSSIBLE = "the label is no answer of its family"
CONTRADICTORY = "one question about one picture has several labels"
REPEATED = "the same question and label stand there again"
_SHOWN = 4


@dataclass(frozen=True)
class LabelFault:
    """One kind of fault in one family. questions: how many have it; examples: labels or places, the first few."""

    fault: str
    family: str
    questions: int
    examples: tuple[str, ...]
    remedy: str

    def row(self) -> dict[str, int | str]:
        """A line of a table."""
        return {
            "family": self.family,
            "what is wrong": self.fault,
            "questions": self.questions,
            "such as": _first(self.examples),
            "what to do": self.remedy,
        }


def _first(texts: Sequence[str]) -> str:
    return ", ".join(texts[:_SHOWN]) + (", …" if len(texts) > _SHOWN else "")


def label_faults(records: Sequence[Record], folder: FrameSet) -> list[LabelFault]:
    """Labels that no answer of the family can be, contradictory and repeated questions, by family."""
    return [*_impossible(records, folder), *_contradictory(records), *_repeated(records)]


def _impossible(records: Iterable[Record], folder: FrameSet) -> list[LabelFault]:
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        family = FAMILIES.get(record.family)
        if family and not _can_be(record.answer, family, folder.by_image_file[record.image_file]):
            labels[record.family][record.answer] += 1
    return [
        LabelFault(
            IMPOSSIBLE,
            name,
            counts.total(),
            tuple(f"{label!r:.40} ({n})" for label, n in counts.most_common()),
            f"write one of: {_first(FAMILIES[name].answers)}",
        )
        for name, counts in _in_order(labels)
    ]


def _can_be(label: str, family: Family, view: View) -> bool:
    """Whether a family can answer so of a picture: by its set, or of karts and tracks that only these frames have."""
    label, frame = normalise(label), view.frame
    if label in family.answers:
        return True
    if family.name == "track":
        return label == normalise(frame.track)
    if set(KARTS) <= set(family.answers):
        return label in map(normalise, frame.karts)
    counts = family.answers[0].isdigit()
    return counts and label in {str(n) for n in range(1, len(frame.karts) + 1)}


def _contradictory(records: Iterable[Record]) -> list[LabelFault]:
    labels: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    for record in records:
        labels[record.family, record.image_file, record.question][normalise(record.answer)] += 1
    found: dict[str, list[tuple[str, Counter[str]]]] = defaultdict(list)
    for (family, image_file, question), given in labels.items():
        if len(given) > 1:
            found[family].append((f"{image_file}: {question} {' / '.join(given)}", given))
    return [
        LabelFault(
            CONTRADICTORY,
            name,
            sum(given.total() for _, given in asked),
            tuple(text for text, _ in asked),
            "keep the label that the picture shows",
        )
        for name, asked in _in_order(found)
    ]


def _repeated(records: Iterable[Record]) -> list[LabelFault]:
    times: Counter[tuple[str, str, str, str]] = Counter(
        (record.family, record.image_file, record.question, normalise(record.answer)) for record in records
    )
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for (family, image_file, question, _), n in times.items():
        if n > 1:
            found[family].append((f"{image_file}: {question}", n - 1))
    return [
        LabelFault(
            REPEATED, name, sum(n for _, n in asked), tuple(text for text, _ in asked), "keep one, as each is scored"
        )
        for name, asked in _in_order(found)
    ]


def _in_order(by_family: dict) -> list[tuple]:
    """By family in their fixed order, `other` last."""
    known = list(FAMILIES)
    return sorted(by_family.items(), key=lambda item: known.index(item[0]) if item[0] in known else len(known))
