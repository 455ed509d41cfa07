"""Labels that no answer can match; wrong answers on their pictures: of each main cause, the surest, near misses."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, ClassVar

from matplotlib.figure import Figure

from stkvlm_lib.analysis.error_budget import CAUSES, error_causes
from stkvlm_lib.analysis.scored_run import Analysis, ScoredRun
from stkvlm_lib.analysis.sections import Section, Shown, Table, table, table_of
from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.evaluation.predictions import Prediction
from stkvlm_lib.figures.style import message
from stkvlm_lib.figures.tiles import question_tiles, wrapped
from stkvlm_lib.grammar.questions import normalise
from stkvlm_lib.grouping import grouped
from stkvlm_lib.number_text import counted, percent

Noted = tuple[Prediction, str]
"""A wrong answer, and what is said of it."""
TEXT = "A name of a picture in the tables opens it in the explorer, while the explorer serves this run as a page."
BY_CAUSE = "Of the main causes: the most confident error, a typical one, and a near miss."
WORST = "Wrong answers of which the model was most sure; the ego kart is yellow."
NEAR = "Wrong answers whose truth was the second likeliest answer, and by how much it was behind."
FAULTS = (
    "Faults in the labels of the questions scored: no answer of a model can match them, or they count more than once. "
    "The scores above count these questions as they stand."
)
GALLERY, LISTED = 9, 12
"""Pictures in a gallery, rows in a table."""
CAUSES_SHOWN = 6
"""Of the causes of most errors, three pictures each."""


@dataclass(frozen=True)
class LabelFaults(Analysis):
    """rows: of the table that `qa.label_faults` makes, which needs the questions' files."""

    KEY: ClassVar[str] = "label_faults"
    NONE: ClassVar[str] = "None found: notebook 04 looks for right answers that their family cannot have."
    WHOLE: ClassVar[str] = "rows"

    rows: list[dict[str, Any]]

    @classmethod
    def measure(cls, run: ScoredRun) -> None:
        return None

    def section(self, run: ScoredRun) -> Section | None:
        shown = table({name: str(value) for name, value in row.items()} for row in self.rows)
        return Section("Labels that cannot be scored", FAULTS, table=shown) if shown else None


class Errors(Analysis):
    """The answers themselves; no figures of their own. Galleries repeat no picture as long as there are others."""

    NONE: ClassVar[str] = "None: no answer is wrong."

    def section(self, run: ScoredRun) -> Section | None:
        wrong = [p for p in run.predictions if not p.correct]
        if not wrong:
            return None
        causes, figures = by_cause(run), list[Shown]()
        if causes or not run.frames:
            figures += run.gallery("score_causes", BY_CAUSE, partial(gallery, causes))
        shown = {p.image_file for p, _ in causes}
        for name, words, choose in (("score_worst", WORST, worst), ("score_near", NEAR, near_misses)):
            noted = choose([p for p in wrong if p.image_file not in shown], GALLERY) or choose(wrong, GALLERY)
            shown |= {p.image_file for p, _ in noted}
            figures += run.gallery(name, words, partial(gallery, noted))
        return Section("Errors", TEXT, figures, details=error_tables(wrong))


def surest(errors: Iterable[Prediction]) -> list[Prediction]:
    """Wrong answers in the order of their confidence, the highest first."""
    return sorted(errors, key=lambda p: (-p.confidence, p.image_file, p.question))


def frequent(errors: Iterable[Prediction], n: int, shown: Iterable[str] = ()) -> list[tuple[Prediction, int]]:
    """The n most frequent confusions (family, truth, prediction): an example about a picture not yet shown, and how
    often."""
    groups = grouped(surest(errors), lambda p: (p.family, normalise(p.answer), normalise(p.prediction)))
    examples, shown = [], set(shown)
    for _, group in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))[:n]:
        example = next((p for p in group if p.image_file not in shown), group[0])
        shown.add(example.image_file)
        examples.append((example, len(group)))
    return examples


def worst(errors: Iterable[Prediction], n: int) -> list[Noted]:
    """n wrong answers of the highest confidence, each about another picture."""
    return varied([(p, f"confidence {p.confidence:.0%}") for p in surest(errors)], n)


def near_misses(errors: Iterable[Prediction], n: int) -> list[Noted]:
    """n wrong answers whose truth was the family's second likeliest, the nearest first; a third of them at most of one
    family. Likelier than what was written, it is not behind at all."""
    near = []
    for p in errors:
        if p.closed_correct:
            near.append((0.0, p, "truth likelier, but not written"))
        elif p.closed_second is not None and normalise(p.answer) == normalise(p.closed_second):
            near.append((p.closed_margin, p, f"truth second, {percent(p.closed_margin)} behind"))
    near.sort(key=lambda item: (item[0], -item[1].confidence))
    return varied([(p, note) for _, p, note in near], n, most=max(1, n // 3))


def varied(noted: Iterable[Noted], n: int, most: int | None = None) -> list[Noted]:
    """The first n, each about another picture; most: of one family, as long as there are others."""
    first: dict[str, Noted] = {}
    for p, note in noted:
        first.setdefault(p.image_file, (p, note))
    families, chosen, others = Counter(), [], []
    for p, note in first.values():
        families[p.family] += 1
        (chosen if most is None or families[p.family] <= most else others).append((p, note))
    return (chosen + others)[:n]


def by_cause(run: ScoredRun) -> list[Noted]:
    """Of each of the causes of most errors the most confident error, the most frequent confusion and the nearest miss,
    each about another picture."""
    causes = zip(run.predictions, error_causes(run.predictions, run.facts), strict=True) if run.facts else ()
    groups = grouped(((p, cause) for p, cause in causes if cause is not None), itemgetter(1))
    chosen: dict[str, Noted] = {}

    def choose(cause: str, noted: Iterable[Noted]) -> None:
        if found := next(((p, note) for p, note in noted if p.image_file not in chosen), None):
            chosen[found[0].image_file] = found[0], f"{cause}: {found[1]}"

    for name in sorted(groups, key=lambda name: (-len(groups[name]), list(CAUSES).index(name)))[:CAUSES_SHOWN]:
        errors = [p for p, _ in groups[name]]
        choose(name, ((p, f"most confident, {p.confidence:.0%}") for p in surest(errors)))
        choose(name, ((p, f"typical, {counted(n, 'time')}") for p, n in frequent(errors, len(errors), chosen)))
        choose(name, ((p, f"near miss, {note}") for p, note in near_misses(errors, len(errors))))
    return list(chosen.values())


def gallery(noted: Sequence[Noted], folder: FrameSet) -> Figure:
    """Wrong answers on their pictures, with the picture's name, by which the explorer finds it."""
    captioned = []
    for p, note in noted:
        told = f"truth: {p.answer}\nanswered: {p.prediction or '(nothing)'}"
        captioned.append((p, f"{note}\n{wrapped(p.question)}\n{told}\n{p.image_file}"))
    return question_tiles(folder, captioned) if captioned else message("No such answer.")


def error_tables(wrong: Sequence[Prediction]) -> list[Table | None]:
    """The surest errors and the most frequent ones as text."""
    said = {"truth": "answer", "answered": "prediction"}
    sure = ((p.question, p) for p in surest(wrong)[:LISTED])
    often = ((counted(n, "time"), p) for p, n in frequent(wrong, LISTED))
    known, seen = {"confidence": "confidence", "picture": "image_file"}, {"example": "image_file"}
    return [
        table_of("question", sure, said | known, "Most confident wrong answers as text"),
        table_of("how often", often, {"family": "family"} | said | seen, "Most frequent confusions as text"),
    ]
