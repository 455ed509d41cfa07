"""The explorer: step through views with questions, labels and predictions, ask a model, see what decides, mark labels.

    from stkvlm_lib.explore.explorer import explore
    explore(frames, records, predictions, model)

What is shown is worked out in `state`, `asking` and `occlusion`; this module only puts widgets on it.
"""

import json
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets as widgets

from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.explore.ask_panel import AskPanel
from stkvlm_lib.explore.asking import Asker, Beside
from stkvlm_lib.explore.fields import Form, Keys, choose, field, styled
from stkvlm_lib.explore.filters import FILTERS, ORDERS, Given
from stkvlm_lib.explore.label_panel import LabelPanel
from stkvlm_lib.explore.links import query
from stkvlm_lib.explore.markup import detections_html, legend_html, message, place_html, questions_html
from stkvlm_lib.explore.models import Askable, OwnModel
from stkvlm_lib.explore.own_picture import own_view
from stkvlm_lib.explore.pictures import DETAILS, picture_png
from stkvlm_lib.explore.state import AS_FILTERED, SORTS, ExplorerState, row_json
from stkvlm_lib.qa.label_check import MARKS_FILE
from stkvlm_lib.qa.qa_sets import Record

if TYPE_CHECKING:
    from stkvlm_lib.vlm.answering import AnswerModel

QUESTIONS_FILE = "questions.jsonl"
"""The name under which the questions that pass the filters are saved."""
KEYS = "Keys, after a click on the picture: ← → step, R random, O overlay, Z large picture, / ask."


def explore(
    frames: FrameSet,
    records: Iterable[Record],
    predictions: Sequence[Given] = (),
    model: "AnswerModel | Callable[[], AnswerModel] | Askable | None" = None,
    marks: str | Path | None = None,
    seed: int = 0,
    beside: Beside | None = None,
) -> "Explorer":
    """The explorer, to be displayed by a notebook. With predictions it starts at the split they are about.

    model: answers live; a function that loads one is called at the first question. marks: the file for marks on labels.
    seed: of the random steps. beside: whose answers stand beside these. Raises ValueError when no record is about
    `frames`.
    """
    state = ExplorerState(frames, records, predictions, seed, beside)
    home = frames.by_image_file.get(predictions[0].image_file) if predictions else None
    if home and home.frame.split in state.options("split"):
        state.set_filters(split=home.frame.split)
        state.home = state.filters
    asked = model if model is None or isinstance(model, Askable) else OwnModel(model)
    return Explorer(state, Asker(asked, beside), Path(marks) if marks else None)


