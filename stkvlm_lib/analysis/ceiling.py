"""What can be reached at most: questions whose truth is in doubt, and an oracle whose boxes are a pixel off.

The course's rule decides every question, also where a box of five pixels or two centres a pixel apart decide it. Three
measures of what that costs, none of them assumed:

- pixel: questions that hang on one pixel of the rule (see question_facts);
- strict: questions that the strict rules decline, because a person could not tell the answer from the picture;
- oracle: the share of truths that stay when every edge of every box moves by up to a pixel, drawn by seed. Who knew all
  karts by name, saw every box to the pixel and knew the rule would score that.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar, Self

import numpy as np
from matplotlib.figure import Figure

from stkvlm_lib.analysis.intervals import by_family, column, mean
from stkvlm_lib.analysis.measured import ByFamily, Measured
from stkvlm_lib.analysis.question_facts import PIXEL
from stkvlm_lib.analysis.scored_run import NO_PICTURES, Analysis, ScoredRun
from stkvlm_lib.analysis.sections import Section, Shown, Table, listed, table, table_of
from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.data.frames import BOX_FRAME, View
from stkvlm_lib.evaluation.predictions import Prediction
from stkvlm_lib.figures import style
from stkvlm_lib.grammar.questions import FAMILIES, OTHER, answer, is_exact, read_question
from stkvlm_lib.grammar.scene import IMAGE_SIZE, Box, Scene, read_scene
from stkvlm_lib.number_text import count, percent

DRAWS = 4
"""Times the boxes of a picture are moved."""
_REACH = PIXEL * BOX_FRAME[0] // IMAGE_SIZE[0]
"""The same as PIXEL, in px of the 600x400 frame in which boxes are given."""
NOTE = (
    "pixel: questions that one pixel of the rule decides, and what is right of them and of the clear rest; declined: "
    "questions that the strict rules would not ask, and what is right of them and of those they would; oracle: truths "
    "that stay when each edge of each box moves by up to a pixel. It errs at random where a model may err less, so "
    "that a model can beat it in a family."
)


@dataclass(frozen=True)
class Doubt(Measured):
    """What doubt costs. doubtful: share of questions in doubt; exact_doubtful, exact_clear: what is right of them and
    of the rest, where there are any; reach: what would be right if all clear ones were, and the doubtful ones as they
    are. reasons: of the strict rules, how often each."""

    doubtful: float
    reach: float
    exact_doubtful: float | None = None
    exact_clear: float | None = None
    reasons: dict[str, int] | None = None


@dataclass(frozen=True)
class Ceiling(ByFamily, Analysis):
    """What is right now, what an oracle would have right, and both kinds of doubt: over all questions of known
    families, and by family."""

    KEY: ClassVar[str] = "ceiling"
    NONE: ClassVar[str] = NO_PICTURES

    n: int
    exact: float
    oracle: float
    pixel: Doubt
    strict: Doubt
    families: dict[str, "Ceiling"] | None = None

    @classmethod
    def measure(cls, run: ScoredRun) -> Self | None:
        known = np.array([p.family in FAMILIES for p in run.predictions])
        if not run.facts or not known.any():
            return None
        facts, right = run.facts, column(run.predictions, "correct")
        oracle = oracle_rates(run.predictions, run.frames, run.settings.seed)
        pixel = np.array([f.pixel > 0 for f in facts])
        strict = np.array([bool(f.declined) for f in facts])

        def figures(member: np.ndarray) -> Self:
            told = [f.declined.value for f, mine in zip(facts, member, strict=True) if mine and f.declined]
            return cls(
                n=int(member.sum()),
                exact=mean(right[member]),
                oracle=mean(oracle[member]),
                pixel=_doubt(pixel[member], right[member]),
                strict=_doubt(strict[member], right[member], dict(Counter(told).most_common())),
            )

        families = by_family(run.predictions, figures, others=False)
        return replace(figures(known), families=families)

    def section(self, run: ScoredRun) -> Section:
        text = (
            "The course's rule decides every question, also where a box of five pixels or two centres a pixel apart "
            f"decide it: {percent(self.pixel.doubtful)} of the questions hang on one pixel, and the strict rules would "
            f"decline {percent(self.strict.doubtful)}. An oracle that knows all boxes, but each edge only to a pixel, "
            f"would score {percent(self.oracle)}. Were every question right that no pixel decides, and the others as "
            f"they are, {percent(self.pixel.reach)} would be right."
        )
        caption = "Accuracy of clear and of doubtful questions, and of an oracle whose boxes are a pixel off."
        alt = listed("Oracle by family", ((name, percent(row.oracle)) for name, row in self.rows))
        chart = Shown("score_ceiling", ceiling_chart(self), caption, alt)
        reasons = (self.strict.reasons or {}).items()
        told = ({"the strict rules decline because of": reason, "questions": count(n)} for reason, n in reasons)
        details = [table(told, "Why the strict rules decline, as text")]
        return Section("What can be reached", text, [chart], self.table(), details, NOTE)

    def table(self) -> Table | None:
        """Doubtful truths and what they cost, by family."""
        columns = {"n": "n", "exact": "exact"}
        columns |= {"pixel": "pixel.doubtful", "right": "pixel.exact_doubtful", "clear right": "pixel.exact_clear"}
        columns |= {"declined": "strict.doubtful", "declined right": "strict.exact_doubtful"}
        columns |= {"asked right": "strict.exact_clear", "oracle": "oracle"}
        return table_of("family", self.rows, columns)


def _doubt(doubt: np.ndarray, right: np.ndarray, reasons: dict[str, int] | None = None) -> Doubt:
    """doubt: (N,) bool; right: (N,) 0 or 1."""
    reach = mean(np.where(doubt, right, 1.0))
    return Doubt(mean(doubt), reach, mean(right[doubt]), mean(right[~doubt]), reasons)


def oracle_rates(predictions: Sequence[Prediction], folder: FrameSet, seed: int) -> np.ndarray:
    """(N,) how often, of DRAWS, each truth stays under moved boxes; NaN for questions of no family."""
    scenes = cache(lambda image_file: _moved_scenes(folder.by_image_file[image_file], seed))
    rates = []
    for p in predictions:
        family, _, names = read_question(p.question)
        known = family != OTHER
        rates.append(mean([_stays(p, scene, names) for scene in scenes(p.image_file)]) if known else np.nan)
    return np.array(rates)


def _stays(p: Prediction, scene: Scene, names: Sequence[str]) -> bool:
    """Whether a question has its truth in a scene. A kart that has become too small to count has no place."""
    there = {kart.name for kart in scene.karts}
    return there.issuperset(names) and is_exact(str(answer(p.question, scene)), p.answer)


def _moved_scenes(view: View, seed: int) -> list[Scene]:
    rng = np.random.default_rng([seed, *view.image_file.encode()])

    def move(box: Box) -> Box:
        return tuple(int(v) for v in np.maximum(0, box + rng.integers(-_REACH, _REACH, 4, endpoint=True)))

    return [read_scene(view, move) for _ in range(DRAWS)]


def ceiling_chart(ceiling: Ceiling) -> Figure:
    """Each family now, on clear and on doubtful questions, and what an oracle with boxes a pixel off would score."""
    rows = ceiling.rows
    chart, axes = style.family_rows([(name, row.n) for name, row in rows], height=0.34)
    for y, (_, row) in enumerate(rows):
        axes.barh(y, 1 - row.oracle, left=row.oracle, height=0.62, color="#D9D9D9", edgecolor="none", zorder=1)
        axes.plot([row.oracle] * 2, [y - 0.33, y + 0.33], color=style.BLACK, linewidth=2, zorder=3)
        style.hollow_marks(axes, y, row.pixel, _DOUBT)
        style.dot(axes, y, row.exact, None, size=6.5 if y else 8.5)
        axes.text(1.04, y, f"{row.pixel.doubtful:.0%} in doubt", va="center", fontsize=8.5)
    axes.set_xlim(0, 1)
    style.plain(axes, None, "questions answered exactly right", "")
    style.legend_above(chart, [_NOW, *(style.HOLLOW | look for look in _DOUBT.values()), _ORACLE], columns=2)
    return chart


_NOW = {"color": style.BLUE, "marker": "o", "linestyle": "", "label": "now"}
_DOUBT = {
    "exact_clear": {"marker": "D", "color": style.GREEN, "label": "clear questions"},
    "exact_doubtful": {"marker": "s", "color": style.VERMILLION, "label": "questions that a pixel decides"},
}
_ORACLE = {"color": style.BLACK, "marker": "|", "markersize": 11, "markeredgewidth": 2, "linestyle": ""}
_ORACLE |= {"label": "oracle whose boxes are up to a pixel off"}
