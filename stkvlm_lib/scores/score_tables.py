"""The figures of metrics.json as tables of text, for notebook 04 and the report. A row is a dictionary of its columns.

Whatever the metrics do not have is left out: a column without a figure, or a whole table.
"""

from typing import Any

from stkvlm_lib.figures.plots import in_order
from stkvlm_lib.grammar.questions import FAMILIES
from stkvlm_lib.number_text import NOTHING, count, interval, percent, points

Rows = list[dict[str, str]]
_STATES = {"ego": "the ego kart", "count": "how many karts", "track": "the track", "left_right": "left or right"}
_STATES |= {"front_back": "in front or behind", "other": "something else"}


def family_rows(figures: Any) -> Rows:
    """Scores by family, all questions first. figures: metrics.json itself, or one of its parts with `families`."""
    overall = {**figures, "base": figures.get("base_exact")} if isinstance(figures, dict) else None
    return filled(
        {
            "family": name,
            "question": FAMILIES[name].template if name in FAMILIES else "",
            "n": count(row.get("n")),
            "exact": percent(row.get("exact")),
            "95% interval": interval(row.get("exact_ci95")),
            "prefix": percent(row.get("prefix")),
            "closed": percent(row.get("closed_exact")),
            "majority": percent(row.get("majority")),
            "blind": percent(row.get("blind")),
            "base": percent(row.get("base")),
        }
        for name, row in by_family(figures, overall)
    )


def wording_rows(metrics: dict) -> Rows:
    """The same questions in trained and in held-out wordings, by family."""
    figures = metrics.get("held_out_wordings")
    return filled(
        {
            "family": name,
            "held-out wording": FAMILIES[name].wordings[-1] if name in FAMILIES else "",
            "n": count(row.get("n")),
            "trained": percent(row.get("trained_exact")),
            "held out": percent(row.get("exact")),
            "difference, points": points(row.get("difference")),
            "95% interval": interval(row.get("difference_ci95"), points),
            "same answer": percent(row.get("same_answer")),
        }
        for name, row in by_family(figures, figures)
    )


def own_words_rows(metrics: dict) -> Rows:
    """The same questions in own words and in their template, by family; last, what no picture answers."""
    figures = metrics.get("own_words")
    nothing = figures.get("unanswerable") if isinstance(figures, dict) else None
    rows = by_family(figures, figures) + ([("unanswerable", nothing)] if isinstance(nothing, dict) else [])
    return filled(
        {
            "family": name,
            "n": count(row.get("n")),
            "own words": percent(row.get("exact")),
            "95% interval": interval(row.get("exact_ci95")),
            "template": percent(row.get("trained_exact")),
            "difference, points": points(row.get("difference")),
            "its interval": interval(row.get("difference_ci95"), points),
            "same answer": percent(row.get("same_answer")),
            "answered unknown": percent(row.get("unknown")),
        }
        for name, row in rows
    )


def consistency_rows(metrics: dict, kind: str = "") -> Rows:
    """Pairs of each kind and their controls; with a kind, its families."""
    figures = metrics.get("consistency")
    figures = figures if isinstance(figures, dict) else {}
    if kind:
        part = figures.get(kind)
        rows = [(name, row) for name, row in by_family(part, part) if name != "all"]
    else:
        rows = [(name.replace("_", " "), row) for name, row in figures.items() if isinstance(row, dict)]
        same = [(f"{name}, same answer", row.get("same")) for name, row in rows]
        rows += [(name, row) for name, row in same if isinstance(row, dict)]
    return filled(
        {
            "family" if kind else "pairs": name,
            "n": count(row.get("n")),
            "both right": percent(row.get("both")),
            "95% interval": interval(row.get("both_ci95")),
            "first right": percent(row.get("first")),
            "second right": percent(row.get("second")),
            "both, if independent": percent(row.get("independent")),
        }
        for name, row in rows
    )


def choice_rows(metrics: dict) -> Rows:
    """The multiple choice by what the true sentence states."""
    figures = metrics.get("mc")
    return filled(
        {
            "true sentence states": _STATES.get(name, name),
            "n": count(row.get("n")),
            "exact": percent(row.get("exact")),
            "95% interval": interval(row.get("exact_ci95")),
            "chance": percent(row.get("chance")),
            "blind": percent(row.get("blind")),
        }
        for name, row in by_family(figures, figures)
    )


