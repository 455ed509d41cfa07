"""The explorer's panel of questions to the model, thin over what does the work."""

import threading
from collections.abc import Callable

import ipywidgets as widgets

from stkvlm_lib.data.frames import View
from stkvlm_lib.explore.asking import Asker, AskError, Reply, suggestions
from stkvlm_lib.explore.fields import Form, choose, field, styled
from stkvlm_lib.explore.markup import message, reply_html
from stkvlm_lib.explore.occlusion import OcclusionMap, describe, occlude
from stkvlm_lib.explore.patches import PATCHES
from stkvlm_lib.explore.understanding import Understood, understand
from stkvlm_lib.grammar.questions import FAMILIES

HISTORY = 20
"""How many questions stay on offer, those asked last."""
_ASK = "Type any question, or choose a kind, and press Enter."


class AskPanel(Form):
    """Asks the model about the view on show, and on demand which parts of the picture the answer hangs on.

    changed: called when there is another occlusion map to draw, or none any more; from a thread when one is finished.
    asked: called with every question that is asked.
    In a browser Enter and the Ask button send the text of the field itself (see explorer.js): the field's own updates
    come in a queue of theirs, and a fast hand is ahead of it.
    """

    def __init__(self, asker: Asker, changed: Callable[[], None], asked: Callable[[str], None]):
        self.asker = asker
        self.reply: Reply | None = None
        self.map: OcclusionMap | None = None
        self.job: threading.Thread | None = None
        self._changed, self._asked, self._view = changed, asked, None
        self._stop = threading.Event()
        offered = [("choose a kind …", ""), *((name, name) for name in FAMILIES)]
        self.kind = field(widgets.Dropdown(options=offered, value="", description="Kind of question"))
        self.about = field(widgets.Dropdown(options=[], description="What it asks of this view"))
        self.question = field(styled(widgets.Text(description="Question", placeholder="Type any question"), "question"))
        button = widgets.Button(description="Ask", button_style="primary", tooltip="ask the model (Enter)")
        self.ask_button = styled(button, "ask")
        self.before = field(widgets.Dropdown(options=[], description="Asked before"))
        besides = [("nothing", ""), *((name, name) for name in asker.others)]
        self.beside = field(widgets.Dropdown(options=besides, value=asker.usual, description="Beside the answer"))
        self.answer, self.told = styled(widgets.HTML(), "live"), styled(widgets.HTML(), "live")
        self.explain = widgets.Button(description="Which parts decide?", tooltip="cover one patch after another")
        self.cancel = widgets.Button(description="Cancel", tooltip="stop covering patches")
        self.hide = widgets.Button(description="Remove the map", tooltip="show the picture as it was")
        self.progress = widgets.IntProgress(max=PATCHES)
        self.kind.observe(lambda _: self._do(self._pick_kind), "value")
        self.about.observe(lambda _: self._do(self._pick_question), "value")
        self.before.observe(lambda _: self._do(self._pick_before), "value")
        self.explain.on_click(lambda _: self.start_map())
        self.cancel.on_click(lambda _: self.stop_map())
        self.hide.on_click(lambda _: self.remove_map())
        self.beside.observe(lambda _: self.reply and self.ask(self.reply.question), "value")
        rows = (
            [self.kind, self.about],
            [self.question, self.ask_button],
            [self.explain, self.cancel, self.hide, self.progress],
            [self.beside, self.before],
        )
        kinds, asking, mapping, more = (styled(widgets.HBox(row), "row") for row in rows)
        super().__init__([kinds, asking, self.answer, mapping, self.told, more])
        styled(self, "pane")
        self._refresh()

    def show(self, view: View | None) -> None:
        """Another view is on show: what was answered and mapped was about the one before."""
        if view is self._view:
            return
        self.stop_map()
        self._view, self.reply, self.map = view, None, None
        self.told.value = ""
        before = understand(self.question.value)
        with self.quietly():
            offered = self._suggest(self.question.value)
            is_template = (before.family, before.question) == (self.kind.value, self.question.value)
            if offered and is_template and not self.about.value:  # a person's own words stay
                self.about.value = self.question.value = offered[0]  # the same kind, of a kart in this view
        self.answer.value = ""
        self._refresh()

    def fill(self, question: str) -> None:
        """Put a question into the fields, without asking it yet."""
        with self.quietly():
            self.question.value = question
        self._show_kind(question, understand(question))

    def _show_kind(self, question: str, understood: Understood) -> None:
        """Which kind of question it is, and what else of that kind can be asked of this view."""
        with self.quietly():
            self.kind.value = understood.family if understood.is_known else ""
            self._suggest(question)

    def put(self, question: str) -> None:
        """Ask a question chosen elsewhere."""
        self.fill(question)
        self.ask()

    def ask(self, question: str | None = None) -> None:
        """Ask a question about the view on show; None: the one in the field, as far as the field has told it."""
        question = self.question.value if question is None else question
        self.reply = None
        self.remove_map()
        if self._view is None:
            return
        if self.asker.has_model and not self.asker.is_loaded:
            self.answer.value = message("Loading the model; the first answer takes some seconds …")
        try:
            self.reply = self.asker.ask(self._view, question, self.beside.value)
            self.answer.value = reply_html(self.reply)
            self._remember(self.reply.question)
        except AskError as error:
            self.answer.value = message(str(error), "error")
        self._show_kind(question, self.reply.understood if self.reply else understand(question))
        self._asked(question)
        self._refresh()

    def start_map(self) -> None:
        """Begin an occlusion map of the last answer, in a thread of its own."""
        self.stop_map()
        self.map, self._stop = None, threading.Event()
        self._changed()
        self.told.value = message("Covering one patch of the picture after another …")
        self.progress.value = 0
        work = (self._view, self.reply.wording, self._stop)
        self.job = threading.Thread(target=self._make_map, args=work, daemon=True)
        self.job.start()
        self._refresh()

    def _make_map(self, view: View, wording: str, stop: threading.Event) -> None:
        def progress(done: int, total: int) -> None:
            if not stop.is_set():
                self.progress.max, self.progress.value = total, done

        try:
            found = occlude(self.asker.model, view, wording, progress=progress, cancelled=stop.is_set)
            told = message(describe(found, view)) if found else ""
        except Exception as error:  # nobody else would see it: this runs in a thread
            found, told = None, message(f"The map could not be made. {type(error).__name__}: {error}", "error")
        if stop.is_set():  # another view is on show by now, or another map in the making
            return
        self.map, self.job = found, None
        self.told.value = told
        self._refresh()
        self._changed()

    def stop_map(self) -> None:
        """Cancel the map in the making, if there is one."""
        self._stop.set()
        if self.job:
            self.job = None
            self.told.value = message("Cancelled.")
            self._refresh()

    def remove_map(self) -> None:
        """Show the picture as it was."""
        self.stop_map()
        self.told.value = ""
        if self.map:
            self.map = None
            self._changed()
        self._refresh()

    def _remember(self, question: str) -> None:
        earlier = [asked for _, asked in self.before.options if asked not in ("", question)]
        asked = [question, *earlier][:HISTORY]
        with self.quietly():
            choose(self.before, [("choose one to ask it of this view …", ""), *((text, text) for text in asked)], "")

    def _pick_before(self) -> None:
        if self.before.value:
            self.put(self.before.value)

    def _suggest(self, chosen: str) -> list[str]:
        """Offer what the kind on show can ask of this view; `chosen` is on show where it is among it."""
        offered = suggestions(self._view, self.kind.value) if self.kind.value and self._view else []
        none = "nothing to ask of this view" if self.kind.value else "–"
        options = [("choose …" if offered else none, ""), *((question, question) for question in offered)]
        choose(self.about, options, chosen if chosen in offered else "")
        return offered

    def _pick_kind(self) -> None:
        offered = self._suggest(self.question.value)
        if offered:
            self.about.value = offered[0]
            self._pick_question()

    def _pick_question(self) -> None:
        if self.about.value:
            self.question.value = self.about.value
            self.ask()

    def _do(self, change: Callable[[], None]) -> None:
        if not self.is_quiet:
            with self.quietly():
                change()

    def _refresh(self) -> None:
        if not self.reply and "stk-error" not in self.answer.value:
            self.answer.value = message(_ASK)
        at_work, mapped = self.job is not None, self.map is not None
        for widget, shown in (
            (self.explain, self.reply is not None and not at_work and not mapped),
            (self.cancel, at_work),
            (self.progress, at_work),
            (self.hide, mapped),
            (self.before, bool(self.before.options)),
            (self.beside, bool(self.asker.others)),
        ):
            widget.layout.display = None if shown else "none"
