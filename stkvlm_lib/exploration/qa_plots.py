"""What the questions hold and what making them did: answers, samples, what was declined and balanced, guesses, pairs.

Every function returns a figure; fractions come in as 0..1 and are shown as percent, groups carry their n.
"""

import random
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import ImageOps

from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION, Chart, message, plain
from stkvlm_lib.figures.tiles import caption, question_tiles, tile_figure, wrapped
from stkvlm_lib.grammar.questions import in_order
from stkvlm_lib.qa import qa_sets
from stkvlm_lib.qa.blind import Guess
from stkvlm_lib.qa.contrast import ContrastItem, Pair, pairs_of
from stkvlm_lib.qa.generate import Tally
from stkvlm_lib.qa.leaks import BITS, Comparison
from stkvlm_lib.qa.qa_sets import Record

PALE = "#A9D6F2"
_REASONS = 4
_REASON_COLOURS = (ORANGE, VERMILLION, PURPLE, GREEN)


def composition(records: Iterable[Record] | dict[str, dict[str, int]]) -> Figure:
    """One bar a family, cut into its answers' shares, the most frequent first; n at the right.

    Families of many answers get a taller bar with the answers written upright.
    """
    counts = records if isinstance(records, dict) else qa_sets.composition(records)
    families = in_order(counts)
    if not families:
        return message("No questions.")
    inches = [1.35 if len(counts[f]) > 8 and not next(iter(counts[f])).isdigit() else 0.38 for f in families]
    middles = np.cumsum(inches) - np.array(inches) / 2
    chart = Chart(figsize=(9.6, 0.9 + sum(inches)), layout="constrained")
    axes = chart.subplots()
    for y, height, family in zip(middles, inches, families, strict=True):
        n = _share_bar(axes, y, height - 0.1, counts[family], upright=height > 1)
        answers = len(counts[family])
        axes.text(1.01, y, f"n = {n:,}, {answers} {'answer' if answers == 1 else 'answers'}", va="center", fontsize=8)
    axes.set(yticks=middles, yticklabels=families, xlim=(0, 1), ylim=(sum(inches), 0))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    title = "Answers of each family (dark: the most frequent one, the majority baseline)"
    plain(axes, title, "share of the family's questions", "")
    return chart


def _share_bar(axes: Axes, y: float, height: float, counts: dict[str, int], upright: bool) -> int:
    """Draw one family's bar, naming the answers whose segment has room; -> how many questions it stands for."""
    total, left = sum(counts.values()), 0.0
    for i, (answer, count) in enumerate(sorted(counts.items(), key=lambda item: -item[1])):
        share = count / total
        fill, ink = (BLUE, "white") if i == 0 else ((SKY, PALE)[i % 2], BLACK)
        axes.barh(y, share, left=left, height=height, color=fill, edgecolor="white")
        if share > (0.018 if upright else 0.012 * (len(answer) + 1)):
            turn, size = (90, 7.5) if upright else (0, 8)
            axes.text(left + share / 2, y, answer, ha="center", va="center", fontsize=size, color=ink, rotation=turn)
        left += share
    return total


def qa_samples(records: Sequence[Record], folder: FrameSet, n: int, seed: int) -> Figure:
    """n questions on their pictures, each family in turn, the same for any order of the records."""
    drawn = _draw_by_family(records, n, seed)
    if not drawn:
        return message("No questions to draw from.")
    return question_tiles(folder, [(r, f"{wrapped(r.question)}\nanswer: {r.answer}") for r in drawn])


def _draw_by_family(records: Sequence[Record], n: int, seed: int) -> list[Record]:
    rng, piles = random.Random(f"samples-{seed}"), defaultdict(list)
    for record in sorted(records, key=lambda r: (r.image_file, r.question)):
        piles[record.family].append(record)
    queues = [rng.sample(piles[family], min(n, len(piles[family]))) for family in in_order(piles)]
    turns = [queue[i] for i in range(n) for queue in queues if i < len(queue)]
    return turns[:n]


