"""The questions of a view as rows of a table: searched, sorted, and saved."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from stkvlm_lib.explore.filters import Given
from stkvlm_lib.qa.qa_sets import Record

AS_FILTERED = "as filtered"
SORTS: dict[str, Callable[["Row"], object]] = {
    "by question": lambda row: row.record.question,
    "by label": lambda row: (row.record.answer, row.record.question),
    "surest first": lambda row: -(row.confidence or 0.0),
    "least sure first": lambda row: 2.0 if row.confidence is None else row.confidence,
}
"""How the table of a view's questions can be sorted, beside the order that filters and order of the views give."""


@dataclass(frozen=True)
class Row:
    """One question of the view on show. matches: whether it passes the filters; chosen: whether it is looked at; other:
    the answer that stands beside its own."""

    record: Record
    prediction: str | None
    correct: bool | None
    confidence: float | None
    matches: bool
    chosen: bool = False
    other: Given | None = None


def row_json(row: Row) -> dict:
    """A question as a line of a file: the record with what was answered, where it was."""
    line = asdict(row.record)
    if row.prediction is not None:
        line |= {"prediction": row.prediction, "correct": row.correct, "confidence": row.confidence}
    if row.other:
        line |= {"other_prediction": row.other.prediction, "other_correct": row.other.correct}
    return line


def find_rows(rows: Iterable[Row], text: str) -> list[Row]:
    """Those whose question, label or answer holds a text, in upper or lower case."""
    wanted, found = text.strip().casefold(), []
    for row in rows:
        answers = row.record.answer, row.prediction or "", row.other.prediction if row.other else ""
        if any(wanted in said.casefold() for said in (row.record.question, *answers)):
            found.append(row)
    return found
