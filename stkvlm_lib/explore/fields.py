"""Fields of the explorer's forms, their looks by explorer.css, and what the browser tells of keys, clicks and files."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import anywidget
import ipywidgets as widgets
import traitlets

W = TypeVar("W", bound=widgets.DOMWidget)


def styled(widget: W, name: str) -> W:
    """A widget with a look of explorer.css: `styled(box, "row")` is drawn as `.stk-row`."""
    widget.add_class(f"stk-{name}")
    return widget


def field(widget: W) -> W:
    """A field with its name above it."""
    return styled(widget, "field")


def choose(box: widgets.Dropdown, options: Sequence[tuple[str, str]], value: str | None) -> None:
    """Change options and value of a dropdown in one message, so that nothing flickers."""
    if (box.options, box.value) != (tuple(options), value):
        with box.hold_sync():
            box.options = options
            box.value = value


class Form(widgets.VBox):
    """Fields that a reader changes, and that are also set to what there is to show."""

    is_quiet = False
    """Whether a change of a field is not the reader's."""

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """Change fields without taking the change for the reader's."""
        before, self.is_quiet = self.is_quiet, True
        try:
            yield
        finally:
            self.is_quiet = before


class Keys(anywidget.AnyWidget):
    """Arrow keys and letters for the whole explorer, clicks on questions, and the picture's alternative text.

    Sends {"action": ..}: `previous`, `next`, `random`, `overlay`, `large`, `ask`; `choose` and `submit` with a
    "question"; `open` with a "picture" and a "question"; `own` with a "name" and the bytes of a picture's file. Takes
    {"file": name} with the bytes of a file to save. done: how many actions were done, so that a key held down waits for
    the picture. query: of the page's address, to come back to.
    """

    _esm = Path(__file__).with_name("explorer.js")
    _css = Path(__file__).with_name("explorer.css")
    alt = traitlets.Unicode().tag(sync=True)
    query = traitlets.Unicode().tag(sync=True)
    done = traitlets.Int().tag(sync=True)
