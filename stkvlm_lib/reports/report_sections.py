"""The sections of a report: a heading with a sentence, figures and tables, each only where a run has what it shows."""

import base64
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PIL import Image

from stkvlm_lib.figures.galleries import typical_errors, worst_errors
from stkvlm_lib.figures.plots import most_confused
from stkvlm_lib.number_text import NOTHING, count, interval, number, percent, points
from stkvlm_lib.reports.artefacts import Artefacts
from stkvlm_lib.scores.score_tables import (
    Rows,
    choice_rows,
    comparison_rows,
    comparison_text,
    consistency_rows,
    family_rows,
    own_words_rows,
    unseen_rows,
    wording_rows,
)

if TYPE_CHECKING:
    from stkvlm_lib.scores.scoring import Prediction

FIGURES = {
    "What is taken for what": ("score_confusion",),
    "Errors": ("score_worst", "score_typical", "score_near", "score_confused"),
    "Training": ("train_",),
    "Data": ("data_", "qa_"),
}
"""Section -> how the names of its figures begin, in the order in which they are shown; others come under `More`."""
FAULTS = "Labels that cannot be scored"
FIRST = ("Scores by question family", FAULTS, *list(FIGURES)[:2])
LAST = ("Training", "Data", "More")
"""Sections at the beginning and at the end; all others stand between them, in the order in which they are made."""
CAPTIONS = {
    "score_families": "Questions answered exactly right, by family, with 95% intervals and the three baselines.",
    "score_confusion": "What was answered (columns) where each answer was true (rows); framed cells are right.",
    "score_extended": "Extended questions answered exactly right, by family, with 95% intervals and two baselines.",
    "score_comparison": "Difference to the other run on the same questions, by family, with 95% intervals.",
    "score_won": "Questions that the other run answered wrong and this one right; the ego kart is yellow.",
    "score_lost": "Questions that the other run answered right and this one wrong; the ego kart is yellow.",
    "score_worst": "Wrong answers of which the model was most sure; the ego kart is yellow.",
    "score_typical": "The most frequent confusions, one picture each, with how often they happened.",
    "score_near": "Wrong answers whose truth was the second likeliest answer, and by how much it was behind.",
    "score_confused": "The most frequent confusions; beside each picture one of which the given answer is true.",
    "score_budget": "Errors by cause, as shares of all questions; colours are the kinds of question.",
    "score_causes": "Of the main causes: the most confident error, a typical one, and a near miss.",
    "score_slices": "Accuracy by what the picture is like, with 95% intervals, and what its families alone would give.",
    "score_calibration": "Accuracy against confidence, and errors against the share of questions answered.",
    "score_ceiling": "Accuracy of clear and of doubtful questions, and of an oracle whose boxes are a pixel off.",
    "train_curve": "Training loss, and the share of valid questions answered exactly right, over the training steps.",
    "data_line_ups": "Which karts drive which track in each split, and how much of it held-out races share with train.",
    "data_contact": "Pictures with their track and number of visible karts.",
    "data_overlays": "Karts by their place relative to the ego kart, under the rule that makes the answers.",
    "data_statistics": "Brightness, visible karts and kart sizes of the splits.",
    "data_visibility": "How much of each kart one sees in rendered frames: share not covered, pixels, distance.",
    "data_colours": "Which colour each kart has, with the median of its views; those without one clear are named.",
    "qa_composition": "How often each answer is the right one, by family; dark: the most frequent answer.",
    "qa_samples_extended": "Questions of the families beside the ten forms, on their pictures.",
    "qa_samples": "Questions and answers drawn from every family, on their pictures.",
    "qa_alike": "The pictures of two splits that look most alike; no race, frame or identical picture is in two.",
    "qa_declined": "Extended questions of each family that stay, are left out to balance, or are declined, and why.",
    "qa_balance": "The most frequent answer's share of each extended family before and after balancing.",
    "qa_guesses": "What each family can be guessed at without the picture, by guesses that learn from train.",
    "qa_contrast": "One question, two pictures, two answers: mirrored, or the same moment from behind another kart.",
}


