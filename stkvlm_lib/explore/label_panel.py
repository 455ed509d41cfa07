"""The explorer's panel of labels: marked right or wrong, with a note."""

from collections.abc import Callable, Sequence
from pathlib import Path

import ipywidgets as widgets

from stkvlm_lib.config import ROOT
from stkvlm_lib.explore.fields import choose, field, styled
from stkvlm_lib.explore.markup import mark_html, message
from stkvlm_lib.explore.state import Row
from stkvlm_lib.qa.label_check import RIGHT, WITHDRAWN, WRONG, Mark, add_mark, key_of, label_error, mark, read_marks

NO_MARKS = "Marks are kept in a run folder, and none is named. Open the explorer with explore(frames, qa, marks=FILE)."


class LabelPanel(widgets.VBox):
    """Marks labels of the view on show as right or wrong, with a note; each mark is on the disk when it is shown.

    path: the JSON-lines file of the marks; None: nothing can be marked. changed: called after every mark.
    """

    def __init__(self, path: Path | None, changed: Callable[[], None]):
        self.path, self._changed = path, changed
        self.marks: dict[tuple[str, str, str], Mark] = {}
        self._rows: Sequence[Row] = ()
        self.about = field(widgets.Dropdown(options=[], description="Question"))
        self.label, self.status = widgets.HTML(), widgets.HTML()
        note = {"description": "Note (if you like)", "placeholder": "what the picture shows"}
        self.note = field(widgets.Text(**note, continuous_update=False))  # sent whole before the click on a button is
        self.buttons = {
            RIGHT: widgets.Button(description="✓ The label is right"),
            WRONG: widgets.Button(description="✗ The label is wrong"),
            WITHDRAWN: widgets.Button(description="Remove the mark"),
        }
        for verdict, button in self.buttons.items():
            button.on_click(lambda _, verdict=verdict: self.mark(verdict))
        self.about.observe(lambda _: self._refresh(), "value")
        row = styled(widgets.HBox(list(self.buttons.values())), "row")
        super().__init__([self.about, self.label, self.note, row, self.status])
        styled(self, "pane")
        self._read()

    def show(self, rows: Sequence[Row]) -> None:
        """The questions of another view."""
        self._rows = rows
        self._read()  # another page may have marked labels of the same run
        keys = [row.record.question for row in rows]
        chosen = self.about.value if self.about.value in keys else keys[0] if keys else None
        choose(self.about, [(key, key) for key in keys], chosen)
        self._refresh()

    def put(self, question: str) -> None:
        """Choose a question of this view."""
        if question in [value for _, value in self.about.options]:
            self.about.value = question

    @property
    def row(self) -> Row | None:
        """The question on show."""
        return next((row for row in self._rows if row.record.question == self.about.value), None)

    def mark(self, verdict: str) -> None:
        """Write a mark on the question on show."""
        new = mark(self.row.record, verdict, self.note.value.strip())
        try:
            add_mark(self.path, new)
        except OSError as error:
            self.status.value = message(f"The mark could not be written: {error}", "error")
            return
        self.note.value = ""
        self._read()
        self._changed()

    def _read(self) -> None:
        try:
            self.marks = {found.key: found for found in read_marks(self.path)} if self.path else {}
        except (ValueError, OSError) as error:
            self.path = None
            self.status.value = message(f"The marks made before cannot be read. {error}", "error")
        self._refresh()

    def _refresh(self) -> None:
        row, usable = self.row, self.path is not None
        made = row and self.marks.get(key_of(row.record))
        self.label.value = mark_html(row.record, made) if row else ""
        for widget in (*self.buttons.values(), self.note):
            widget.disabled = not (usable and row)
        self.buttons[WITHDRAWN].layout.display = None if made else "none"
        if usable:
            self.status.value = message(self._count())
        elif not self.status.value:
            self.status.value = message(NO_MARKS)

    def _count(self) -> str:
        shown = self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path
        if not self.marks:
            return f"No label is marked yet. Marks are written to {shown} at once."
        found = label_error(self.marks.values())
        return f"{found.n} marked, {found.wrong} of them wrong; kept in {shown}."
