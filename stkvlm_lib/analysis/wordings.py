"""The same questions in two wordings: one that training draws from, and one that it has never seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from stkvlm_lib.analysis.intervals import Bootstrap, by_family, column, every, mean
from stkvlm_lib.analysis.measured import Interval, Share
from stkvlm_lib.analysis.scored_run import Analysis, ScoredRun
from stkvlm_lib.analysis.sections import Section, Table, family_lines, table
from stkvlm_lib.evaluation.predictions import Prediction
from stkvlm_lib.grammar.questions import FAMILIES, is_exact
from stkvlm_lib.number_text import count, interval, percent, points


@dataclass(frozen=True)
class WordingPair(Share):
    """exact: in the new wording, trained_exact: in the known one; difference: new less known, paired by question;
    same_answer: how often both get the same answer."""

    trained_exact: float | None = None
    difference: float | None = None
    difference_ci95: Interval | None = None
    same_answer: float | None = None


@dataclass(frozen=True)
class HeldOutWordings(WordingPair, Analysis):
    """The wording of each family that training leaves out, beside one that it draws from."""

    KEY: ClassVar[str] = "held_out_wordings"

    families: dict[str, WordingPair] | None = None

    @property
    def rows(self) -> list[tuple[str, WordingPair]]:
        """All questions, then each family."""
        return family_lines(self, self.families)

    @classmethod
    def measure(cls, run: ScoredRun) -> Self | None:
        trained, held_out = run.answers("extended"), run.answers("held_out_wordings")
        if not held_out or len(trained) != len(held_out):
            return None
        whole, families = compare_wordings(trained, held_out, run.interval_of(held_out))
        return cls(**vars(whole), families=families)

    def section(self, run: ScoredRun) -> Section:
        text = (
            f"Each of {count(self.n)} questions was asked twice: in a wording that training draws from, and in the one "
            f"that it never has. The difference is {points(self.difference)} points (95% interval "
            f"{interval(self.difference_ci95, points)}); {percent(self.same_answer)} get the same answer in both "
            "wordings."
        )
        return Section("Wordings that training never saw", text, table=self.table())

    def table(self) -> Table | None:
        return table(
            {
                "family": name,
                "held-out wording": FAMILIES[name].wordings[-1] if name in FAMILIES else "",
                "n": count(row.n),
                "trained": percent(row.trained_exact),
                "held out": percent(row.exact),
                "difference, points": points(row.difference),
                "95% interval": interval(row.difference_ci95, points),
                "same answer": percent(row.same_answer),
            }
            for name, row in (self.rows if self.families else [])
        )


def compare_wordings(
    known: Sequence[Prediction], new: Sequence[Prediction], interval_of: Bootstrap
) -> tuple[WordingPair, dict[str, WordingPair]]:
    """The same questions in two wordings, over all and by family. Intervals are those of the new wording's rows."""
    now, before = column(new, "correct"), column(known, "correct")
    pairs = zip(known, new, strict=True)
    same = np.array([is_exact(a.prediction, b.prediction) for a, b in pairs], float)

    def figures(member: np.ndarray) -> WordingPair:
        return WordingPair(
            n=int(member.sum()),
            exact=mean(now[member]),
            exact_ci95=interval_of(now, member),
            trained_exact=mean(before[member]),
            difference=mean((now - before)[member]),
            difference_ci95=interval_of(now - before, member),
            same_answer=mean(same[member]),
        )

    return figures(every(new)), by_family(new, figures, others=False)