@dataclass
class Table:
    """Rows of text with the same columns. title: of a table that opens on a click."""

    rows: Rows
    title: str = ""
    columns: list[str] = field(init=False)

    def __post_init__(self):
        self.columns = list(self.rows[0]) if self.rows else []


@dataclass
class Section:
    """What stands under a heading: a sentence, figures, a table, and tables behind a click."""

    title: str
    text: str = ""
    figures: list[dict] = field(default_factory=list)
    table: Table | None = None
    details: list[Table] = field(default_factory=list)
    note: str = ""

    @property
    def anchor(self) -> str:
        """What a link to it names."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")


PICTURES = ("picture", "example")
"""Columns of tables that name a picture; the page links them into the explorer."""
EXPLORER = "A name of a picture in the tables opens it in the explorer, while the explorer serves this run as a page."
Sections = Callable[[Artefacts, dict[str, bytes]], Iterator[Section]]
"""What makes sections of a run and takes the figures that belong to them."""


def sections(found: Artefacts, *more: Sections) -> list[Section]:
    """All sections of a run, in their order; more: what follows the main scores and the errors."""
    left = dict(found.figures)
    listed = [section for part in (*more, score_sections) for section in part(found, left)]
    for title, starts in FIGURES.items():
        names = [name for start in starts for name in left if name.startswith(start)]
        figures = [figure(name, left.pop(name), found) for name in names]
        details = error_tables(found.predictions) if title == "Errors" else []
        if figures or details:
            listed.append(Section(title, EXPLORER if details else "", figures=figures, details=details))
    if left:
        listed.append(Section("More", figures=[figure(name, data, found) for name, data in left.items()]))
    return sorted(listed, key=_place)


def _place(section: Section) -> int:
    """Sorts sections as FIRST and LAST say."""
    if section.title in FIRST:
        return FIRST.index(section.title) - len(FIRST)
    return LAST.index(section.title) + 1 if section.title in LAST else 0


def score_sections(found: Artefacts, figures: dict[str, bytes]) -> Iterator[Section]:
    """Tables of scores, with the figures that belong to them taken out of `figures`."""
    metrics = found.metrics

    def take(*names: str) -> list[dict]:
        return [figure(name, data, found) for name in names if (data := figures.pop(name, None))]

    families, extended, compared = take("score_families"), take("score_extended"), take(*COMPARED)
    if rows := family_rows(metrics):
        yield Section(FIRST[0], figures=families, table=Table(rows), note=_family_note(rows[0]))
    elif families:
        yield Section(FIRST[0], figures=families)
    if rows := fault_rows(metrics):
        yield Section(FAULTS, FAULTS_TEXT, table=Table(rows))
    if rows := family_rows(metrics.get("extended")):
        yield Section("Extended questions", _extended_text(metrics["extended"]), extended, Table(rows))
    if rows := wording_rows(metrics):
        text = _wording_text(metrics["held_out_wordings"])
        yield Section("Wordings that training never saw", text, table=Table(rows))
    if rows := own_words_rows(metrics):
        yield Section("Own words", _own_words_text(metrics["own_words"]), table=Table(rows))
    if rows := consistency_rows(metrics):
        kinds = [(kind, consistency_rows(metrics, kind)) for kind in metrics["consistency"]]
        details = [Table(more, f"By family: {kind.replace('_', ' ')}") for kind, more in kinds if more]
        yield Section("Consistency", CONSISTENCY, table=Table(rows), details=details)
    if rows := choice_rows(metrics):
        yield Section("Multiple choice", _choice_text(metrics["mc"]), table=Table(rows))
    for split in metrics.get("other_splits") or {}:
        if rows := unseen_rows(metrics, split):
            yield Section(*_unseen_text(metrics, split), table=Table(rows))
    if rows := comparison_rows(metrics.get("comparison")):
        other = metrics["comparison"].get("run", "another run")
        text = comparison_text(metrics["comparison"], "this run", str(other))
        yield Section(f"Against {other}", text, compared, Table(rows), changed_tables(found.changed))


FAULTS_TEXT = (
    "Faults in the labels of the questions scored: no answer of a model can match them, or they count more than once. "
    "The scores above count these questions as they stand."
)


def fault_rows(metrics: dict) -> Rows:
    """`label_faults` of metrics.json as rows of text."""
    faults = metrics.get("label_faults")
    rows = faults if isinstance(faults, list) else []
    return [{name: str(value) for name, value in row.items()} for row in rows if isinstance(row, dict)]


COMPARED = ("score_comparison", "score_won", "score_lost")
"""The figures of the comparison with another run."""
NOTES = {
    "exact": "the whole answer is right",
    "prefix": "the course's looser match",
    "closed": "the likeliest of the family's answers instead of a written one, never part of the score",
    "majority": "always the family's most frequent answer",
    "blind": "the same adapter without seeing the picture",
    "base": "the base model without the adapter",
}
CONSISTENCY = (
    "One question about two pictures that answer it differently: a picture and its mirror image, and the same moment "
    "from behind another kart. A model that looks has both right; one that guesses from the words gives both the same "
    "answer. Were its errors on the two pictures independent, both would be right as often as the last column says."
)


def _family_note(row: dict[str, str]) -> str:
    return " ".join(f"{name}: {text}." for name, text in NOTES.items() if name in row)


def _extended_text(figures: dict) -> str:
    return (
        "Questions of families beside the course's ten, under the strict rules and balanced; no part of the scores "
        f"above. {percent(figures.get('exact'))} of {count(figures.get('n'))} are answered exactly right (95% interval "
        f"{interval(figures.get('exact_ci95'))}), {percent(figures.get('macro_exact'))} in the mean over the families."
    )


def _wording_text(figures: dict) -> str:
    return (
        f"Each of {count(figures.get('n'))} questions was asked twice: in a wording that training draws from, and in "
        f"the one that it never has. The difference is {points(figures.get('difference'))} points (95% interval "
        f"{interval(figures.get('difference_ci95'), points)}); {percent(figures.get('same_answer'))} get the same "
        "answer in both wordings."
    )


def _own_words_text(figures: dict) -> str:
    text = (
        f"Each of {count(figures.get('n'))} questions was asked in words that no training has seen and in its family's "
        f"template: {percent(figures.get('exact'))} (95% interval {interval(figures.get('exact_ci95'))}) and "
        f"{percent(figures.get('trained_exact'))} are answered exactly right. In own words, "
        f"{percent(figures.get('unknown'))} ({interval(figures.get('unknown_ci95'))}) are answered `unknown`. The base "
        f"without the adapter has {percent(figures.get('base_exact'))} of them right."
    )
    nothing = figures.get("unanswerable")
    if not isinstance(nothing, dict):
        return text
    return (
        f"{text} Of {count(nothing.get('n'))} questions that nothing in a picture answers, "
        f"{percent(nothing.get('unknown'))} ({interval(nothing.get('unknown_ci95'))}) are, as they should be."
    )


def _choice_text(figures: dict) -> str:
    return (
        "Which of five sentences about a picture is true, each weighed by the likelihood of the answer that it states: "
        f"{percent(figures.get('exact'))} of {count(figures.get('n'))} items are right (95% interval "
        f"{interval(figures.get('exact_ci95'))}). Chance is {percent(figures.get('chance'))}, the same adapter without "
        f"seeing the picture {percent(figures.get('blind'))}."
    )


def _unseen_text(metrics: dict, split: str) -> tuple[str, str]:
    """Title and text."""
    figures = metrics["other_splits"][split]
    races = f" of {count(figures.get('n_clusters'))} races" if figures.get("clusters") == "race" else ""
    text = (
        f"Pictures{races} in which no kart drives a track that it drives in training, so that the track does not give "
        f"it away: {percent(figures.get('exact'))} of {count(figures.get('n'))} questions of the ten forms are "
        f"answered exactly right (95% interval {interval(figures.get('exact_ci95'))})."
    )
    return ("Line-ups never seen" if split == "test_unseen" else f"Split {split}"), text


def figure(name: str, data: bytes, found: Artefacts) -> dict:
    """A figure re-encoded as WebP, which keeps a page of pictures a fifth as large."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        image.convert("RGB").save(buffer, "WEBP", quality=88)
    text = base64.b64encode(buffer.getvalue()).decode()
    size = {"width": width, "height": height, "broad": width > 900}
    listed = {"score_worst": found.predictions, "score_typical": found.predictions}
    listed |= {"score_won": found.changed, "score_lost": found.changed}
    alt = alternative(name, found) + (" The tables below list them as text." if listed.get(name) else "")
    return {**size, "data": text, "alt": alt, "caption": _caption(name)}


def _caption(name: str) -> str:
    words = name.replace("_", " ").capitalize()
    for start, caption in CAPTIONS.items():
        if name.startswith(start):
            rest = name.removeprefix(start).strip("_").replace("_", " ")
            return f"{rest.capitalize()}: {caption[0].lower()}{caption[1:]}" if rest else caption
    return f"{words}."


def alternative(name: str, found: Artefacts) -> str:
    """What a figure shows, with its numbers where they are few, for readers who cannot see it."""
    parts = {"score_families": found.metrics, "score_extended": found.metrics.get("extended")}
    if name in parts and (rows := family_rows(parts[name])):
        listed = ", ".join(f"{row['family']} {row['exact']}" for row in rows)
        return f"Dot plot of the share answered exactly right: {listed}."
    if name == "score_comparison" and (rows := comparison_rows(found.metrics.get("comparison"))):
        listed = ", ".join(f"{row['family']} {row['difference, points']}" for row in rows)
        return f"Dot plot of the difference to the other run in percentage points: {listed}."
    if name == "train_curve" and found.log:
        return f"{_caption(name)} {_curve(found.log)}"
    family = name.partition("score_confusion_")[2]
    if family and (confused := most_confused(found.predictions, family, 3)):
        listed = ", ".join(f"{row['truth']} taken for {row['prediction'] or 'nothing'}: {row['n']}" for row in confused)
        return f"Table of counts for the family {family}. Most frequent mistakes: {listed}."
    return _caption(name)


