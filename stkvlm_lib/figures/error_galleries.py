"""Wrong answers on their pictures: by cause, near misses, and what is taken for what."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.figures.drawing import GREY
from stkvlm_lib.figures.galleries import (
    caption,
    question_tiles,
    show_question,
    tile_figure,
    typical_errors,
    worst_errors,
    wrapped,
)
from stkvlm_lib.figures.plots import message, most_confused
from stkvlm_lib.grammar.questions import normalise
from stkvlm_lib.scores.causes import CAUSES

if TYPE_CHECKING:
    from stkvlm_lib.scores.scoring import Prediction

Noted = tuple["Prediction", str]
"""A wrong answer, and what is said of it."""
_LINES = 6


def near_misses(predictions: Sequence["Prediction"], n: int, threshold: float | None = None) -> list[Noted]:
    """n wrong answers that were nearly right, the nearest first, a third of them at most of one family.

    Nearly right: the truth was the family's second likeliest answer, by how much it was behind. Where these do not
    suffice (older runs do not have them), those whose confidence is nearest to the threshold for answering at all.
    """
    wrong = [p for p in predictions if not p.correct]
    second = [p for p in wrong if _is_second(p)]
    near = [(p, _note(p)) for p in sorted(second, key=lambda p: (_behind(p), -p.confidence))]
    if threshold is not None:
        rest = sorted((p for p in wrong if not _is_second(p)), key=lambda p: abs(p.confidence - threshold))
        near += [(p, f"confidence {p.confidence:.0%}, threshold {threshold:.0%}") for p in rest]
    return _varied(near, n)


def _is_second(p: "Prediction") -> bool:
    asked = p.closed_second is not None and p.closed_margin is not None
    return asked and normalise(p.answer) in (normalise(p.closed_second), normalise(p.closed_prediction))


def _note(p: "Prediction") -> str:
    return "truth likelier, but not written" if p.closed_correct else f"truth second, {_behind(p):.1%} behind"


def _behind(p: "Prediction") -> float:
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


def near_gallery(
    predictions: Sequence["Prediction"], folder: FrameSet, n: int, threshold: float | None = None
) -> Figure:
    """Near misses on their pictures."""
    found = near_misses(predictions, n, threshold)
    if not found:
        return message("No near misses: no wrong answer whose truth was the second likeliest.")
    return question_tiles(folder, [(p, _text(p, note)) for p, note in found])


def cause_gallery(
    predictions: Sequence["Prediction"],
    causes: Sequence[str | None],
    folder: FrameSet,
    *,
    most: int = 6,
    threshold: float | None = None,
) -> Figure:
    """A row a cause, those of most errors first: the most confident error, a typical one, and a near miss.

    causes: of every prediction, None where it is right. most: causes shown.
    """
    groups: dict[str, list[Prediction]] = defaultdict(list)
    for p, cause in zip(predictions, causes, strict=True):
        if cause is not None:
            groups[cause].append(p)
    names = sorted(groups, key=lambda name: (-len(groups[name]), list(CAUSES).index(name)))[:most]
    if not names:
        return message(f"No wrong answer among {len(predictions):,} predictions.")
    chart, tiles = tile_figure(3 * len(names), 3, lines=_LINES)
    for row, name in enumerate(names):
        for axes, item in zip(tiles[3 * row : 3 * row + 3], _three(groups[name], threshold), strict=False):
            p, note = item
            show_question(axes, folder, p)
            caption(axes, f"{name}: {_text(p, note)}")
    return chart


def _three(errors: Sequence["Prediction"], threshold: float | None) -> list[Noted]:
    """The most confident error, the most frequent confusion and the nearest miss, each another answer."""
    worst = [(p, f"most confident, {p.confidence:.0%}") for p in worst_errors(errors, 1)]
    typical = [(p, f"typical, {n} {'time' if n == 1 else 'times'}") for p, n in typical_errors(errors, 4)]
    near = [(p, f"near miss, {note}") for p, note in near_misses(errors, 3, threshold)]
    shown = list(worst)
    for more in (typical, near):
        pictures = {p.image_file for p, _ in shown}
        shown += [item for item in more if item[0].image_file not in pictures][:1]
    return shown


def _text(p: "Prediction", note: str) -> str:
    """Note, question, truth, answer and the picture's name, by which the explorer finds it."""
    told = f"truth: {p.answer}\nanswered: {p.prediction or '(nothing)'}"
    return f"{note}\n{wrapped(p.question)}\n{told}\n{p.image_file}"


def confused_gallery(predictions: Sequence["Prediction"], folder: FrameSet, family: str, n: int = 4) -> Figure:
    """The n most frequent confusions of a family: a picture that was answered wrong, and beside it one of which that
    answer is true, so that one sees whether the two look alike."""
    pairs = most_confused(predictions, family, n)
    if not pairs:
        return message(f"No wrong answer of family {family}.")
    chart, tiles = tile_figure(2 * len(pairs), 4, lines=4, width=2.3)
    mine = [p for p in predictions if p.family == family]
    for number, pair in enumerate(pairs):
        wrong, like = _confused(mine, pair["truth"], pair["prediction"])
        left, right = tiles[2 * number : 2 * number + 2]
        show_question(left, folder, wrong)
        often = f"{pair['n']} of {round(pair['n'] / pair['share'])} times"
        caption(
            left,
            f"is {pair['truth']},\nanswered {pair['prediction'] or '(nothing)'}\n({often})\n{wrong.image_file}",
            7.5,
        )
        _show_like(right, folder, pair["prediction"], like)
    return chart


def _show_like(axes: Axes, folder: FrameSet, answer: str, like: "Prediction | None") -> None:
    if like is None:
        axes.text(0.5, 0.5, f"no picture of {answer or '(nothing)'}\namong those scored", ha="center", va="center",
                  color=GREY, fontsize=8, transform=axes.transAxes)  # fmt: skip
        return
    show_question(axes, folder, like)
    caption(axes, f"for comparison:\nis {answer}\n\n{like.image_file}", 7.5)


def _confused(mine: Sequence["Prediction"], truth: str, said: str) -> tuple["Prediction", "Prediction | None"]:
    """The most confident example of a confusion, and the most confident picture of which the answer is true."""
    surest = sorted(mine, key=lambda p: (-p.confidence, p.image_file))
    wrong = next(p for p in surest if (normalise(p.answer), normalise(p.prediction)) == (truth, said))
    like = [p for p in surest if normalise(p.answer) == said]
    return wrong, next((p for p in like if p.correct), like[0] if like else None)
