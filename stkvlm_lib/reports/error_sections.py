"""The report's sections on where and why answers are wrong, each only where a run has what it shows."""

from collections.abc import Iterator

from stkvlm_lib.figures.error_plots import SLICE_TITLES
from stkvlm_lib.number_text import count, is_number, percent
from stkvlm_lib.reports.artefacts import Artefacts
from stkvlm_lib.reports.report_sections import Section, Table, figure
from stkvlm_lib.scores.error_tables import (
    budget_rows,
    ceiling_rows,
    entailed_rows,
    reason_rows,
    reliability_rows,
    selective_rows,
    slice_rows,
    validity_rows,
)
from stkvlm_lib.scores.score_tables import Rows

BUDGET_NOTE = (
    "The rules are tried in the order of the table, so that no error counts twice; of all: of all questions. Causes "
    "with a number under asked are properties that so many questions have before they are answered. right: what is "
    "right of these; plain right: what would be if they were answered like the questions of the same families without "
    "any such property. The difference is what the property costs. The other causes are read off the answers."
)
AGREE = (
    "What the answers about one picture say of each other, whatever the truth is. A count of zero is never asked, so a "
    "relative count that was not asked is zero. Answers can agree and be wrong; the last column has those all right."
)
CEILING_NOTE = (
    "pixel: questions that one pixel of the rule decides, and what is right of them and of the clear rest; declined: "
    "questions that the strict rules would not ask, and what is right of them and of those they would; oracle: truths "
    "that stay when each edge of each box moves by up to a pixel."
)
SLICES = (
    "Dots are the share answered exactly right, black bars what the slice would score if only the families of "
    "questions in it mattered. Where a dot stands away from its bar, the slice itself is easier or harder."
)


def error_sections(found: Artefacts, figures: dict[str, bytes]) -> Iterator[Section]:
    """Budget, slices, calibration, agreement, ceiling; their figures are taken out of `figures`."""
    metrics = found.metrics

    def shown(name: str, alt: str = "") -> list[dict]:
        if name not in figures:
            return []
        drawn = figure(name, figures.pop(name), found)
        return [drawn | {"alt": alt}] if alt else [drawn]

    if rows := budget_rows(metrics):
        drawn = shown("score_budget", _listed("Bars of errors by cause", rows, "cause", "errors"))
        drawn += shown("score_causes")
        yield Section(
            "Why answers are wrong", _budget_text(metrics["error_budget"]), drawn, Table(rows), note=BUDGET_NOTE
        )
    slices = [(kind, slice_rows(metrics, kind)) for kind in SLICE_TITLES]
    if any(rows for _, rows in slices):
        alt = "Dot plots of accuracy by slice; the tables below list them as text."
        details = [Table(rows, f"{SLICE_TITLES[kind]}, as text") for kind, rows in slices if rows]
        yield Section("Where answers are wrong", SLICES, shown("score_slices", alt), details=details)
    if rows := reliability_rows(metrics):
        chosen = selective_rows(metrics)
        drawn = shown("score_calibration", _listed("Accuracy by confidence", rows, "confidence", "exact"))
        details = [Table(rows, "Accuracy by confidence, as text")]
        text = _calibration_text(metrics["calibration"])
        yield Section("What the confidence is worth", text, drawn, Table(chosen) if chosen else None, details)
    if rows := entailed_rows(metrics):
        valid = validity_rows(metrics)
        details = [Table(valid, "Answers of the family's set, by family")] if valid else []
        yield Section("Answers that must agree", AGREE, table=Table(rows), details=details)
    if rows := ceiling_rows(metrics):
        drawn = shown("score_ceiling", _listed("Oracle by family", rows, "family", "oracle"))
        reasons = reason_rows(metrics)
        details = [Table(reasons, "Why the strict rules decline, as text")] if reasons else []
        yield Section(
            "What can be reached", _ceiling_text(metrics["ceiling"]), drawn, Table(rows), details, CEILING_NOTE
        )


def _listed(what: str, rows: Rows, name: str, value: str) -> str:
    """An alternative text with the numbers of a figure."""
    return f"{what}: {', '.join(f'{row[name]} {row[value]}' for row in rows if value in row)}."


def _budget_text(budget: dict) -> str:
    return (
        f"{count(budget.get('errors'))} of {count(budget.get('n'))} answers are wrong. Each has the one cause whose "
        "rule holds first; together they are all errors."
    )


def _calibration_text(figures: dict) -> str:
    text = (
        f"The mean confidence is {percent(figures.get('confidence'))}, and {percent(figures.get('exact'))} of the "
        f"answers are right; the expected calibration error is {percent(figures.get('ece'))}."
    )
    chosen = figures.get("selective")
    if not isinstance(chosen, dict):
        return f"{text} There are no valid races beside those scored, so no threshold for answering was fitted."
    rate = percent(chosen.get("error_rate"))
    if not is_number(chosen.get("threshold")):
        return f"{text} No confidence keeps the errors on valid races at {rate}."
    return (
        f"{text} Answering only from the confidence on that kept the errors on valid races at {rate}, it answers "
        f"{percent(chosen.get('coverage'))} of the scored questions, and {percent(chosen.get('error'))} of these wrong."
    )


def _ceiling_text(figures: dict) -> str:
    pixel, strict = (figures.get(kind) if isinstance(figures.get(kind), dict) else {} for kind in ("pixel", "strict"))
    return (
        "The course's rule decides every question, also where a box of five pixels or two centres a pixel apart decide "
        f"it: {percent(pixel.get('doubtful'))} of the questions hang on one pixel, and the strict rules would decline "
        f"{percent(strict.get('doubtful'))}. An oracle that knows all boxes, but each edge only to a pixel, would "
        f"score {percent(figures.get('oracle'))}. Were every question right that no pixel decides, and the others as "
        f"they are, {percent(pixel.get('reach'))} would be right."
    )
