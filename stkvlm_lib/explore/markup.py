"""What the explorer says, as HTML: tables of questions and detections, answers with their rivals, and messages.

Everything that comes from data is escaped. The look is in explorer.css; without it the text still reads.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from stkvlm_lib.explore.asking import Label, Reply
from stkvlm_lib.explore.rows import AS_FILTERED, Row, find_rows, sorted_rows
from stkvlm_lib.explore.state import NOTHING_LEFT, Detected, ExplorerState
from stkvlm_lib.explore.understanding import UNKNOWN_MEANS, is_known_answer, is_unknown
from stkvlm_lib.figures.drawing import ROLE_COLOURS, TOO_SMALL
from stkvlm_lib.figures.style import VERMILLION
from stkvlm_lib.grammar.questions import FAMILIES, is_exact
from stkvlm_lib.qa.label_check import Mark, key_of
from stkvlm_lib.qa.qa_sets import Record

RIVALS_SHOWN = 6
_VERDICTS = {True: "<span class='stk-right'>✓ right</span>", False: "<span class='stk-wrong'>✗ wrong</span>", None: ""}


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
    everything, answered = state.rows(), state.has_predictions
    if not everything:
        return message("There are no questions about this picture; ask one of your own.")
    rows = sorted_rows(find_rows(everything, search), sort)
    if not rows:
        return message(f"None of the {len(everything)} questions about this view holds “{search.strip()}”.")
    heads = ["question", "label", *(_answer_heads(state) if answered else [])]
    entered = next((row for row in rows if row.chosen), rows[0])
    body = [
        [*_question_cells(row, marks or {}, row is entered), *(_answer_cells(row, state) if answered else [])]
        for row in rows
    ]
    looks = [f"{'' if row.matches else 'stk-pale'} {'stk-chosen' if row.chosen else ''}".strip() for row in rows]
    n = f"{len(everything)} questions" if len(everything) > 1 else "One question"
    some = f"{len(rows)} of {n}" if len(rows) < len(everything) else n
    return _table(f"{some} about this view; choose one to ask it (↑ ↓ go from one to the next).", heads, body, looks)


def _question_cells(row: Row, marks: Mapping[tuple[str, str, str], Mark], is_tab_stop: bool) -> list[str]:
    record = row.record
    question = escape(record.question, quote=True)
    current = "aria-current='true' " if row.chosen else ""
    given = f"{current}tabindex='{0 if is_tab_stop else -1}' data-question=\"{question}\""
    choose = f"<button type='button' class='stk-choose' {given}>{question}</button>"
    mark = marks.get(key_of(record))
    marked = f"<br><small>marked {mark.verdict}</small>" if mark else ""
    return [choose, f"<b>{_breakable(record.answer)}</b>{marked}"]


def _breakable(text: str) -> str:
    """A name such as sara_the_wizard may be broken where there is little room."""
    return escape(text).replace("_", "_<wbr>")


def _answer_heads(state: ExplorerState) -> list[str]:
    return ["answer", escape(state.beside.name) if state.shows_beside else "", "sure"]


def _answer_cells(row: Row, state: ExplorerState) -> list[str]:
    """Answer, verdict and how sure it is; with another beside it, each verdict stands below its answer."""
    sure = "" if row.prediction is None else f"{row.confidence:.0%}"
    given = _given_text(row.prediction)
    if not state.shows_beside:
        return [given, _VERDICTS[row.correct], sure]
    other = (row.other.prediction, row.other.correct) if row.other else (None, None)
    return [f"{given}<br>{_VERDICTS[row.correct]}", f"{_given_text(other[0])}<br>{_VERDICTS[other[1]]}", sure]


def _given_text(answer: str | None) -> str:
    return "<span class='stk-pale'>not asked</span>" if answer is None else _breakable(answer) or "(nothing)"


def detections_html(found: Sequence[Detected]) -> str:
    """All detections of the view, as its file has them."""
    if not found:
        return message("This view has no detections.")
    heads = ["object", "role", "box, 600×400", "px, 150×100", "visible", "pixels", "distance"]
    n = f"{len(found)} detections" if len(found) > 1 else "One detection"
    return _table(f"{n}, in the order of the file.", heads, map(_detection_cells, found))


def _detection_cells(d: Detected) -> list[str]:
    role = _swatches({d.role: f"background:{ROLE_COLOURS[d.role]}"}) if d.role else ""
    measured = [
        "–" if value is None else form.format(value)
        for value, form in ((d.visible, "{:.0%}"), (d.pixels, "{:,}"), (d.distance, "{:.1f} m"))
    ]
    box = " ".join(map(str, d.box))
    return [f"<b>{escape(d.what)}</b>", role, box, f"{d.size[0]}×{d.size[1]}", *measured]


def reply_html(reply: Reply) -> str:
    """A live answer: the question that was asked and how it was understood, the answer, how sure it is where that means
    something, what the label says, its rivals, and the time it took."""
    asked = f"<p class='stk-asked'><b>{escape(reply.question)}</b><br><small>{escape(_reading(reply))}</small></p>"
    return "".join(
        (
            *(asked, _given(reply), _label_line(reply), _beside(reply), _rivals(reply)),
            f"<p class='stk-time'>{_time(reply)}</p>",
        )
    )


def _beside(reply: Reply) -> str:
    """What the other model answers to the same question."""
    if not reply.beside:
        return ""
    name, answer, reason = reply.beside
    if answer is None:
        return f"<p class='stk-beside'>{escape(name)}: {escape(reason)}</p>"
    verdict = _VERDICTS[is_exact(answer.text, reply.label.answer)] if reply.label.answer else ""
    same = is_exact(answer.text, reply.answer.text)
    text = f"<b>{escape(answer.text) or '(nothing)'}</b> <span>{share(answer.confidence)} sure</span>"
    differs = "the same answer" if same else "another answer"
    return f"<p class='stk-beside'>{escape(name)}: {text} · {' · '.join(filter(None, (verdict, differs)))}</p>"


def _reading(reply: Reply) -> str:
    asked = reply.understood
    if not asked.is_known:
        return "Not understood as a question of any known kind; the model's answer stands alone."
    by = " by the model" if asked.by_model else ""
    return f"Understood{by} as {asked}{f': {asked.question}' if asked.question != reply.question else '.'}"


def _given(reply: Reply) -> str:
    text, sure = reply.answer.text, f" <span>{share(reply.answer.confidence)} sure</span>"
    if is_unknown(text):
        return f"<p class='stk-given'><b>{escape(text)}</b>{sure}</p>{message(f'{text}: {UNKNOWN_MEANS}.')}"
    if reply.understood.is_known or is_known_answer(text):
        return f"<p class='stk-given'><b>{escape(text) or '(nothing)'}</b>{sure}</p>"
    no_kind = "This answer is of no known kind either, so how sure the model was of it says nothing."
    return f"<p class='stk-given'><b>{escape(text) or '(nothing)'}</b></p>{message(no_kind)}"


def _label_line(reply: Reply) -> str:
    label = reply.label
    if not reply.understood.is_known:
        return ""
    if not label.answer:
        return f"<p>No label: {escape(label.reason)}.</p>"
    verdict = _VERDICTS[is_exact(reply.answer.text, label.answer)]
    return f"<p>{verdict} · {label_html(label)}</p>"


def mark_html(record: Record, made: Mark | None) -> str:
    """A label, and the mark on it if there is one."""
    rule = f"<span>{escape(record.rules)} rule</span>"
    said = f"<p class='stk-given'>The label says <b>{escape(record.answer)}</b> {rule}</p>"
    if not made:
        return f"{said}<p class='stk-note'>Is that what the picture shows?</p>"
    note = f", “{escape(made.note)}”" if made.note else ""
    return f"{said}<p role='status'>Marked <b class='stk-{made.verdict}'>{made.verdict}</b>{note}.</p>"


def label_html(label: Label) -> str:
    return f"the label says <b>{escape(label.answer)}</b> ({escape(label.rules)} rule)"


def _rivals(reply: Reply) -> str:
    if not reply.understood.is_known:
        return ""
    body, rest = [], []
    for rank, a in enumerate(reply.rivals, 1):
        labelled = is_exact(a.text, reply.label.answer)
        if rank > RIVALS_SHOWN and not labelled:
            rest.append(a)
            continue
        text = f"{escape(a.text)}{' <small>the label</small>' if labelled else ''}"
        body.append([str(rank), text, bar(a.confidence), share(a.confidence)])
    if rest:
        others = sum(a.confidence for a in rest)
        body.append(["", f"{len(rest)} more", bar(others), share(others)])
    outside = max(0.0, 1 - sum(a.confidence for a in reply.rivals))
    body.append(["", "any other text", bar(outside), share(outside)])
    family = reply.understood.family
    caption = f"The {len(FAMILIES[family].answers)} answers of the kind “{family}”, likeliest first."
    return _table(caption, ["", "answer", "", "probability"], body)


def _time(reply: Reply) -> str:
    if not reply.encoding:
        return f"{_duration(reply.seconds)}; the picture was still encoded"
    encoding = _duration(reply.encoding)
    return f"{_duration(reply.seconds)}, of which {encoding} to encode the picture, which stays encoded"


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def bar(value: float) -> str:
    """A bar of 0..1, for the eye alone: the number stands beside it."""
    return f"<span class='stk-bar' aria-hidden='true'><span style='width:{100 * min(1.0, value):.1f}%'></span></span>"


def share(value: float) -> str:
    return f"{value:.0%}" if value >= 0.01 or value < 0.0005 else f"{value:.1%}"


def legend_html(mapped: bool = False) -> str:
    """What the colours on the picture mean: those of the overlay, or those of an occlusion map."""
    if mapped:
        red = _swatches({"covering it makes the answer less likely": f"background:{VERMILLION}"})
        parts = red, "<span>framed: it changes to what is written there</span>"
    else:
        kept = {role: f"background:{colour}" for role, colour in ROLE_COLOURS.items() if role != TOO_SMALL}
        parts = _swatches(kept), _swatches({f"{TOO_SMALL}, not counted": ""}, "stk-dashed")
    return f"<div class='stk-legend'>{''.join(parts)}</div>"


def _swatches(named: Mapping[str, str], look: str = "") -> str:
    return "".join(
        f"<span><span class='stk-swatch {look}' style='{style}'></span>{name}</span>" for name, style in named.items()
    )


def _table(
    caption: str,
    heads: Sequence[str],
    body: Iterable[Sequence[str]],
    classes: Sequence[str] = (),
) -> str:
    head = "".join(f"<th scope='col'>{name}</th>" for name in heads)
    rows = list(body)
    lines = [
        f"<tr class='{look}'>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for cells, look in zip(rows, classes or [""] * len(rows), strict=True)
    ]
    return (
        f"<table class='stk-table'><caption>{escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )
