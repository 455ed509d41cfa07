"""What the questions hold and what making them did: answers, samples, what was declined and balanced, guesses, pairs.

Every function returns a figure; fractions come in as 0..1 and are shown as percent, groups carry their n.
"""

import random
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from operator import attrgetter

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.figures import style
from stkvlm_lib.figures.tiles import caption, question_tiles, tile_figure, wrapped
from stkvlm_lib.grammar.questions import in_order
from stkvlm_lib.grouping import grouped
from stkvlm_lib.number_text import counted
from stkvlm_lib.qa import qa_sets
from stkvlm_lib.qa.blind import Guess
from stkvlm_lib.qa.contrast import ContrastItem, Pair, pairs_of
from stkvlm_lib.qa.generate import Tally
from stkvlm_lib.qa.leaks import BITS, Comparison
from stkvlm_lib.qa.qa_sets import Record

PALE = "#A9D6F2"
_REASONS = 4
_REASON_COLOURS = (style.ORANGE, style.VERMILLION, style.PURPLE, style.GREEN)


def composition(records: Iterable[Record] | dict[str, dict[str, int]]) -> Figure:
    """One bar a family, cut into its answers' shares, the most frequent first; n at the right.

    Families of many answers get a taller bar with the answers written upright.
    """
    counts = records if isinstance(records, dict) else qa_sets.composition(records)
    families = in_order(counts)
    if not families:
        return style.message("No questions.")
    inches = [1.35 if len(counts[f]) > 8 and not next(iter(counts[f])).isdigit() else 0.38 for f in families]
    middles = np.cumsum(inches) - np.array(inches) / 2
    chart = style.Chart(figsize=(9.6, 0.9 + sum(inches)), layout="constrained")
    axes = chart.subplots()
    for y, height, family in zip(middles, inches, families, strict=True):
        n = _share_bar(axes, y, height - 0.1, counts[family], upright=height > 1)
        axes.text(1.01, y, f"n = {n:,}, {counted(len(counts[family]), 'answer')}", va="center", fontsize=8)
    axes.set(yticks=middles, yticklabels=families, xlim=(0, 1), ylim=(sum(inches), 0))
    axes.xaxis.set_major_formatter(style.as_percent)
    title = "Answers of each family (dark: the most frequent one, the majority baseline)"
    style.plain(axes, title, "share of the family's questions", "")
    return chart


def _share_bar(axes: Axes, y: float, height: float, counts: dict[str, int], upright: bool) -> int:
    """Draw one family's bar, naming the answers whose segment has room; -> how many questions it stands for."""
    total, left = sum(counts.values()), 0.0
    for i, (answer, count) in enumerate(sorted(counts.items(), key=lambda item: -item[1])):
        share = count / total
        fill, ink = (style.BLUE, "white") if i == 0 else ((style.SKY, PALE)[i % 2], style.BLACK)
        axes.barh(y, share, left=left, height=height, color=fill, edgecolor="white")
        if share > (0.018 if upright else 0.012 * (len(answer) + 1)):
            turn, size = (90, 7.5) if upright else (0, 8)
            axes.text(left + share / 2, y, answer, ha="center", va="center", fontsize=size, color=ink, rotation=turn)
        left += share
    return total


def qa_samples(records: Sequence[Record], folder: FrameSet, n: int, seed: int) -> Figure:
    """n questions on their pictures, each family in turn, the same for any order of the records."""
    drawn = draw_samples(records, n, seed)
    if not drawn:
        return style.message("No questions to draw from.")
    return question_tiles(folder, [(r, f"{wrapped(r.question)}\nanswer: {r.answer}") for r in drawn])


