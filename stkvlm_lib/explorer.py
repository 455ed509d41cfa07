"""Step through views with their questions, truths and predictions: a plain state, and a thin ipywidgets view of it."""

import html
import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import ipywidgets as widgets
from matplotlib.figure import Figure

from stkvlm_lib.drawing import BLACK, GREEN, GREY, ROLE_COLOURS, VERMILLION, draw_overlay
from stkvlm_lib.frame_sets import FrameSet
from stkvlm_lib.frames import View
from stkvlm_lib.plots import Chart, in_order, message
from stkvlm_lib.qa_sets import Record, by_picture
from stkvlm_lib.scene import depth, read_scene, side

if TYPE_CHECKING:
    from stkvlm_lib.scoring import Prediction

RIGHT, WRONG = "right", "wrong"
NOTHING_LEFT = "No view has a question that passes these filters. Set one of them back to “all”."


@dataclass(frozen=True)
class Filters:
    """What a question must match to count; empty means all. outcome: `right` or `wrong`, of answered questions."""

    split: str = ""
    family: str = ""
    outcome: str = ""
    track: str = ""


@dataclass(frozen=True)
class Row:
    """One question of the view on show. matches: whether it passes the filters."""

    family: str
    question: str
    truth: str
    prediction: str | None
    correct: bool | None
    confidence: float | None
    matches: bool


class ExplorerState:
    """Which views pass the filters and which of them is on show. Holds no widget.

    Views come in the order of the records; those with at least one matching question are stepped through.
    """

    def __init__(
        self,
        frames: FrameSet,
        records: Sequence[Record],
        predictions: Sequence["Prediction"] | None = None,
        seed: int = 0,
    ):
        self._frames = frames
        self._groups = {name: rows for name, rows in by_picture(records).items() if name in frames.by_image_file}
        if records and not self._groups:
            raise ValueError(f"{frames.root}: holds none of the records' pictures; give the folder they were made of")
        self._predictions = {(p.image_file, p.question): p for p in predictions or ()}
        self._rng = random.Random(seed)
        self.filters = Filters()
        self.index = 0
        self._select()

    @property
    def has_predictions(self) -> bool:
        return bool(self._predictions)

    def options(self, name: str) -> list[str]:
        """The values a filter can take, as they occur in the records."""
        if name == "outcome":
            return [RIGHT, WRONG] if self.has_predictions else []
        found = {getattr(record, name) for rows in self._groups.values() for record in rows}
        return in_order(found) if name == "family" else sorted(found)

    def set_filters(self, **values: str) -> None:
        """Change some filters; the view on show stays if it still matches. Raises ValueError for an unknown one."""
        known = [field.name for field in fields(Filters)]
        for name, value in values.items():
            if name not in known:
                raise ValueError(f"no filter {name!r}; there are {', '.join(known)}")
            if value and value not in self.options(name):
                raise ValueError(f"no {name} {value!r}; there are {', '.join(self.options(name)) or 'none'}")
        before = self.view
        self.filters = replace(self.filters, **values)
        self._select()
        self.index = self._names.index(before.image_file) if before and before.image_file in self._names else 0

    def _select(self) -> None:
        counts = {name: sum(map(self._matches, rows)) for name, rows in self._groups.items()}
        self._names = [name for name, count in counts.items() if count]
        self.n_questions = sum(counts.values())

    def _matches(self, record: Record) -> bool:
        wanted = self.filters
        for name in ("split", "family", "track"):
            if getattr(wanted, name) not in ("", getattr(record, name)):
                return False
        if not wanted.outcome:
            return True
        prediction = self._predictions.get((record.image_file, record.question))
        return prediction is not None and prediction.correct == (wanted.outcome == RIGHT)

    def __len__(self) -> int:
        """How many views pass the filters."""
        return len(self._names)

    def next(self) -> None:
        self.jump(self.index + 1)

    def previous(self) -> None:
        self.jump(self.index - 1)

    def random(self) -> None:
        """Another view than the one on show, the same sequence for the same seed."""
        if len(self) > 1:
            self.jump(self.index + self._rng.randrange(1, len(self)))

    def jump(self, index: int) -> None:
        """Show the index-th view (from 0); counting goes round at both ends."""
        self.index = index % len(self) if len(self) else 0

    def show(self, image_file: str) -> None:
        """Show a view by its picture's name. Raises ValueError when it does not pass the filters."""
        if image_file not in self._names:
            raise ValueError(f"{image_file} is not among the {len(self)} views that pass the filters")
        self.index = self._names.index(image_file)

    @property
    def view(self) -> View | None:
        """The view on show, None when the filters leave nothing."""
        return self._frames.by_image_file[self._names[self.index]] if self._names else None

    def rows(self) -> list[Row]:
        """All questions of the view on show."""
        return [self._row(record) for record in self._groups[self.view.image_file]] if self.view else []

    def _row(self, record: Record) -> Row:
        p = self._predictions.get((record.image_file, record.question))
        given = (p.prediction, p.correct, p.confidence) if p else (None, None, None)
        return Row(record.family, record.question, record.answer, *given, self._matches(record))

    def position(self) -> str:
        """Where we are, e.g. `view 12 of 480 (3,826 questions), race .., track ..`."""
        if not self.view:
            return NOTHING_LEFT
        frame = self.view.frame
        n = f"{self.n_questions:,} matching question{'s' if self.n_questions != 1 else ''}"
        return f"view {self.index + 1:,} of {len(self):,} ({n}), race {frame.race}, track {frame.track}"

    def description(self) -> str:
        """What the picture shows under the labelling rule, for readers who cannot see it."""
        if not self.view:
            return ""
        scene = read_scene(self.view)
        if not scene.ego:
            return f"{self.view.image_file}: track {scene.track}, no kart large enough to count."
        others = [f"{k.name} {depth(k, scene.ego)} and {side(k, scene.ego)}" for k in scene.others]
        rest = f"; {', '.join(others)}" if others else "; no other kart counts"
        return f"{self.view.image_file}: track {scene.track}, ego kart {scene.ego.name}{rest}."


