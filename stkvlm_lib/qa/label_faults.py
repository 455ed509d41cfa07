"""What is wrong with the labels of scored questions, as far as it can be told without a picture.

Labels that no right answer can match make a score look like the model's fault; so they are counted and named beside it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.data.frames import View
from stkvlm_lib.grammar.families import Family
from stkvlm_lib.grammar.questions import FAMILIES, in_order, normalise
from stkvlm_lib.qa.qa_sets import Record

IMPOSSIBLE = "the label is no answer of its family"
CONTRADICTORY = "one question about one picture has several labels"
REPEATED = "the same question and label stand there again"
_SHOWN = 4


Row = dict[str, int | str]
"""One kind of fault in one family as a line of a table: how many questions have it, labels or places, what to do."""


def _row(family: str, fault: str, questions: int, examples: Sequence[str], remedy: str) -> Row:
    told = {"family": family, "what is wrong": fault, "questions": questions}
    return told | {"such as": _first(examples), "what to do": remedy}


def _first(texts: Sequence[str]) -> str:
    return ", ".join(texts[:_SHOWN]) + (", …" if len(texts) > _SHOWN else "")


def label_faults(records: Sequence[Record], folder: FrameSet) -> list[Row]:
    """Labels that no answer of the family can be, contradictory and repeated questions, by family."""
    return [*_impossible(records, folder), *_doubled(records)]


def _impossible(records: Iterable[Record], folder: FrameSet) -> list[Row]:
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        family = FAMILIES.get(record.family)
        if family and not _can_be(record.answer, family, folder.by_image_file[record.image_file]):
            labels[record.family][record.answer] += 1
    return [
        _row(
            name,
            IMPOSSIBLE,
            labels[name].total(),
            [f"{label!r:.40} ({n})" for label, n in labels[name].most_common()],
            f"write one of: {_first(FAMILIES[name].answers)}",
        )
        for name in in_order(labels)
    ]


def _can_be(label: str, family: Family, view: View) -> bool:
    """Whether a family can answer so of a picture: by its set, or of karts and tracks that only these frames have."""
    label, frame = normalise(label), view.frame
    own = {"karts": frame.karts, "track": (frame.track,)}.get(family.names, ())
    if label in family.answers or label in map(normalise, own):
        return True
    counts = family.answers[0].isdigit()
    return counts and label in {str(n) for n in range(1, len(frame.karts) + 1)}


def _doubled(records: Iterable[Record]) -> list[Row]:
    """Questions that stand there more than once: with several labels, and with the same one again."""
    labels: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    for record in records:
        labels[record.family, record.image_file, record.question][normalise(record.answer)] += 1
    found = {fault: defaultdict(dict) for fault in _DOUBLED}
    for (family, image_file, question), given in labels.items():
        asked = f"{image_file}: {question}"
        if len(given) > 1:
            found[CONTRADICTORY][family][f"{asked} {' / '.join(given)}"] = given.total()
        if given.total() > len(given):
            found[REPEATED][family][asked] = given.total() - len(given)
    return [
        _row(name, fault, sum(places[name].values()), list(places[name]), _DOUBLED[fault])
        for fault, places in found.items()
        for name in in_order(places)
    ]


_DOUBLED = {CONTRADICTORY: "keep the label that the picture shows", REPEATED: "keep one, as each is scored"}
"""Faults of questions that stand there more than once, and what to do."""
