"""All questions of a sample on their pictures with their marks, for readers of an executed notebook."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.figures.style import GREEN, VERMILLION
from stkvlm_lib.qa.label_check import RIGHT, Mark, key_of, marks_told
from stkvlm_lib.qa.qa_sets import Record
from stkvlm_lib.templates import render


def gallery(sample: Sequence[Record], folder: FrameSet, marks: Sequence[Mark]) -> str:
    """HTML; the pictures are the files' own bytes, enlarged by the browser."""
    made, cards = {found.key: found for found in marks}, []
    for record in sample:
        picture = folder.by_image_file[record.image_file].image_path.read_bytes()
        cards.append((record, _said(record, made.get(key_of(record))), base64.b64encode(picture).decode()))
    return render(Path(__file__).with_name("gallery.html"), summary=marks_told(sample, made), cards=cards)


def _said(record: Record, made: Mark | None) -> str:
    """Question, answer and mark."""
    text = f"{html.escape(record.question)} <b>{html.escape(record.answer)}</b>"
    if not made:
        return text
    colour, word = (GREEN, "✓ right") if made.verdict == RIGHT else (VERMILLION, "✗ wrong")
    note = f" <i>{html.escape(made.note)}</i>" if made.note else ""
    return f"{text} <span style='color:{colour};font-weight:bold;white-space:nowrap'>{word}</span>{note}"