# what is shown


def picture_png(state: ExplorerState, overlay: bool = True) -> bytes:
    """The picture on show, 640 px wide or nearly, as PNG; empty when there is none."""
    if not state.view:
        return b""
    buffer = io.BytesIO()
    draw_overlay(state.view, 640, karts=overlay).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def table_html(state: ExplorerState) -> str:
    """The questions of the view as an HTML table; those that do not pass the filters are pale."""
    if not state.view:
        return f"<p role='status'>{html.escape(NOTHING_LEFT)}</p>"
    answered = state.has_predictions
    heads = ("question", "truth", *(("prediction", "result", "confidence") if answered else ()))
    body = "".join(_table_row(row, answered) for row in state.rows())
    head = "".join(f"<th scope='col' style='{_CELL};text-align:left'>{name}</th>" for name in heads)
    look = "border-collapse:collapse;font-size:13px"
    return f"<table style='{look}'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


_CELL = "padding:2px 8px;border-bottom:1px solid #8884;vertical-align:top;line-height:1.4"
_OUTCOMES = {True: (GREEN, "✓ right"), False: (VERMILLION, "✗ wrong"), None: ("inherit", "not asked")}


def _table_row(row: Row, answered: bool) -> str:
    cells = [html.escape(row.question), f"<b>{html.escape(row.truth)}</b>"]
    if answered:
        colour, word = _OUTCOMES[row.correct]
        cells += [
            html.escape(row.prediction or ""),
            f"<span style='color:{colour};white-space:nowrap;font-weight:bold'>{word}</span>",
            "" if row.confidence is None else f"{row.confidence:.0%}",
        ]
    look = "" if row.matches else " style='opacity:.55'"
    return f"<tr{look}>" + "".join(f"<td style='{_CELL}'>{cell}</td>" for cell in cells) + "</tr>"


def static_picture(state: ExplorerState) -> Figure:
    """The view on show and its questions as a figure, for readers of the executed notebook."""
    if not state.view:
        return message(NOTHING_LEFT)
    rows = state.rows()
    picture = draw_overlay(state.view, 1280, text=0.03)
    width, line, wide = 9.6, 0.2, 4.4  # inches: figure, line of text, picture
    high = wide * picture.height / picture.width
    height = max(high + 0.3, line * (len(rows) + 2))
    chart = Chart(figsize=(width, height))
    axes = chart.add_axes((0, 1 - (0.3 + high) / height, wide / width, high / height))
    axes.imshow(picture, interpolation="antialiased")
    axes.set_axis_off()
    chart.text(0, 1, state.position(), va="top", fontsize=9)
    for number, row in enumerate(rows):
        _static_row(chart, wide / width + 0.015, 1 - (0.42 + number * line) / height, row)
    return chart