def asked_and_declined(tally: Tally) -> Figure:
    """One bar a family: questions that stay, that balancing leaves out, and that are declined, by the main reasons."""
    families = in_order(tally.candidates.keys() | tally.declined.keys())
    if not families:
        return message("No extended questions.")
    reasons = Counter()
    for counts in tally.declined.values():
        reasons.update(counts)
    main = [reason for reason, _ in reasons.most_common(_REASONS)]
    chart = Chart(figsize=(9.6, 1.6 + 0.27 * len(families)), layout="constrained")
    axes, widest = chart.subplots(), 1
    for y, family in enumerate(families):
        before, after = (sum(counts.get(family, {}).values()) for counts in (tally.candidates, tally.extended))
        declined = Counter(tally.declined.get(family, {}))
        parts = [after, before - after, *(declined[reason] for reason in main)]
        parts.append(declined.total() - sum(parts[2:]))
        left = 0
        for part, colour in zip(parts, (BLUE, SKY, *_REASON_COLOURS[: len(main)], "#BBBBBB"), strict=True):
            axes.barh(y, part, left=left, height=0.72, color=colour, edgecolor="white", linewidth=0.5)
            left += part
        axes.text(left, y, f" {after:,} stay", va="center", fontsize=8)
        widest = max(widest, left)
    axes.set(yticks=range(len(families)), yticklabels=families, ylim=(len(families) - 0.4, -0.6))
    labels = ["stays", "left out to balance", *(f"declined: {reason}" for reason in main), "declined: other reasons"]
    colours = (BLUE, SKY, *_REASON_COLOURS[: len(main)], "#BBBBBB")
    for label, colour in zip(labels, colours, strict=True):
        axes.barh(0, 0, color=colour, label=label)
    axes.set_xlim(0, 1.1 * widest)
    plain(axes, None, "extended questions considered", "")
    chart.legend(loc="outside upper left", ncols=2, fontsize=8.5, frameon=False)
    return chart


def before_and_after(tally: Tally) -> Figure:
    """The share of each extended family's most frequent answer before and after balancing, and an even share."""
    families = in_order(tally.extended)
    if not families:
        return message("No extended questions.")
    chart = Chart(figsize=(9.6, 1.1 + 0.27 * len(families)), layout="constrained")
    axes = chart.subplots()
    for y, family in enumerate(families):
        before, after = tally.candidates[family], tally.extended[family]
        start, end = (max(counts.values()) / sum(counts.values()) for counts in (before, after))
        axes.plot([0, 1], [y, y], color="#E4E4E4", linewidth=0.8, zorder=0)
        axes.plot([start, end], [y, y], color=BLUE, linewidth=2.5, alpha=0.4)
        axes.plot(1 / len(before), y, "|", color=BLACK, markersize=11, label=_once(y, "even share"))
        axes.plot(start, y, "o", color=ORANGE, markersize=7, label=_once(y, "before"), clip_on=False)
        axes.plot(end, y, "o", color=BLUE, markersize=7, label=_once(y, "after"), clip_on=False)
    labels = [f"{f}  ({sum(tally.candidates[f].values()):,} → {sum(tally.extended[f].values()):,})" for f in families]
    axes.set(yticks=range(len(families)), yticklabels=labels, xlim=(0, 1), ylim=(len(families) - 0.4, -0.6))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    plain(axes, None, "share of the most frequent answer (questions before → after)", "")
    chart.legend(loc="outside upper left", ncols=3, fontsize=8.5, frameon=False)
    return chart


_GUESSERS = {
    "uniform": {"marker": "|", "color": BLACK, "markersize": 12, "label": "rolling a die"},
    "majority": {"marker": "o", "color": BLUE, "markersize": 7, "label": "most frequent answer"},
    "track": {"marker": "s", "color": ORANGE, "markersize": 6, "label": "most frequent on the track"},
    "words": {"marker": "D", "color": VERMILLION, "markersize": 6, "label": "words of the question"},
}


