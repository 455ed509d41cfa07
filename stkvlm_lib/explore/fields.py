"""Fields of the explorer's form, and the names by which explorer.css gives widgets their look."""

from collections.abc import Sequence
from typing import TypeVar

import ipywidgets as widgets

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
