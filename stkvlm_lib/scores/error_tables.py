"""The figures of the error analysis as tables of text, for notebook 04 and the report, as score_tables has the scores.

Whatever the metrics do not have is left out: a column without a figure, or a whole table.
"""

from typing import Any

from stkvlm_lib.figures.error_plots import SLICE_TITLES
from stkvlm_lib.number_text import count, interval, is_number, number, percent, points
from stkvlm_lib.scores.causes import CAUSES
from stkvlm_lib.scores.score_tables import Rows, by_family, filled

ENTAILED = {
    "place": "left/right and front/back agree with where",
    "left_and_right": "left + right + 1 = total count",
    "front_and_behind": "in front + behind + 1 = total count",
    "tally_left": "count left = karts placed left",
    "tally_right": "count right = karts placed right",
    "tally_front": "count in front = karts placed in front",
    "tally_behind": "count behind = karts placed behind",
}
"""Kind of check -> what it says."""


def slice_rows(metrics: dict, kind: str) -> Rows:
    """The slices of one kind."""
    slices = _part(metrics, "slices")
    return filled(
        {
            SLICE_TITLES.get(kind, kind).lower(): name,
            "n": count(row.get("n")),
            "exact": percent(row.get("exact")),
            "95% interval": interval(row.get("exact_ci95")),
            "expected": percent(row.get("expected")),
            "points": points(_less(row.get("exact"), row.get("expected"))),
        }
        for name, row in _rows_of(slices.get(kind))
    )


def reliability_rows(metrics: dict) -> Rows:
    """Share right by confidence."""
    bins = _part(metrics, "calibration").get("bins")
    return filled(
        {
            "confidence": f"{percent(row.get('low'))} to {percent(row.get('high'))}",
            "n": count(row.get("n")),
            "mean confidence": percent(row.get("confidence")),
            "exact": percent(row.get("exact")),
            "95% interval": interval(row.get("exact_ci95")),
        }
        for row in (bins if isinstance(bins, list) else [])
        if isinstance(row, dict)
    )


def selective_rows(metrics: dict) -> Rows:
    """What answering only above the threshold gives on the races where it was fitted, and on those scored."""
    chosen = _part(metrics, "calibration").get("selective")
    if not isinstance(chosen, dict):
        return []
    fit = chosen.get("fit")
    rows = [("valid, where the threshold is fitted", fit), (f"{metrics.get('split', 'scored')}, scored", chosen)]
    return filled(
        {
            "answers": name,
            "n": count(row.get("n")),
            "confidence from": number(chosen.get("threshold"), 3),
            "answered": percent(row.get("coverage")),
            "wrong": percent(row.get("error")),
            "95% interval": interval(row.get("error_ci95")),
            "aim": percent(chosen.get("error_rate")),
        }
        for name, row in rows
        if isinstance(row, dict)
    )


def entailed_rows(metrics: dict) -> Rows:
    """Answers that must agree, and last the share of answers that are one of their family's."""
    valid = _part(metrics, "validity")
    rows = [(ENTAILED.get(kind, kind), row) for kind, row in _rows_of(metrics.get("entailed"))]
    if is_number(valid.get("valid")):
        rows.append(("the answer is one of the family's", {**valid, "agree": valid["valid"]}))
    return filled(
        {
            "must hold of the answers": name,
            "n": count(row.get("n")),
            "holds": percent(row.get("agree")),
            "95% interval": interval(row.get("agree_ci95")),
            "all right": percent(row.get("correct")),
        }
        for name, row in rows
    )


def validity_rows(metrics: dict) -> Rows:
    """Share of answers in the answer set, by family."""
    figures = metrics.get("validity")
    return filled(
        {"family": name, "n": count(row.get("n")), "valid": percent(row.get("valid"))}
        for name, row in by_family(figures, figures)
    )


def budget_rows(metrics: dict) -> Rows:
    """Errors by cause in the order of the rules, with their sum.

    of all: of all questions. asked, right, plain right: questions that have the cause before they are answered, what is
    right of them, and of plain questions of the same families.
    """
    budget = _part(metrics, "error_budget")
    rows = _rows_of(budget.get("causes"))
    if not rows:
        return []
    errors, n = budget.get("errors"), budget.get("n")
    wrong = errors / n if is_number(errors) and is_number(n) and n else None
    whole = ("all errors", {"n": errors, "share": 1.0 if errors else None, "cost": wrong})
    return filled(
        {
            "cause": name,
            "when": CAUSES[name].what if name in CAUSES else "",
            "errors": count(row.get("n")),
            "of errors": percent(row.get("share")),
            "of all": percent(row.get("cost")),
            "asked": count(row.get("touched")),
            "right": percent(row.get("exact")),
            "plain right": percent(row.get("expected")),
            "what would lift it": CAUSES[name].lift if name in CAUSES else "",
        }
        for name, row in [*rows, whole]
    )


def ceiling_rows(metrics: dict) -> Rows:
    """Doubtful truths and what they cost, by family.

    pixel, declined: questions that a pixel decides, that the strict rules decline; beside each what is right of them
    and of the rest.
    """
    figures = metrics.get("ceiling")
    listed = [
        (name, row, *(_part(row, kind) for kind in ("pixel", "strict"))) for name, row in by_family(figures, figures)
    ]
    return filled(
        {
            "family": name,
            "n": count(row.get("n")),
            "exact": percent(row.get("exact")),
            "pixel": percent(pixel.get("doubtful")),
            "right": percent(pixel.get("exact_doubtful")),
            "clear right": percent(pixel.get("exact_clear")),
            "declined": percent(strict.get("doubtful")),
            "declined right": percent(strict.get("exact_doubtful")),
            "asked right": percent(strict.get("exact_clear")),
            "oracle": percent(row.get("oracle")),
        }
        for name, row, pixel, strict in listed
    )


def reason_rows(metrics: dict) -> Rows:
    """Why the strict rules decline questions, the most frequent reason first."""
    reasons = _part(_part(_part(metrics, "ceiling"), "strict"), "reasons")
    return [{"the strict rules decline because of": reason, "questions": count(n)} for reason, n in reasons.items()]


def _part(metrics: Any, name: str) -> dict:
    part = metrics.get(name) if isinstance(metrics, dict) else None
    return part if isinstance(part, dict) else {}


def _rows_of(part: Any) -> list[tuple[str, dict]]:
    return [(name, row) for name, row in part.items() if isinstance(row, dict)] if isinstance(part, dict) else []


def _less(value: Any, other: Any) -> float | None:
    return value - other if is_number(value) and is_number(other) else None