def draw_samples(records: Sequence[Record], n: int, seed: int) -> list[Record]:
    """n questions, each family in turn, about pictures that are not drawn yet as long as there are such."""
    rng = random.Random(f"samples-{seed}")
    piles = grouped(sorted(records, key=attrgetter("image_file", "question")), attrgetter("family"))
    queues = [rng.sample(piles[family], min(n, len(piles[family]))) for family in in_order(piles)]
    drawn: list[Record] = []
    while len(drawn) < n and any(queues):
        for queue in filter(None, queues):
            shown = {record.image_file for record in drawn}
            drawn.append(next((record for record in queue if record.image_file not in shown), queue[0]))
            queue.remove(drawn[-1])
    return drawn[:n]


def asked_and_declined(tally: Tally) -> Figure:
    """One bar a family: questions that stay, that balancing leaves out, and that are declined, by the main reasons."""
    families = in_order(tally.candidates.keys() | tally.declined.keys())
    if not families:
        return style.message("No extended questions.")
    before, after = ([sum(sets.get(f, {}).values()) for f in families] for sets in (tally.candidates, tally.extended))
    declined = [Counter(tally.declined.get(f, {})) for f in families]
    main = [reason for reason, _ in sum(declined, Counter()).most_common(_REASONS)]
    parts = {"stays": np.array(after), "left out to balance": np.array(before) - after}
    parts |= {f"declined: {reason}": np.array([counts[reason] for counts in declined]) for reason in main}
    others = [counts.total() - sum(counts[reason] for reason in main) for counts in declined]
    parts["declined: other reasons"] = np.array(others)
    chart = style.Chart(figsize=(9.6, 1.6 + 0.27 * len(families)), layout="constrained")
    axes = chart.subplots()
    ends = style.stacked_bars(axes, parts, (style.BLUE, style.SKY, *_REASON_COLOURS[: len(main)], "#BBBBBB"))
    for y, (end, n) in enumerate(zip(ends, after, strict=True)):
        axes.text(end, y, f" {n:,} stay", va="center", fontsize=8)
    style.set_rows(axes, families, lines=False)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlim(0, 1.1 * max(1, *ends))
    style.plain(axes, None, "extended questions considered", "")
    chart.legend(loc="outside upper left", ncols=2, fontsize=8.5, frameon=False)
    return chart


def before_and_after(tally: Tally) -> Figure:
    """The share of each extended family's most frequent answer before and after balancing, and an even share."""
    families = in_order(tally.extended)
    if not families:
        return style.message("No extended questions.")
    chart = style.Chart(figsize=(9.6, 1.1 + 0.27 * len(families)), layout="constrained")
    axes = chart.subplots()
    marks = {
        "even": {"marker": "|", "color": style.BLACK, "markersize": 11, "linestyle": "", "label": "even share"},
        "before": {"marker": "o", "color": style.ORANGE, "markersize": 7, "linestyle": "", "label": "before"},
        "after": {"marker": "o", "color": style.BLUE, "markersize": 7, "linestyle": "", "label": "after"},
    }
    for y, family in enumerate(families):
        counts = {"before": tally.candidates[family], "after": tally.extended[family]}
        shares = {name: max(row.values()) / sum(row.values()) for name, row in counts.items()}
        axes.plot(list(shares.values()), [y, y], color=style.BLUE, linewidth=2.5, alpha=0.4)
        shares["even"] = 1 / len(counts["before"])
        for name, look in marks.items():
            axes.plot(shares[name], y, **look, clip_on=False)
    totals = [[sum(sets[f].values()) for sets in (tally.candidates, tally.extended)] for f in families]
    style.set_rows(axes, [f"{f}  ({n:,} → {left:,})" for f, (n, left) in zip(families, totals, strict=True)])
    axes.set_xlim(0, 1)
    style.plain(axes, None, "share of the most frequent answer (questions before → after)", "")
    style.legend_above(chart, marks.values())
    return chart


_GUESSERS = {
    "uniform": {"marker": "|", "color": style.BLACK, "markersize": 12, "label": "rolling a die"},
    "majority": {"marker": "o", "color": style.BLUE, "markersize": 7, "label": "most frequent answer"},
    "track": {"marker": "s", "color": style.ORANGE, "markersize": 6, "label": "most frequent on the track"},
    "words": {"marker": "D", "color": style.VERMILLION, "markersize": 6, "label": "words of the question"},
}