def _curve(log: Sequence[dict]) -> str:
    """The first and last values of a training's log in words."""
    kinds = {"loss": ("Loss", number), "valid_exact": ("Exact match on valid", percent)}
    parts = []
    for name, (words, show) in kinds.items():
        if values := [row[name] for row in log if name in row]:
            parts.append(f"{words} from {show(values[0])} to {show(values[-1])} over {len(values)} logged steps.")
    return " ".join(parts)


def changed_tables(changed: Sequence[dict]) -> list[Table]:
    """The questions won and lost of the galleries, and more, as text."""
    names = {
        "question": "question",
        "answer": "truth",
        "prediction": "this run",
        "other_prediction": "other run",
        "image_file": "picture",
    }
    tables = []
    for change in ("won", "lost"):
        rows = [{show: str(row.get(n, NOTHING)) for n, show in names.items()} for row in changed if _is(row, change)]
        if rows:
            tables.append(Table(rows, f"Questions {change}, as text"))
    return tables


def _is(row: dict, change: str) -> bool:
    return isinstance(row, dict) and row.get("change") == change


def error_tables(predictions: Sequence["Prediction"]) -> list[Table]:
    """The errors of the galleries as text."""
    if all(p.correct for p in predictions):
        return []
    worst = [
        {
            "question": p.question,
            "truth": p.answer,
            "answered": p.prediction,
            "confidence": percent(p.confidence),
            "picture": p.image_file,
        }
        for p in worst_errors(predictions, 12)
    ]
    typical = [
        {
            "how often": f"{n} times",
            "family": p.family,
            "truth": p.answer,
            "answered": p.prediction,
            "example": p.image_file,
        }
        for p, n in typical_errors(predictions, 12)
    ]
    return [
        Table(worst, "Most confident wrong answers as text"),
        Table(typical, "Most frequent confusions as text"),
    ]
