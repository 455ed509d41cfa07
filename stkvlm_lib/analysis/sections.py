"""What an analysis has to show, whoever shows it, notebook or report: words, figures and tables under a heading."""

import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from matplotlib.figure import Figure

from stkvlm_lib import markdown
from stkvlm_lib.number_text import NOTHING, count, interval, percent

Rows = list[dict[str, str]]
"""A table's rows: each a dictionary of its columns."""


@dataclass
class Table:
    """Rows of text with the same columns. title: of a table that opens on a click."""

    rows: Rows
    title: str = ""

    @property
    def columns(self) -> list[str]:
        return list(self.rows[0]) if self.rows else []

    def markdown(self, without: Container[str] = ()) -> str:
        """The table in Markdown, figures aligned right. without: columns that are left out."""
        kept = ({name: text for name, text in row.items() if name not in without} for row in self.rows)
        return markdown.table(kept, right=True)


@dataclass
class Shown:
    """A figure under the name of its file. alt: what it shows, with its numbers where they are few, for those who
    cannot see it; the caption where there is no more to say."""

    name: str
    figure: Figure | bytes
    caption: str
    alt: str = ""


@dataclass
class Section:
    """What stands under a heading. note: how a table is to be read; details: tables behind a click, of which those
    that are None are left out."""

    title: str
    text: str = ""
    figures: list[Shown] = field(default_factory=list)
    table: Table | None = None
    details: Iterable[Table | None] = ()
    note: str = ""

    def __post_init__(self) -> None:
        self.details = [each for each in self.details if each]

    @property
    def anchor(self) -> str:
        """What a link to it names."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")


def table(rows: Iterable[dict[str, str]], title: str = "") -> Table | None:
    """A table without the columns in which nothing stands; None without rows."""
    kept = filled(rows)
    return Table(kept, title) if kept else None


Column = str | tuple[str, Callable[[Any], str]] | Callable[[str], str]
"""An attribute of figures, dotted for one of their parts; that and how its numbers are written; or a text by name."""


def table_of(
    what: str, rows: Iterable[tuple[str, Any]], columns: Mapping[str, Column], title: str = ""
) -> Table | None:
    """A row a set of figures, by its name under the heading `what`. columns: heading -> what stands there.

    Texts stand as they are, whole numbers are counts, others shares unless it is said how they are written, and pairs
    intervals of such; a dash stands where figures have none.
    """

    def text(name: str, figures: Any, column: Column) -> str:
        if callable(column):
            return column(name)
        place, show = column if isinstance(column, tuple) else (column, percent)
        value = reduce(lambda part, each: getattr(part, each, None), place.split("."), figures)
        if isinstance(value, tuple):
            return interval(value, show)
        if isinstance(value, int):
            return count(value)
        return value if isinstance(value, str) else show(value)

    told = ({what: name} | {head: text(name, row, column) for head, column in columns.items()} for name, row in rows)
    return table(told, title)


def filled(rows: Iterable[dict[str, str]]) -> Rows:
    """Rows without the columns in which nothing stands."""
    rows = list(rows)
    empty = {name for name in (rows[0] if rows else {}) if all(row[name] in (NOTHING, "") for row in rows)}
    return [{name: value for name, value in row.items() if name not in empty} for row in rows]


def listed(what: str, rows: Iterable[tuple[Any, str]]) -> str:
    """An alternative text with the numbers of a figure."""
    return f"{what}: {', '.join(f'{name} {value}' for name, value in rows)}."
