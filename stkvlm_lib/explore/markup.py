"""What the explorer says, as HTML: tables of questions and detections, answers with their rivals, and messages.

Everything that comes from data is escaped, in the templates by Jinja. The look is in explorer.css; without it the text
still reads.
"""

from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path

from stkvlm_lib.data.frames import KART_CLASS, Detection, View
from stkvlm_lib.explore.asking import LEAST_SHOWN, Reply
from stkvlm_lib.explore.state import AS_FILTERED, NOTHING_LEFT, SORTS, ExplorerState, find_rows
from stkvlm_lib.explore.understanding import STRANGE, is_unknown, unknown_means
from stkvlm_lib.figures.drawing import ROLE_COLOURS, TOO_SMALL, role
from stkvlm_lib.figures.style import VERMILLION
from stkvlm_lib.grammar.questions import FAMILIES, is_exact
from stkvlm_lib.grammar.scene import box_size, read_scene, scale_box
from stkvlm_lib.number_text import NOTHING, count
from stkvlm_lib.qa.label_check import Mark, key_of
from stkvlm_lib.qa.qa_sets import Record
from stkvlm_lib.templates import render

HERE = Path(__file__).parent
"""Where the templates lie."""
RIVALS_SHOWN = 6
_CLASS_NAMES = ("kart", "track", "background", "pickup", "nitro", "bomb", "object", "projectile", "unknown")
CLASSES = dict(enumerate(_CLASS_NAMES, 1))
"""What the class numbers of detections stand for."""
FIGURES: dict[str, Callable[[Detection], str]] = {
    "box, 600×400": lambda d: " ".join(map(str, d.box)),
    "px, 150×100": lambda d: "×".join(map(str, box_size(scale_box(d.box)))),
    "visible": lambda d: NOTHING if d.visible is None else f"{d.visible:.0%}",
    "pixels": lambda d: count(d.pixels),
    "distance": lambda d: NOTHING if d.distance is None else f"{d.distance:.1f} m",
}
"""What is told of a detection in figures."""


def message(text: str, kind: str = "note") -> str:
    """A line of its own; kind: `note` or `error`."""
    return f"<p class='stk-{kind}' role='status'>{escape(text)}</p>" if text else ""


def place_html(state: ExplorerState) -> str:
    """Where we are, and in which picture."""
    if not state.view:
        return message(NOTHING_LEFT, "error")
    return f"<div role='status'><b>{escape(state.position())}</b><br><small>{escape(state.place())}</small></div>"


def questions_html(
    state: ExplorerState,
    marks: Mapping[tuple[str, str, str], Mark] | None = None,
    search: str = "",
    sort: str = AS_FILTERED,
) -> str:
    """The questions of the view with label, prediction and confidence; those that do not pass the filters are pale.

    marks: by `Mark.key`; marked labels say so. search: a text that question, label or answer holds. sort: one of SORTS.
    The table is one tab stop; arrow keys move in it.
    """
    if not state.view:
        return message(NOTHING_LEFT)
    everything = state.rows()
    if not everything:
        return message("There are no questions about this picture; ask one of your own.")
    rows = find_rows(everything, search)
    if sort in SORTS:
        rows.sort(key=SORTS[sort])
    if not rows:
        return message(f"None of the {len(everything)} questions about this view holds “{search.strip()}”.")
    n = f"{len(everything)} questions" if len(everything) > 1 else "One question"
    return render(
        HERE / "questions.html",
        rows=rows,
        shown=f"{len(rows)} of {n}" if len(rows) < len(everything) else n,
        tab_stop=next((row for row in rows if row.chosen), rows[0]),
        answered=state.has_predictions,
        other=state.beside.name if state.beside else "",
        marks=marks or {},
        key_of=key_of,
    )


def detections_html(view: View | None) -> str:
    """All detections of a view, as its file has them, and what the labelling rule makes of the karts."""
    if not view or not view.detections:
        return message("This view has no detections.")
    scene, rows = read_scene(view), []
    roles = {kart.object_id: role(kart, scene) for kart in scene.karts}
    for d in view.detections:
        is_kart = d.class_id == KART_CLASS
        what = view.frame.karts[d.object_id] if is_kart else CLASSES.get(d.class_id, f"class {d.class_id}")
        told = {name: figure(d) for name, figure in FIGURES.items()}
        rows.append((what, roles.get(d.object_id, TOO_SMALL) if is_kart else "", told))
    return render(HERE / "detections.html", rows=rows, figures=list(FIGURES), colours=ROLE_COLOURS)


def reply_html(reply: Reply) -> str:
    """A live answer: the question that was asked and how it was understood, the answer, how sure it is where that means
    something, what the label says, its rivals, and the time it took."""
    ranked = list(enumerate(reply.rivals, 1))
    shown = [
        (rank, a)
        for rank, a in ranked
        if is_exact(a.text, reply.label.answer) or (rank <= RIVALS_SHOWN and a.confidence >= LEAST_SHOWN)
    ]
    return render(
        HERE / "reply.html",
        reply=reply,
        means_something=reply.understood.is_known,
        is_unknown=is_unknown,
        unknown_means=unknown_means(reply.understood),
        strange=STRANGE,
        answers=len(FAMILIES[reply.understood.family].said) if reply.understood.is_known else 0,
        shown=shown,
        rest=[a for rank, a in ranked if (rank, a) not in shown],
        is_exact=is_exact,
        share=share,
        duration=duration,
    )


def share(value: float) -> str:
    """A share of 1; small ones keep a digit."""
    return f"{value:.0%}" if value >= 0.01 or value < 0.0005 else f"{value:.1%}"


def duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def mark_html(record: Record, made: Mark | None) -> str:
    """A label, and the mark on it if there is one."""
    rule = f"<span>{escape(record.rules)} rule</span>"
    said = f"<p class='stk-given'>The label says <b>{escape(record.answer)}</b> {rule}</p>"
    if not made:
        return f"{said}<p class='stk-note'>Is that what the picture shows?</p>"
    note = f", “{escape(made.note)}”" if made.note else ""
    return f"{said}<p role='status'>Marked <b class='stk-{made.verdict}'>{made.verdict}</b>{note}.</p>"


def legend_html(mapped: bool = False) -> str:
    """What the colours on the picture mean: those of the overlay, or those of an occlusion map."""
    shown = {"mapped": mapped, "red": VERMILLION, "colours": ROLE_COLOURS, "too_small": TOO_SMALL}
    return render(HERE / "legend.html", **shown)
