"""Wrong answers on their pictures: by cause, those the model was surest of, the most frequent ones, and near misses."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Self

from matplotlib.figure import Figure

from stkvlm_lib.analysis.calibration import Calibration
from stkvlm_lib.analysis.causes import CAUSES
from stkvlm_lib.analysis.error_budget import error_causes
from stkvlm_lib.analysis.scored_run import Analysis, ScoredRun
from stkvlm_lib.analysis.sections import Section, Shown, table, tables
from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.evaluation.predictions import Prediction
from stkvlm_lib.figures.style import message
from stkvlm_lib.figures.tiles import caption, question_tiles, show_question, tile_figure, wrapped
from stkvlm_lib.grammar.questions import normalise
from stkvlm_lib.number_text import percent

Noted = tuple[Prediction, str]
"""A wrong answer, and what is said of it."""
TEXT = "A name of a picture in the tables opens it in the explorer, while the explorer serves this run as a page."
CAPTIONS = {
    "score_causes": "Of the main causes: the most confident error, a typical one, and a near miss.",
    "score_worst": "Wrong answers of which the model was most sure; the ego kart is yellow.",
    "score_typical": "The most frequent confusions, one picture each, with how often they happened.",
    "score_near": "Wrong answers whose truth was the second likeliest answer, and by how much it was behind.",
}
AS_TEXT = "The tables below list them as text."
GALLERY, LISTED = 9, 12
"""Pictures in a gallery, rows in a table."""
CAUSES_SHOWN, A_CAUSE = 6, 3
"""Rows and columns of the gallery of causes."""


class Errors(Analysis):
    """The answers themselves; no figures of their own. Galleries repeat no picture as long as there are others."""

    @classmethod
    def measure(cls, run: ScoredRun) -> Self:
        return cls()

    def section(self, run: ScoredRun) -> Section | None:
        wrong = [p for p in run.predictions if not p.correct]
        if not wrong:
            return None
        found = run.figures(Calibration)
        threshold = found.threshold if found else None
        causes = _by_cause(run, threshold)
        shown = [p for _, errors in causes for p, _ in errors]
        figures = self._galleries(run, wrong, threshold, shown)
        if causes or not run.frames:
            name = "score_causes"
            figures = run.gallery(name, CAPTIONS[name], lambda frames: cause_gallery(causes, frames)) + figures
        return Section("Errors", TEXT, figures, details=tables(*error_tables(wrong)))

    def _galleries(
        self, run: ScoredRun, wrong: Sequence[Prediction], threshold: float | None, shown: list[Prediction]
    ) -> list[Shown]:
        """Three galleries, each of pictures that those before it do not show."""
        figures = []
        for name, choose in (("score_worst", worst), ("score_typical", typical), ("score_near", near_misses)):
            noted = choose(_others(wrong, shown), GALLERY, threshold) or choose(wrong, GALLERY, threshold)
            shown += [p for p, _ in noted]
            alt = CAPTIONS[name] + (f" {AS_TEXT}" if choose is not near_misses else "")
            figures += run.gallery(name, CAPTIONS[name], lambda frames, noted=noted: gallery(noted, frames), alt)
        return figures


def _others(errors: Iterable[Prediction], shown: Iterable[Prediction]) -> list[Prediction]:
    """Those about pictures that are not shown yet."""
    pictures = {p.image_file for p in shown}
    return [p for p in errors if p.image_file not in pictures]


def surest(errors: Iterable[Prediction]) -> list[Prediction]:
    """Wrong answers in the order of their confidence, the highest first."""
    return sorted(errors, key=lambda p: (-p.confidence, p.image_file, p.question))


def frequent(errors: Iterable[Prediction], n: int) -> list[tuple[Prediction, int]]:
    """The n most frequent confusions (family, truth, prediction): an example not yet shown, and how often."""
    groups = defaultdict(list)
    for p in surest(errors):
        groups[p.family, normalise(p.answer), normalise(p.prediction)].append(p)
    examples, shown = [], set()
    for _, group in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))[:n]:
        example = next((p for p in group if p.image_file not in shown), group[0])
        shown.add(example.image_file)
        examples.append((example, len(group)))
    return examples


def worst(errors: Iterable[Prediction], n: int, threshold: float | None = None) -> list[Noted]:
    """The n wrong answers of the highest confidence."""
    return [(p, f"confidence {p.confidence:.0%}") for p in surest(errors)[:n]]


def typical(errors: Iterable[Prediction], n: int, threshold: float | None = None) -> list[Noted]:
    """The n most frequent confusions, one picture each."""
    return [(p, _times(count)) for p, count in frequent(errors, n)]


def _times(n: int) -> str:
    return f"{n} {'time' if n == 1 else 'times'}"


def near_misses(errors: Iterable[Prediction], n: int, threshold: float | None = None) -> list[Noted]:
    """n wrong answers that were nearly right, the nearest first, a third of them at most of one family.

    Nearly right: the truth was the family's second likeliest answer, by how much it was behind. Where these do not
    suffice (older runs do not have them), those whose confidence is nearest to the threshold for answering at all.
    """
    errors = list(errors)
    second = [p for p in errors if _is_second(p)]
    near = [(p, _near_note(p)) for p in sorted(second, key=lambda p: (_behind(p), -p.confidence))]
    if threshold is not None:
        rest = sorted((p for p in errors if not _is_second(p)), key=lambda p: abs(p.confidence - threshold))
        near += [(p, f"confidence {p.confidence:.0%}, threshold {threshold:.0%}") for p in rest]
    return _varied(near, n)


def _is_second(p: Prediction) -> bool:
    asked = p.closed_second is not None and p.closed_margin is not None
    return asked and normalise(p.answer) in (normalise(p.closed_second), normalise(p.closed_prediction))


def _near_note(p: Prediction) -> str:
    return "truth likelier, but not written" if p.closed_correct else f"truth second, {percent(_behind(p))} behind"


def _behind(p: Prediction) -> float:
    """By how much probability the truth is behind; not at all where only the written answer is wrong."""
    return 0.0 if p.closed_correct else p.closed_margin


def _varied(noted: Sequence[Noted], n: int) -> list[Noted]:
    """The first n, each of another picture, a third of them at most of one family, as long as there are such."""
    most, families, pictures, chosen = max(1, n // 3), Counter(), set(), []
    for p, note in noted:
        if len(chosen) < n and p.image_file not in pictures and families[p.family] < most:
            chosen.append((p, note))
            families[p.family] += 1
            pictures.add(p.image_file)
    others = [item for item in noted if item not in chosen]
    return chosen + others[: n - len(chosen)]


def _by_cause(run: ScoredRun, threshold: float | None) -> list[tuple[str, list[Noted]]]:
    """Of the causes of most errors: the most confident error, a typical one, and a near miss."""
    groups: dict[str, list[Prediction]] = defaultdict(list)
    if run.facts:
        for p, cause in zip(run.predictions, error_causes(run.predictions, run.facts), strict=True):
            if cause is not None:
                groups[cause].append(p)
    names = sorted(groups, key=lambda name: (-len(groups[name]), list(CAUSES).index(name)))[:CAUSES_SHOWN]
    return [(name, _three(groups[name], threshold)) for name in names]


def _three(errors: Sequence[Prediction], threshold: float | None) -> list[Noted]:
    """The most confident error, the most frequent confusion and the nearest miss, each about another picture."""
    first = surest(errors)[0]
    shown = [(first, f"most confident, {first.confidence:.0%}")]
    frequently = [(p, f"typical, {note}") for p, note in typical(errors, 4)]
    nearly = [(p, f"near miss, {note}") for p, note in near_misses(errors, A_CAUSE, threshold)]
    for more in (frequently, nearly):
        pictures = {p.image_file for p, _ in shown}
        shown += [item for item in more if item[0].image_file not in pictures][:1]
    return shown


def cause_gallery(causes: Sequence[tuple[str, Sequence[Noted]]], folder: FrameSet) -> Figure:
    """A row a cause, with its errors."""
    chart, tiles = tile_figure(A_CAUSE * len(causes), A_CAUSE, lines=6)
    for row, (name, errors) in enumerate(causes):
        for axes, (p, note) in zip(tiles[A_CAUSE * row : A_CAUSE * (row + 1)], errors, strict=False):
            show_question(axes, folder, p)
            caption(axes, f"{name}: {_text(p, note)}")
    return chart


def gallery(noted: Sequence[Noted], folder: FrameSet) -> Figure:
    """Wrong answers on their pictures."""
    if not noted:
        return message("No such answer.")
    return question_tiles(folder, [(p, _text(p, note)) for p, note in noted])


def _text(p: Prediction, note: str) -> str:
    """Note, question, truth, answer and the picture's name, by which the explorer finds it."""
    told = f"truth: {p.answer}\nanswered: {p.prediction or '(nothing)'}"
    return f"{note}\n{wrapped(p.question)}\n{told}\n{p.image_file}"


def error_tables(wrong: Sequence[Prediction]) -> list:
    """The errors of the galleries, and more, as text."""
    sure = (
        {
            "question": p.question,
            "truth": p.answer,
            "answered": p.prediction,
            "confidence": percent(p.confidence),
            "picture": p.image_file,
        }
        for p in surest(wrong)[:LISTED]
    )
    often = (
        {
            "how often": _times(n),
            "family": p.family,
            "truth": p.answer,
            "answered": p.prediction,
            "example": p.image_file,
        }
        for p, n in frequent(wrong, LISTED)
    )
    return [table(sure, "Most confident wrong answers as text"), table(often, "Most frequent confusions as text")]