def guess_chart(course: Sequence[Guess], extended: Sequence[Guess]) -> Figure:
    """What each family can be guessed at without the picture, the ten forms above the extended sets."""
    rows: list[Guess | None] = [*course, *([None] if course and extended else []), *extended]
    if not rows:
        return message("No guesses: there are no train or no held-out questions.")
    chart = Chart(figsize=(9.6, 1.2 + 0.25 * len(rows)), layout="constrained")
    axes = chart.subplots()
    for y, row in enumerate(rows):
        if row is None:
            axes.axhline(y, color=BLACK, linewidth=0.8)
            continue
        axes.plot([0, 1], [y, y], color="#E4E4E4", linewidth=0.8, zorder=0)
        for name, style in _GUESSERS.items():
            if (share := getattr(row, name)) is not None:
                look = style | {"label": _once(y, style["label"])}
                axes.plot(share, y, linestyle="", markerfacecolor="none", markeredgewidth=1.6, clip_on=False, **look)
    labels = ["" if row is None else f"{row.family}  (n = {row.n:,})" for row in rows]
    axes.set(yticks=range(len(rows)), yticklabels=labels, xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    plain(axes, None, "held-out questions guessed right (above the line: the ten forms, below: the extended sets)", "")
    chart.legend(loc="outside upper left", ncols=4, fontsize=8.5, frameon=False)
    return chart


def _once(y: int, label: str) -> str:
    """A label for the legend from the first row alone."""
    return label if y == 0 else "_"


def contrast_gallery(items: Sequence[ContrastItem], folder: FrameSet, pairs: int = 6) -> Figure:
    """Contrast pairs side by side, two a row: those whose answers differ, as varied as they come."""
    chosen = _varied([pair for pair in pairs_of(items) if pair[0].answer != pair[1].answer], pairs)
    if not chosen:
        return message("No contrast pairs.")
    chart, places = tile_figure(2 * len(chosen), 4, lines=4, width=2.3)
    for number, pair in enumerate(chosen):
        for axes, item in zip(places[2 * number : 2 * number + 2], pair, strict=True):
            image = folder.by_image_file[item.image_file].image()
            axes.imshow(ImageOps.mirror(image) if item.mirrored else image, interpolation="nearest")
            what = "mirrored" if item.mirrored else item.image_file
            caption(axes, f"{_wrap(item.question)}\n→ {item.answer}\n({what})", size=7.5)
        _frame(places[2 * number], places[2 * number + 1])
    return chart


def _varied(pairs: Sequence[Pair], n: int) -> list[Pair]:
    """n of them, each of the kind, the picture and the family that were chosen least so far."""
    left, chosen, times = list(pairs), [], Counter()
    while left and len(chosen) < n:
        pair = min(left, key=lambda p: (times[p[0].kind], times[p[0].image_file], times[p[0].family]))
        left.remove(pair)
        chosen.append(pair)
        times.update((pair[0].kind, pair[0].image_file, pair[0].family))
    return chosen


def closest_pairs(comparisons: Sequence[Comparison], pairs: int = 4) -> Figure:
    """The pictures of two splits that look most alike, side by side, two pairs a row."""
    found = sorted((pair for c in comparisons for pair in c.closest), key=lambda pair: pair.bits)[:pairs]
    if not found:
        return message("There is only one split: nothing to compare.")
    chart, places = tile_figure(2 * len(found), 4, lines=2, width=2.3)
    for number, pair in enumerate(found):
        for axes, view in zip(places[2 * number : 2 * number + 2], (pair.first, pair.second), strict=True):
            axes.imshow(view.image(), interpolation="nearest")
            caption(axes, f"{view.image_file}\n{view.frame.track}, {pair.bits} of {BITS} bits apart", size=7.5)
        _frame(places[2 * number], places[2 * number + 1])
    return chart


def _frame(first: Axes, second: Axes) -> None:
    """A line between two pictures that belong together."""
    for axes, x in ((first, 1), (second, 0)):
        axes.plot([x, x], [0, 1], transform=axes.transAxes, color=GREY, linewidth=3, clip_on=False)


def _wrap(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 38, max_lines=2, placeholder=" …"))
