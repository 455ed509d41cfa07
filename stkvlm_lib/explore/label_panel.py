"""Labels marked right or wrong, with a note: the explorer's panel, and a drawn sample with its pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path

import ipywidgets as widgets

from stkvlm_lib.config import ROOT
from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.explore.fields import choose, field, styled
from stkvlm_lib.explore.markup import mark_html, message
from stkvlm_lib.explore.pictures import png
from stkvlm_lib.figures.drawing import draw_overlay, enlarged
from stkvlm_lib.qa.label_check import (
    RIGHT,
    WITHDRAWN,
    WRONG,
    Key,
    Mark,
    add_mark,
    key_of,
    label_error,
    mark,
    marks_told,
    read_marks,
)
from stkvlm_lib.qa.qa_sets import Record

NO_MARKS = "Marks are kept in a run folder, and none is named. Open the explorer with explore(frames, qa, marks=FILE)."


class LabelPanel(widgets.VBox):
    """Marks one label after the other as right or wrong, with a note; each mark is on the disk when it is shown.

    path: the JSON-lines file of the marks; None: nothing can be marked. changed: called after every mark. before: files
    of marks that hold too, where no later one is in `path`.
    """

    def __init__(self, path: Path | None, changed: Callable[[], None], before: Sequence[Path] = ()):
        self.path, self._changed, self._before = path, changed, before
        self.marks: dict[Key, Mark] = {}
        self.records: dict[Key, Record] = {}
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

    def show(self, records: Sequence[Record]) -> None:
        """Other questions; the one asked in the same words stays chosen."""
        asked = self.record and self.record.question
        self.records = {key_of(record): record for record in records}
        self._read()  # another page may have marked labels of the same run
        first = next(iter(self.records), None)
        choose(self.about, [(r.question, key) for key, r in self.records.items()], self._find(asked) or first)
        self._refresh()

    def put(self, question: str) -> None:
        """Choose a question, where it is among them."""
        self.about.value = self._find(question) or self.about.value

    def _find(self, question: str | None) -> Key | None:
        return next((key for key, record in self.records.items() if record.question == question), None)

    @property
    def record(self) -> Record | None:
        """The question on show."""
        return self.records.get(self.about.value)

    @property
    def made(self) -> Mark | None:
        """The mark on it."""
        return self.marks.get(self.about.value)

    def mark(self, verdict: str) -> None:
        """Write a mark on the question on show."""
        new = mark(self.record, verdict, self.note.value.strip())
        try:
            add_mark(self.path, new)
        except OSError as error:
            told = f"{self.path}: the mark could not be written ({error.strerror}); see whether its folder is there"
            self.status.value = message(told, "error")
            return
        self.note.value = ""
        self._read()
        self._changed()

    def _read(self) -> None:
        try:
            self.marks = {found.key: found for found in read_marks(*self._before, self.path)} if self.path else {}
        except (ValueError, OSError) as error:
            self.path = None
            self.status.value = message(f"The marks made before cannot be read. {error}", "error")
        self._refresh()

    def _refresh(self) -> None:
        usable = self.path is not None
        self.label.value = mark_html(self.record, self.made) if self.record else ""
        for widget in (*self.buttons.values(), self.note):
            widget.disabled = not (usable and self.record)
        self.buttons[WITHDRAWN].layout.display = None if self.made else "none"
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


class LabelMarker(LabelPanel):
    """The same with a picture, for the questions of a sample: begins at the first that has no mark, and goes on to the
    next when one is marked."""

    def __init__(self, sample: Sequence[Record], folder: FrameSet, path: Path, before: Sequence[Path] = ()):
        self.folder = folder
        self.steps = {
            "back": widgets.Button(description="Back", icon="arrow-left", tooltip="the question before"),
            "skip": widgets.Button(description="Skip", icon="arrow-right", tooltip="the next question"),
        }
        self.boxes = widgets.Checkbox(False, description="Show the boxes and names", indent=False)
        self.picture = widgets.Image(format="png", layout={"max_width": "100%"})
        self.progress = widgets.HTML()
        super().__init__(path, self._go_on, before)
        self.about.layout.width = self.note.layout.width = "auto"
        self.children = [self.progress, *self.children, widgets.HBox([*self.steps.values(), self.boxes]), self.picture]
        self.steps["back"].on_click(lambda _: self.step(-1))
        self.steps["skip"].on_click(lambda _: self.step(1))
        self.boxes.observe(lambda _: self._refresh(), "value")
        self.show(sample)
        self.about.value = next((key for key in self.records if key not in self.marks), self.about.value)

    def step(self, by: int) -> None:
        """Show the question so many further on, at most the last one."""
        keys = list(self.records)
        if keys:
            self.about.value = keys[min(max(keys.index(self.about.value) + by, 0), len(keys) - 1)]

    def _go_on(self) -> None:
        self.step(1 if self.made else 0)

    def _refresh(self) -> None:
        super()._refresh()
        if self.record is None:
            self.progress.value = "No questions to mark."
            return
        view = self.folder.by_image_file[self.record.image_file]
        self.picture.value = png(draw_overlay(view, 800, zones=False) if self.boxes.value else enlarged(view, 800))
        number, told = list(self.records).index(self.about.value) + 1, marks_told(self.records.values(), self.marks)
        self.progress.value = f"question {number} of {len(self.records)} · {self.record.family} · {told}"