def unseen_rows(metrics: dict, split: str) -> Rows:
    """A further split beside the one of the headline, by family."""
    further = metrics.get("other_splits")
    figures = further.get(split) if isinstance(further, dict) else None
    usual = dict(by_family(metrics, metrics))
    return filled(
        {
            "family": name,
            "n": count(row.get("n")),
            "exact": percent(row.get("exact")),
            "95% interval": interval(row.get("exact_ci95")),
            f"{metrics.get('split', 'headline')}": percent(usual.get(name, {}).get("exact")),
            "majority": percent(row.get("majority")),
            "blind": percent(row.get("blind")),
        }
        for name, row in by_family(figures, figures)
    )


def comparison_rows(figures: Any, ours: str = "this run", other: str = "other run") -> Rows:
    """Two runs on the questions that both answered, by family. figures: `comparison` of metrics.json."""
    return filled(
        {
            "family": name,
            "n": count(row.get("n")),
            ours: percent(row.get("exact")),
            other: percent(row.get("other_exact")),
            "difference, points": points(row.get("difference")),
            "95% interval": interval(row.get("difference_ci95"), points),
            "won": count(row.get("won")),
            "lost": count(row.get("lost")),
        }
        for name, row in by_family(figures, figures)
    )


FEWEST_CLUSTERS = 10
"""With fewer races (or pictures) to resample, intervals come out too narrow to decide anything."""


def decided(figures: dict) -> str:
    """What a paired difference with its interval decides: `better`, `worse`, `chance`, or `few` where too few clusters
    were resampled. figures: as `comparison` of metrics.json."""
    if (figures.get("n_clusters") or 0) < FEWEST_CLUSTERS:
        return "few"
    low, high = figures.get("difference_ci95") or (0, 0)
    return "better" if low > 0 else "worse" if high < 0 else "chance"


def verdict(figures: dict) -> str:
    """The same in words."""
    n, unit = count(figures.get("n_clusters")), figures.get("clusters", "race")
    words = {
        "few": f"too few {unit}s to tell ({n}; an interval over fewer than {FEWEST_CLUSTERS} is too narrow)",
        "chance": "neither better nor worse beyond chance",
    }
    return words.get(decided(figures), decided(figures))


def comparison_text(figures: dict, ours: str = "this run", other: str = "the other run") -> str:
    """The same in sentences, with what was left out."""
    text = (
        f"On the {count(figures.get('n'))} questions that both answered, {ours} is right in "
        f"{percent(figures.get('exact'))} and {other} in {percent(figures.get('other_exact'))}: "
        f"{points(figures.get('difference'))} points (95% interval {interval(figures.get('difference_ci95'), points)}, "
        f"paired, over {count(figures.get('n_clusters'))} {figures.get('clusters', 'race')}s), {verdict(figures)}. "
        f"{count(figures.get('won'))} questions are won, {count(figures.get('lost'))} lost."
    )
    left_out = {
        "only_ours": f"that only {ours} answered",
        "only_other": f"that only {other} answered",
        "other_truth": "whose true answer differs between the two",
    }
    parts = [f"{count(figures[key])} {words}" for key, words in left_out.items() if figures.get(key)]
    return text + (f" Left out: {', '.join(parts)}." if parts else "")


def by_family(figures: Any, overall: Any) -> list[tuple[str, dict]]:
    """(`all` or a family, its figures); nothing where the figures have no families."""
    families = figures.get("families") if isinstance(figures, dict) else None
    if not isinstance(families, dict):
        return []
    rows = [("all", overall), *((name, families[name]) for name in in_order(families))]
    return [(name, row) for name, row in rows if isinstance(row, dict)]


def filled(rows) -> Rows:
    """Without the columns in which nothing stands."""
    rows = list(rows)
    empty = {name for name in (rows[0] if rows else {}) if all(row[name] in (NOTHING, "") for row in rows)}
    return [{name: value for name, value in row.items() if name not in empty} for row in rows]
