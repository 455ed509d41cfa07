"""Sets of questions that are scored by themselves: the families beside the course's ten, and line-ups never seen."""

from dataclasses import dataclass
from typing import ClassVar, Self

from stkvlm_lib.analysis.accuracy import Accuracy, Score, accuracy_chart, score, score_alt, score_table
from stkvlm_lib.analysis.scored_run import Analysis, ScoredRun
from stkvlm_lib.analysis.sections import Section, Shown, Table, table
from stkvlm_lib.evaluation.question_sets import FURTHER_SPLITS
from stkvlm_lib.grammar.families import EXTENDED as EXTENDED_GROUP
from stkvlm_lib.grammar.questions import FAMILIES
from stkvlm_lib.number_text import count, interval, percent


class Extended(Score, Analysis):
    """The families beside the ten forms, in wordings that training draws from."""

    KEY: ClassVar[str] = "extended"

    @classmethod
    def measure(cls, run: ScoredRun) -> Self | None:
        asked = run.answers("extended")
        mine = [p for p in asked if p.family in FAMILIES and FAMILIES[p.family].group == EXTENDED_GROUP]
        return cls(**vars(score(mine, run.interval_of(mine)))) if mine else None

    def section(self, run: ScoredRun) -> Section:
        text = (
            "Questions of families beside the course's ten, under the strict rules and balanced; no part of the scores "
            f"above. {percent(self.exact)} of {count(self.n)} are answered exactly right (95% interval "
            f"{interval(self.exact_ci95)}), {percent(self.macro_exact)} in the mean over the families."
        )
        caption = "Extended questions answered exactly right, by family, with 95% intervals and two baselines."
        chart = Shown("score_extended", accuracy_chart(self), caption, score_alt(self))
        return Section("Extended questions", text, [chart], score_table(self))


@dataclass(frozen=True)
class UnseenLineUps(Analysis):
    """splits: races in which no kart drives a track that it drives in training, by split."""

    KEY: ClassVar[str] = "other_splits"
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
        return table(
            {
                "family": name,
                "n": count(row.n),
                "exact": percent(row.exact),
                "95% interval": interval(row.exact_ci95),
                run.split: percent(usual[name].exact if name in usual else None),
                "majority": percent(row.majority),
                "blind": percent(row.blind),
            }
            for name, row in self.splits[split].rows
        )
