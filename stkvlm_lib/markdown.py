"""Markdown from rows and numbers, and from texts of others, which stay what they are: no HTML and no formatting."""

import re
from collections.abc import Iterable, Mapping
from typing import Any


class Formatted(str):
    """Text that is Markdown already, and so stands in a table as it is."""


def table(rows: Iterable[Mapping[str, Any]], right: bool = False) -> str:
    """Rows as a Markdown table; right: columns of numbers, but for the first, are aligned right."""
    rows = list(rows)
    if not rows:
        return ""
    names = list(rows[0])
    rule = [
        "--:" if right and n and _is_of_numbers(row[name] for row in rows) else "---" for n, name in enumerate(names)
    ]
    lines = [list(map(cell, names)), rule, *([cell(row[name]) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _is_of_numbers(values: Iterable[Any]) -> bool:
    """Whether nothing stands in a column but numbers, with their signs and units, and dashes."""
    return all(re.match(r"[-+±]?\d|[–-]?$", str(value)) for value in values)


def cell(value: Any) -> str:
    """A value as it stands in a table: thousands separated, (300, 200) as 300x200, texts escaped."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return escaped("x".join(map(str, value)))
    return str(value) if isinstance(value, Formatted) else escaped(str(value))


def escaped(text: str) -> str:
    """A text, as from a data folder, that reads in Markdown as it stands, in one line: no HTML, link, code or cell."""
    text = re.sub(r"([\\`*|\[\]])", r"\\\1", " ".join(text.splitlines()))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def code(text: str) -> Formatted:
    """A text in one line as code, also as a cell of a table."""
    return Formatted(f"`{' '.join(text.split()).replace('`', chr(39)).replace('|', chr(92) + '|')}`")


def folded(summary: str, text: str) -> str:
    """Markdown that is shown when one opens it. summary: Markdown too."""
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def share(part: int, whole: int) -> str:
    """A count with its share of the whole: 12 (3.4 %)."""
    return f"{part:,} ({100 * part / whole:.1f} %)" if whole else "0"
