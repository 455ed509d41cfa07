"""The course's multiple choice: which of five sentences about a picture is true?"""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from stkvlm_lib.analysis.intervals import by_family, column, every, mean
from stkvlm_lib.analysis.measured import ByFamily, Share
from stkvlm_lib.analysis.scored_run import Analysis, ScoredRun
from stkvlm_lib.analysis.sections import Section, Table, table
from stkvlm_lib.evaluation.predictions import ChoicePrediction
from stkvlm_lib.grammar.captions import CANDIDATES
from stkvlm_lib.number_text import count, interval, percent

_STATES = {"ego": "the ego kart", "count": "how many karts", "track": "the track", "left_right": "left or right"}
_STATES |= {"front_back": "in front or behind", "other": "something else"}


@dataclass(frozen=True)
class ChoiceScore(Share):
    """Items right beside chance and the blind model."""

    chance: float | None = None
    blind: float | None = None


@dataclass(frozen=True)
class MultipleChoice(ChoiceScore, ByFamily, Analysis):
    """Over all items, and by what the true sentence states."""

    KEY: ClassVar[str] = "mc"

    clusters: str | None = None
    n_clusters: int | None = None
    families: dict[str, ChoiceScore] | None = None

    @classmethod
    def measure(cls, run: ScoredRun) -> Self | None:
        rows = run.answers("mc", ChoicePrediction)
        if not rows:
            return None
        right, blind, interval_of = column(rows, "correct"), column(rows, "blind_correct"), run.interval_of(rows)

        def figures(member: np.ndarray) -> ChoiceScore:
            exact, ends = mean(right[member]), interval_of(right, member)
            return ChoiceScore(int(member.sum()), exact, ends, 1 / CANDIDATES, mean(blind[member]))

        whole, families = figures(every(rows)), by_family(rows, figures)
        return cls(**vars(whole), clusters=interval_of.unit, n_clusters=interval_of.n, families=families)

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
        return table(
            {
                "true sentence states": _STATES.get(name, name),
                "n": count(row.n),
                "exact": percent(row.exact),
                "95% interval": interval(row.exact_ci95),
                "chance": percent(row.chance),
                "blind": percent(row.blind),
            }
            for name, row in self.rows
        )