def _static_row(chart: Figure, x: float, y: float, row: Row) -> None:
    ink = BLACK if row.matches else GREY
    mark, colour = {True: ("✓", GREEN), False: ("✗", VERMILLION), None: ("", ink)}[row.correct]
    answer = row.truth if row.prediction is None else f"{row.prediction or '(nothing)'} ({row.confidence:.0%})"
    if row.correct is False:
        answer += f", truth: {row.truth}"
    chart.text(x, y, row.question, va="center", fontsize=7.5, color=ink)
    chart.text(0.775, y, mark, va="center", fontsize=8, color=colour, fontweight="bold")
    chart.text(0.795, y, answer, va="center", fontsize=7.5, color=ink)


# the widget


def explore(
    frames: FrameSet, records: Sequence[Record], predictions: Sequence["Prediction"] | None = None
) -> "Explorer":
    """The explorer, to be displayed by a notebook. With predictions it starts at the split they are about."""
    state = ExplorerState(frames, records, predictions)
    if predictions:
        home = frames.by_image_file.get(predictions[0].image_file)
        if home and home.frame.split in state.options("split"):
            state.set_filters(split=home.frame.split)
    return Explorer(state)


class Explorer(widgets.VBox):
    """Buttons, filters, picture and table; every event changes the state, then `refresh` shows it in place."""

    def __init__(self, state: ExplorerState):
        self.state = state
        self.filters = {
            name: self._filter(name) for name in ("split", "family", "outcome", "track") if state.options(name)
        }
        self.buttons = {
            "previous": widgets.Button(description="Previous", icon="arrow-left", tooltip="the view before"),
            "next": widgets.Button(description="Next", icon="arrow-right", tooltip="the view after"),
            "random": widgets.Button(description="Random", icon="random", tooltip="any other view"),
        }
        for name, button in self.buttons.items():
            button.layout.width = "auto"
            button.on_click(lambda _, name=name: self._do(getattr(state, name)))
        self.number = widgets.BoundedIntText(
            1, min=1, max=max(1, len(state)), description="View", layout={"width": "150px"}
        )
        self.number.observe(lambda change: self._do(lambda: state.jump(change.new - 1)), "value")
        self.overlay = widgets.Checkbox(True, description="Mark karts", indent=False, layout={"width": "auto"})
        self.overlay.observe(lambda _: self.refresh(), "value")
        self.position, self.table, self.description = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.picture = widgets.Image(format="png", layout={"max_width": "100%"})
        self._busy = False
        wrap = {"flex_flow": "row wrap", "align_items": "center"}
        beside = {"flex_flow": "row wrap", "align_items": "flex-start", "grid_gap": "12px"}
        left = widgets.VBox([self.picture, widgets.HTML(_legend()), self.description], layout={"max_width": "660px"})
        rows = [
            widgets.HBox(list(self.filters.values()), layout=wrap),
            widgets.HBox([*self.buttons.values(), self.number, self.overlay], layout=wrap),
            self.position,
            widgets.HBox([left, self.table], layout=beside),
        ]
        super().__init__(rows)
        self.refresh()

    def _filter(self, name: str) -> widgets.Dropdown:
        choices = [("all", ""), *((value, value) for value in self.state.options(name))]
        box = widgets.Dropdown(options=choices, value=getattr(self.state.filters, name), layout={"width": "220px"})
        box.description = {"outcome": "Answer"}.get(name, name.capitalize())
        box.style.description_width = "60px"
        box.observe(lambda change: self._do(lambda: self.state.set_filters(**{name: change.new})), "value")
        return box

    def _do(self, change: Callable[[], None]) -> None:
        if not self._busy:  # `refresh` sets the number box, which would come back here
            change()
            self.refresh()

    def refresh(self) -> None:
        """Show the state."""
        state = self.state
        self._busy = True
        try:
            self.number.max = max(1, len(state))
            self.number.value = state.index + 1
        finally:
            self._busy = False
        for button in self.buttons.values():
            button.disabled = len(state) < 2
        self.picture.layout.visibility = "visible" if state.view else "hidden"
        if state.view:
            self.picture.value = picture_png(state, self.overlay.value)
        self.position.value = f"<b>{html.escape(state.position())}</b>" if state.view else ""
        self.table.value = table_html(state)
        self.description.value = (
            f"<span style='font-size:12px;line-height:1.4'>{html.escape(state.description())}</span>"
        )


def _legend() -> str:
    swatch = (
        "display:inline-block;width:12px;height:12px;border:1px solid #000;vertical-align:middle;margin:0 4px 0 10px"
    )
    return "".join(
        f"<span style='white-space:nowrap'><span style='{swatch};background:{colour}'></span>{role}</span>"
        for role, colour in ROLE_COLOURS.items()
    )
