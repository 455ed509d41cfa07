"""Fields of the explorer's form."""

from collections.abc import Sequence

import ipywidgets as widgets


def field(widget: widgets.Widget) -> widgets.Widget:
    """A field with its name above it."""
    widget.add_class("stk-field")
    return widget


def choose(box: widgets.Dropdown, options: Sequence[tuple[str, str]], value: str | None) -> None:
    """Change options and value of a dropdown in one message, so that nothing flickers."""
    if (box.options, box.value) != (tuple(options), value):
        with box.hold_sync():
            box.options = options
            box.value = value
