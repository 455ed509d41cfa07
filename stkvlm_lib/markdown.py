"""Markdown from rows and numbers."""

from collections.abc import Iterable, Mapping
from typing import Any


def table(rows: Iterable[Mapping[str, Any]], right: bool = False) -> str:
    """Rows as a Markdown table; right: numbers, aligned right, in all columns but the first."""
    rows = list(rows)
    if not rows:
        return ""
    names = list(rows[0])
    rule = ["---", *(["--:" if right else "---"] * (len(names) - 1))]
    lines = [names, rule, *([cell(row[name]) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def cell(value: Any) -> str:
    """A value as it stands in a table: thousands separated, (300, 200) as 300x200."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return "x".join(map(str, value))
    return str(value).replace("|", "\\|").replace("\n", " ")


def folded(summary: str, text: str) -> str:
    """Markdown that is shown when one opens it."""
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def share(part: int, whole: int) -> str:
    """A count with its share of the whole: 12 (3.4 %)."""
    return f"{part:,} ({100 * part / whole:.1f} %)" if whole else "0"
