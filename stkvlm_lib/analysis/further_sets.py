"""Sets of questions that are scored by themselves: families beside the ten, line-ups never seen, multiple choice."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from stkvlm_lib.analysis.accuracy import Accuracy, FamilyScore, Score, accuracy_chart, score
from stkvlm_lib.analysis.intervals import column, with_families
from stkvlm_lib.analysis.measured import ByFamily, Share
from stkvlm_lib.analysis.scored_run import Analysis, ScoredRun
from stkvlm_lib.analysis.sections import Section, Shown, Table, table_of
from stkvlm_lib.evaluation.predictions import ChoicePrediction
from stkvlm_lib.evaluation.question_sets import FURTHER_SPLITS
from stkvlm_lib.grammar.captions import CANDIDATES
from stkvlm_lib.grammar.families import EXTENDED as EXTENDED_GROUP
from stkvlm_lib.grammar.questions import FAMILIES, PRETRAINED
from stkvlm_lib.number_text import count, interval, percent


class Extended(Score, Analysis):
    """The families beside the ten forms, in wordings that training draws from."""

    KEY: ClassVar[str] = "extended"
    NONE: ClassVar[str] = (
        "Not asked: notebook 02 writes such questions, and notebook 04 asks EXTENDED_SCORED of each family."
    )

    @classmethod
    def measure(cls, run: ScoredRun) -> Self | None:
        asked = run.answers("extended")
        mine = [p for p in asked if p.family in FAMILIES and FAMILIES[p.family].group == EXTENDED_GROUP]
        return cls(**vars(score(mine, run.interval_of(mine)))) if mine else None

    @property
    def taught(self) -> list[tuple[str, FamilyScore]]:
        """The families that the embedded base is not trained on, with what it says to them alone."""
        rows = (self.families or {}).items()
        return [(name, row) for name, row in rows if name not in PRETRAINED and row.base is not None]

    def section(self, run: ScoredRun) -> Section:
        text = (
            "Questions of families beside the course's ten, under the strict rules and balanced; no part of the scores "
            f"above. {percent(self.exact)} of {count(self.n)} are answered exactly right (95% interval "
            f"{interval(self.exact_ci95)}), {percent(self.macro_exact)} in the mean over the families"
            + (f", {percent(self.base_exact)} by the base alone." if self.base_exact is not None else ".")
        )
        caption = "Extended questions answered exactly right, by family, with 95% intervals and their baselines."
        chart = Shown("score_extended", accuracy_chart(self), caption, self.alt())
        return Section("Extended questions", text, [chart], self.table())


@dataclass(frozen=True)
class UnseenLineUps(Analysis):
    """splits: races in which no kart drives a track that it drives in training, by split."""

    KEY: ClassVar[str] = "other_splits"
    NONE: ClassVar[str] = "Not asked: these data have no split test_unseen."
    WHOLE: ClassVar[str] = "splits"

    splits: dict[str, Score]

    @classmethod
    def measure(cls, run: ScoredRun) -> Self | None:
        asked = {name: rows for name in FURTHER_SPLITS if (rows := run.answers(name))}
        found = {name: score(rows, run.interval_of(rows)) for name, rows in asked.items()}
        return cls(found) if found else None

    def section(self, run: ScoredRun) -> Section | None:
        if not self.splits:
            return None
        split, figures = next(iter(self.splits.items()))
        text = (
            f"Pictures{figures.races} in which no kart drives a track that it drives in training, so that the track "
            f"does not give it away: {percent(figures.exact)} of {count(figures.n)} questions of the ten forms are "
            f"answered exactly right (95% interval {interval(figures.exact_ci95)}). Such races may have fewer karts "
            "than those of the headline: compare with what guessing scores, not with these alone."
        )
        return Section("Line-ups never seen", text, table=self.table(split, run))

    def table(self, split: str, run: ScoredRun) -> Table | None:
        """By family, beside the split of the headline."""
        headline = run.figures(Accuracy)
        usual = dict(headline.rows) if headline else {}
        beside = {run.split: lambda name: percent(usual[name].exact if name in usual else None)}
        return table_of("family", self.splits[split].rows, _RIGHT | beside | {"majority": "majority", "blind": "blind"})


_RIGHT = {"n": "n", "exact": "exact", "95% interval": "exact_ci95"}
_STATES = {"ego": "the ego kart", "count": "how many karts", "track": "the track", "left_right": "left or right"}
_STATES |= {"front_back": "in front or behind", "other": "something else"}


@dataclass(frozen=True)
class MultipleChoice(Share, ByFamily, Analysis):
    """The course's multiple choice beside chance and the blind model, over all items and by what the true sentence
    states."""

    KEY: ClassVar[str] = "mc"
    NONE: ClassVar[str] = "Not asked: notebook 02 writes items, or name a file of them in MC_FILE of notebook 04."

    chance: float | None = None
    blind: float | None = None
    clusters: str | None = None
    n_clusters: int | None = None
    families: dict[str, "MultipleChoice"] | None = None

    @classmethod
    def measure(cls, run: ScoredRun) -> Self | None:
        rows = run.answers("mc", ChoicePrediction)
        if not rows:
            return None
        right, blind, interval_of = column(rows, "correct"), column(rows, "blind_correct"), run.interval_of(rows)

        def figures(member: np.ndarray) -> Self:
            return cls(**interval_of.means(member, "exact", exact=right, blind=blind), chance=1 / CANDIDATES)

        found = with_families(rows, figures)
        return cls(**found | {"clusters": interval_of.unit, "n_clusters": interval_of.n})

    def into_metrics(self) -> dict[str, Any]:
        return {"mc_exact": self.exact, self.KEY: self.as_json()}

    def section(self, run: ScoredRun) -> Section:
        text = (
            "Which of five sentences about a picture is true, each weighed by the likelihood of the answer that it "
            f"states: {percent(self.exact)} of {count(self.n)} items are right (95% interval "
            f"{interval(self.exact_ci95)}). Chance is {percent(self.chance)}, the same adapter without seeing the "
            f"picture {percent(self.blind)}."
        )
        return Section("Multiple choice", text, table=self.table())

    def table(self) -> Table | None:
        rows = ((_STATES.get(name, name), row) for name, row in self.rows)
        return table_of("true sentence states", rows, _RIGHT | {"chance": "chance", "blind": "blind"})
