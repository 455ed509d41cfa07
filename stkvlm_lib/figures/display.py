"""What notebooks show: tables, sections of a report, and a figure that redraws itself while a cell runs."""

import html
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd
from IPython.display import HTML, Image, Markdown, display
from matplotlib.figure import Figure

from stkvlm_lib.markdown import escaped


def table(rows: Iterable[dict[str, Any]]) -> Any:
    """Rows as a table without row numbers, numbers with thousands separators; says so when there are none.

    Texts stand as they are: what looks like HTML in them, as it may in a name from a data folder, is none.
    """
    frame = pd.DataFrame(list(rows))
    if frame.empty:
        frame = pd.DataFrame({"": ["nothing to show"]})
    look = [{"selector": "th, td", "props": "text-align: left; vertical-align: top"}]
    look.append({"selector": "td", "props": "white-space: nowrap"})  # a narrow page scrolls sideways
    shown = frame.style.hide(axis="index").format(thousands=",", precision=3, escape="html")
    words = [name for name in frame if frame[name].astype(str).str.len().max() > 24]
    shown.set_properties(subset=words, **{"white-space": "normal", "min-width": "12em"})
    return shown.format_index(axis="columns", escape="html").set_table_styles(look)


def section(found: Any, otherwise: str) -> None:
    """Words, figures with captions, and tables of an `analysis.sections.Section`; `otherwise` where there is none."""
    if found is None:
        print(otherwise)
        return
    if found.text:
        display(Markdown(escaped(found.text)))
    for shown in found.figures:
        display(Image(shown.figure) if isinstance(shown.figure, bytes) else shown.figure)
        display(Markdown(f"*{escaped(shown.caption)}*"))
    if found.table:
        display(table(found.table.rows))
    if found.note:
        display(Markdown(f"*{escaped(found.note)}*"))
    for more in found.details:
        inner = table(more.rows).to_html()
        display(HTML(f"<details><summary>{html.escape(more.title)}</summary>{inner}</details>"))


def live(draw: Callable[[Any], Figure]) -> Callable[[Any], None]:
    """A function that shows `draw(data)` below the running cell, each call in place of the last."""
    handle = display(display_id=True)

    def show(data: Any) -> None:
        if handle is not None:  # outside a notebook there is nowhere to draw
            handle.update(draw(data))

    return show