def guess_chart(course: Sequence[Guess], extended: Sequence[Guess]) -> Figure:
    """What each family can be guessed at without the picture, the ten forms above the extended sets."""
    rows = [*course, *extended]
    if not rows:
        return style.message("No guesses: there are no train or no held-out questions.")
    chart = style.Chart(figsize=(9.6, 1.2 + 0.25 * len(rows)), layout="constrained")
    axes = chart.subplots()
    style.set_rows(axes, [f"{row.family}  (n = {row.n:,})" for row in rows])
    for y, row in enumerate(rows):
        style.hollow_marks(axes, y, row, _GUESSERS)
    if course and extended:
        axes.axhline(len(course) - 0.5, color=style.BLACK, linewidth=0.8)
    axes.set_xlim(0, 1)
    label = "held-out questions guessed right (above the line: the ten forms, below: the extended sets)"
    style.plain(axes, None, label, "")
    style.legend_above(chart, (style.HOLLOW | look for look in _GUESSERS.values()))
    return chart


def contrast_gallery(items: Sequence[ContrastItem], folder: FrameSet, pairs: int = 6) -> Figure:
    """Contrast pairs side by side, two a row: those whose answers differ, as varied as they come."""
    chosen = _varied([pair for pair in pairs_of(items) if pair[0].answer != pair[1].answer], pairs)
    captioned = []
    for item in (item for pair in chosen for item in pair):
        image = folder.by_image_file[item.image_file].image()
        question = "\n".join(textwrap.wrap(item.question, 38, max_lines=2, placeholder=" …"))
        what = "mirrored" if item.mirrored else item.image_file
        picture = ImageOps.mirror(image) if item.mirrored else image
        captioned.append((picture, f"{question}\n→ {item.answer}\n({what})"))
    return _side_by_side(captioned, lines=4) if chosen else style.message("No contrast pairs.")


def _varied(pairs: Sequence[Pair], n: int) -> list[Pair]:
    """n of them, each of the kind, the pictures and the family that were chosen least so far."""
    left, chosen, times = list(pairs), [], Counter()

    def rank(pair: Pair) -> tuple[int, ...]:
        return times[pair[0].kind], max(times[item.image_file] for item in pair), times[pair[0].family]

    while left and len(chosen) < n:
        pair = min(left, key=rank)
        left.remove(pair)
        chosen.append(pair)
        times.update({pair[0].kind, pair[0].family, *(item.image_file for item in pair)})
    return chosen


def closest_pairs(comparisons: Sequence[Comparison], pairs: int = 4) -> Figure:
    """The pictures of two splits that look most alike, each once, side by side, two pairs a row."""
    captioned: dict[str, tuple[Image.Image, str]] = {}
    for pair in sorted((pair for c in comparisons for pair in c.closest), key=lambda pair: pair.bits):
        views = pair.first, pair.second
        if len(captioned) < 2 * pairs and not any(view.image_file in captioned for view in views):
            for view in views:
                told = f"{view.image_file}\n{view.frame.track}, {pair.bits} of {BITS} bits apart"
                captioned[view.image_file] = view.image(), told
    found = list(captioned.values())
    return _side_by_side(found, lines=2) if found else style.message("There is only one split: nothing to compare.")


def _side_by_side(captioned: Sequence[tuple[Image.Image, str]], lines: int) -> Figure:
    """Two pairs of pictures a row, with a line between the two that belong together."""
    chart, tiles = tile_figure(len(captioned), 4, lines=lines, width=2.3)
    for number, (axes, (picture, text)) in enumerate(zip(tiles, captioned, strict=True)):
        axes.imshow(picture, interpolation="nearest")
        caption(axes, text, size=7.5)
        x = 0 if number % 2 else 1
        axes.plot([x, x], [0, 1], transform=axes.transAxes, color=style.GREY, linewidth=3, clip_on=False)
    return chart