class Explorer(Form):
    """Filters, buttons, picture and panels. Every event changes the state; then `refresh` shows it in place."""

    def __init__(self, state: ExplorerState, asker: Asker, marks: Path | None = None):
        self.state = state
        self._lock, self._filtered = threading.RLock(), None
        self.ask = AskPanel(asker, changed=self.show_picture, asked=self._look_at)
        self.labels = LabelPanel(marks, changed=self._show_questions)
        self.keyboard = Keys()
        self.keyboard.on_msg(lambda _, content, buffers: self._hear(content, buffers))
        super().__init__([*self._filtering(), self._stepping(), self._main(), styled(self.keyboard, "keys")])
        styled(self, "explorer")
        self.refresh()

    def _filtering(self) -> tuple[widgets.Widget, widgets.Widget]:
        """The filters, and the switch that shows them where there is little room."""
        self.filters = {name: self._filter(name) for name in FILTERS if self.state.options(name)}
        self.order = field(widgets.Dropdown(options=ORDERS, description="Order"))
        self.order.observe(lambda change: self._do(partial(self.state.set_order, change.new)), "value")
        self.reset = self._button("Reset filters", self.state.reset, "filters and order as at the beginning")
        switch = widgets.ToggleButton(False, description="Filters", tooltip="show or hide the filters")
        switch.observe(lambda change: self._switch_class("stk-filtering", change.new), "value")
        orders = [self.order] if self.state.has_predictions else []
        filters = styled(widgets.Box([*self.filters.values(), *orders, self.reset]), "filters")
        return styled(switch, "filtering-switch"), filters

    def _stepping(self) -> widgets.Widget:
        """From one view to another, and where we are."""
        self.buttons = {
            "previous": self._button("← Previous", self.state.previous, "the view before (key ←)"),
            "next": self._button("Next →", self.state.next, "the next view (key →)"),
            "random": self._button("Random", self.state.random, "any other view (key R)"),
        }
        goto = widgets.Text(description="Go to", placeholder="number or picture", continuous_update=False)
        goto.observe(lambda change: change.new and self._try(self._find, change.new), "value")
        own = widgets.Button(description="Own picture …", tooltip="a file of yours to ask about; or drop it here")
        self.goto, self.place = styled(goto, "goto"), styled(widgets.HTML(), "place")
        return styled(widgets.Box([*self.buttons.values(), self.goto, styled(own, "own"), self.place]), "steps")

    def _main(self) -> widgets.Widget:
        """The picture beside what is known of it."""
        panes = {"Questions": self._listing(), "Ask": self.ask, "Labels": self.labels}
        self.detections = panes["Detections"] = styled(widgets.HTML(), "scroll")
        self.tabs = styled(widgets.Tab(list(panes.values()), titles=list(panes), selected_index=0), "tabs")
        self.tabs.observe(
            lambda change: self.tabs.children[change.new] is self.ask and self.ask.asker.prepare(), "selected_index"
        )
        return styled(widgets.Box([self._pictured(), self.tabs]), "main")

    def _pictured(self) -> widgets.Widget:
        """The picture, its switches, and what it shows in words."""
        self.overlay = widgets.Checkbox(True, description="Overlay", indent=False)
        self.details = {
            name: widgets.Checkbox(name == "zones", description=text, indent=False) for name, text in DETAILS.items()
        }
        for box in (self.overlay, *self.details.values()):
            box.observe(lambda _: self.show_picture(), "value")
        self.large = widgets.Checkbox(False, description="Large picture", indent=False)
        self.large.observe(lambda change: self._switch_class("stk-large", change.new), "value")
        self.picture = styled(widgets.Image(format="png"), "picture")
        self.description, self.legend, keys = widgets.HTML(), widgets.HTML(), widgets.HTML(f"<small>{KEYS}</small>")
        switches = styled(widgets.Box([self.overlay, *self.details.values(), self.large]), "switches")
        self.left = styled(widgets.Box([self.picture, switches, self.legend, self.description, keys]), "left")
        return self.left

    def _listing(self) -> widgets.Widget:
        """The table of questions, searched and sorted, and what can be saved."""
        self.questions = styled(widgets.HTML(), "scroll")
        self.search = field(widgets.Text(description="Search", placeholder="in question, label, answer"))
        self.sort = field(widgets.Dropdown(options=(AS_FILTERED, *SORTS), description="Sort"))
        for box in (self.search, self.sort):
            box.observe(lambda _: self._show_questions(), "value")
        self.exports = {
            QUESTIONS_FILE: widgets.Button(description="Save what is filtered", tooltip="all questions that pass"),
            MARKS_FILE: widgets.Button(description="Save the marks", tooltip="all marks of this run"),
        }
        for name, button in self.exports.items():
            button.on_click(lambda _, name=name: self._download(name))
        over, under = (styled(widgets.Box(row), "row") for row in ([self.search, self.sort], [*self.exports.values()]))
        return styled(widgets.VBox([over, self.questions, under]), "pane")

    def _filter(self, name: str) -> widgets.Dropdown:
        box = field(widgets.Dropdown(options=[], description=FILTERS[name]))
        box.observe(lambda change: self._do(partial(self.state.set_filters, **{name: change.new})), "value")
        return box

    def _button(self, text: str, change: Callable[[], None], tooltip: str) -> widgets.Button:
        button = widgets.Button(description=text, tooltip=tooltip)
        button.on_click(lambda _: self._do(change))
        return button

    def _switch_class(self, name: str, on: bool) -> None:
        (self.add_class if on else self.remove_class)(name)

    def _do(self, change: Callable[[], None]) -> None:
        """Change the state and show it; `refresh` itself sets fields, which must not come back here."""
        if not self.is_quiet:
            change()
            self.refresh()

    def _try(self, change: Callable[..., None], *given: object) -> None:
        """Do what a reader has asked for in words; what cannot be shown is said beside the place."""
        try:
            change(*given)
        except ValueError as error:
            self.complain(error)

    def _find(self, wanted: str) -> None:
        """Go to the view of that number, or whose picture's name holds that text."""
        self.state.find(wanted)
        self.refresh()
        self.goto.value = ""

    def go_to(self, picture: str, question: str = "") -> None:
        """Show a picture, by its name or a part of it, with a question ready to be asked. Raises ValueError."""
        self.state.open(picture, question)
        self.refresh()
        if question:
            self.labels.put(question)
            self.ask.fill(question)
            self._show_pane(self.ask)

    def complain(self, error: Exception) -> None:
        """Say beside the place what could not be shown."""
        self.place.value = place_html(self.state) + message(str(error), "error")

    @cached_property
    def _own_pictures(self) -> tempfile.TemporaryDirectory:
        return tempfile.TemporaryDirectory(prefix="explorer-")

    def show_own(self, name: str, content: bytes) -> None:
        """Show a picture file of the reader's own, ready to be asked about. Raises ValueError."""
        self.state.own = own_view(name, content, Path(self._own_pictures.name))
        self.refresh()
        self._show_pane(self.ask)

    def _hear(self, content: dict, buffers: Sequence[bytes] = ()) -> None:
        try:
            if content.get("action") == "own":
                self._try(self.show_own, content["name"], bytes(buffers[0]))
            else:
                self.on_action(content)
        finally:
            self.keyboard.done += 1

    def on_action(self, content: dict) -> None:
        """A key or a click that the browser reports (see Keys)."""
        action = content.get("action")
        if action in self.buttons:
            self._do(getattr(self.state, action))
        elif action in ("overlay", "large"):
            switch = self.overlay if action == "overlay" else self.large
            switch.value = not switch.value
        elif action == "open" and content["picture"]:
            self._try(self.go_to, content["picture"], content["question"])
        elif action == "open":  # the browser is back where nothing was chosen yet
            self._do(partial(self.state.jump, 0))
        elif action in ("ask", "choose", "submit"):
            self._show_pane(self.ask)
        if action == "submit":
            self.ask.ask(content["question"])
        elif action == "choose":
            self.ask.put(content["question"])

    def _look_at(self, question: str) -> None:
        """Show in the table, in the tab of labels and in the address which question is asked."""
        self.state.choose(question)
        self.labels.put(question)
        self._show_questions()

    def _show_pane(self, pane: widgets.Widget) -> None:
        self.tabs.selected_index = self.tabs.children.index(pane)

    def _download(self, name: str) -> None:
        """Hand the browser a file of JSON lines, by one of the names in `exports`."""
        rows = (
            map(asdict, self.labels.marks.values()) if name == MARKS_FILE else map(row_json, self.state.passing_rows())
        )
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self.keyboard.send({"file": name}, [lines.encode()])

    def refresh(self) -> None:
        """Show the state."""
        state = self.state
        if self._filtered != (state.filters, state.order):  # a step leaves the counts as they are
            self._show_filters()
        for button in self.buttons.values():
            button.disabled = len(state) < 2
        self.place.value = place_html(state)
        self.ask.show(state.view)
        self.labels.show([row.record for row in state.rows()])
        self.show_picture()
        self._show_questions()
        self.detections.value = detections_html(state.view)
        self.description.value = message(state.description())
        self.keyboard.alt = state.description()

    def _show_filters(self) -> None:
        self._filtered = self.state.filters, self.state.order
        with self.quietly():
            for name, box in self.filters.items():
                counts = self.state.counts(name).items()
                options = [("all", ""), *((f"{value} ({count:,})", value) for value, count in counts)]
                choose(box, options, self.state.filters.get(name, ""))
            self.order.value = self.state.order

    def show_picture(self) -> None:
        """Draw the view on show; also called from the thread in which an occlusion map was made."""
        with self._lock:
            found, details = self.ask.map, [name for name, box in self.details.items() if box.value]
            for box in self.details.values():
                box.disabled = not self.overlay.value or found is not None
            self.left.layout.visibility = "visible" if self.state.view else "hidden"
            if self.state.view:
                self.picture.value = picture_png(self.state, self.overlay.value, details, found)
            self.legend.value = legend_html(found is not None) if found or self.overlay.value else ""

    def _show_questions(self) -> None:
        self.questions.value = questions_html(self.state, self.labels.marks, self.search.value, self.sort.value)
        self.exports[MARKS_FILE].disabled = not self.labels.marks
        self.keyboard.query = query(self.state.link())
