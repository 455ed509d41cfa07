"""Marking labels right or wrong: a widget that shows one question at a time, and a gallery of all for readers."""

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

import ipywidgets as widgets

from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.explore.pictures import png
from stkvlm_lib.figures.drawing import draw_overlay, enlarged
from stkvlm_lib.figures.style import GREEN, VERMILLION
from stkvlm_lib.number_text import interval, percent
from stkvlm_lib.qa.label_check import RIGHT, Key, Mark, add_mark, key_of, label_error, mark, marks_on, read_marks
from stkvlm_lib.qa.qa_sets import Record
from stkvlm_lib.templates import render


class LabelMarker(widgets.VBox):
    """Starts at the first question without a mark. Right and Wrong write a line to the file and go to the next.

    marks: made before; new ones are written to `path` at once.
    """

    def __init__(self, sample: Sequence[Record], folder: FrameSet, path: Path, marks: Iterable[Mark] = ()):
        self.sample, self.folder, self.path = list(sample), folder, path
        self.marks: dict[Key, Mark] = {found.key: found for found in (*marks, *read_marks(path))}
        self.index = next((i for i, record in enumerate(self.sample) if key_of(record) not in self.marks), 0)
        self.buttons = {
            "right": widgets.Button(description="Right", icon="check", button_style="success"),
            "wrong": widgets.Button(description="Wrong", icon="times", button_style="danger"),
            "back": widgets.Button(description="Back", icon="arrow-left", tooltip="the question before"),
            "skip": widgets.Button(description="Skip", icon="arrow-right", tooltip="the next question"),
        }
        for name, button in self.buttons.items():
            button.layout.width = "auto"
            button.on_click(lambda _, name=name: self._press(name))
        self.note = widgets.Text(placeholder="a note, if need be", continuous_update=False, layout={"width": "260px"})
        self.boxes = widgets.Checkbox(False, description="Show the boxes and names", indent=False)
        self.boxes.observe(lambda _: self.refresh(), "value")
        self.picture = widgets.Image(format="png", layout={"max_width": "100%"})
        self.question, self.progress = widgets.HTML(), widgets.HTML()
        wrap = {"flex_flow": "row wrap", "align_items": "center"}
        controls = widgets.HBox([*self.buttons.values(), self.note, self.boxes], layout=wrap)
        super().__init__([self.progress, self.question, controls, self.picture])
        self.refresh()

    @property
    def record(self) -> Record | None:
        """The question on show, None when there is none at all."""
        return self.sample[self.index] if self.sample else None

    def _press(self, name: str) -> None:
        if self.record is None:
            return
        if name in ("right", "wrong"):
            made = mark(self.record, name, self.note.value.strip())
            add_mark(self.path, made)
            self.marks[made.key] = made
        step = -1 if name == "back" else 1
        self.index = min(max(self.index + step, 0), len(self.sample) - 1)
        self.refresh()

    def refresh(self) -> None:
        """Show the question."""
        if self.record is None:
            self.progress.value = "No questions to mark."
            return
        view = self.folder.by_image_file[self.record.image_file]
        made = self.marks.get(key_of(self.record))
        self.note.value = made.note if made else ""
        self.picture.value = png(draw_overlay(view, 800, zones=False) if self.boxes.value else enlarged(view, 800))
        self.question.value = f"<div style='font-size:17px;line-height:1.5'>{_said(self.record, made)}</div>"
        self.progress.value = (
            f"question {self.index + 1} of {len(self.sample)} · {self.record.family}, {self.record.rules} rules · "
            f"{summary(self.sample, self.marks.values())}"
        )


def summary(sample: Sequence[Record], marks: Iterable[Mark]) -> str:
    """How many of the sample are marked, and the error so far."""
    found = label_error(marks_on(sample, marks))
    if not found.n:
        return f"none of {len(sample)} marked yet"
    ends = interval(found.interval)
    return f"{found.n} of {len(sample)} marked, {found.wrong} wrong: {percent(found.rate)} (95% interval {ends})"


def gallery(sample: Sequence[Record], folder: FrameSet, marks: Sequence[Mark]) -> str:
    """All questions on their pictures with their marks as HTML, for readers of the executed notebook.

    The pictures are the files' own bytes, enlarged by the browser.
    """
    made, cards = {found.key: found for found in marks}, []
    for record in sample:
        picture = folder.by_image_file[record.image_file].image_path.read_bytes()
        cards.append((record, _said(record, made.get(key_of(record))), base64.b64encode(picture).decode()))
    return render(Path(__file__).with_name("gallery.html"), summary=summary(sample, marks), cards=cards)


def _said(record: Record, made: Mark | None) -> str:
    """Question, answer and mark."""
    text = f"{html.escape(record.question)} <b>{html.escape(record.answer)}</b>"
    if not made:
        return text
    colour, word = (GREEN, "✓ right") if made.verdict == RIGHT else (VERMILLION, "✗ wrong")
    note = f" <i>{html.escape(made.note)}</i>" if made.note else ""
    return f"{text} <span style='color:{colour};font-weight:bold;white-space:nowrap'>{word}</span>{note}"
