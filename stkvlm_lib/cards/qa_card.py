"""The card of a run's questions: counts, families, rules, balance, what can be guessed, label error, known limits."""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stkvlm_lib.config import STEPS, QaConfig
from stkvlm_lib.grammar.questions import FAMILIES
from stkvlm_lib.grammar.scene import COURSE_RULES, STRICT_RULES
from stkvlm_lib.markdown import table
from stkvlm_lib.parameters import upper
from stkvlm_lib.qa.blind import Guess
from stkvlm_lib.qa.generate import Plan, Tally
from stkvlm_lib.qa.label_check import MarksByOrigin, label_error, label_errors
from stkvlm_lib.qa.leaks import Comparison
from stkvlm_lib.qa.qa_sets import total
from stkvlm_lib.templates import render


@dataclass(frozen=True)
class Facts:
    """What a card tells. shown: the split of which balance and guesses are told."""

    tallies: dict[str, Tally]
    plan: Plan
    shown: str
    comparisons: Sequence[Comparison] = ()
    guesses: Sequence[Guess] = ()
    extended_guesses: Sequence[Guess] = ()
    marks: MarksByOrigin = MarksByOrigin()


def make_card(facts: Facts, title: str, command: str) -> str:
    """The card as Markdown. command: what makes these files."""
    tallies, tally = facts.tallies.values(), facts.tallies[facts.shown]
    declined = decline_rows(facts.tallies)
    considered = sum(total(t.candidates) + total(t.declined) for t in tallies)
    return render(
        Path(__file__).with_name("qa_card_template.md"),
        title=title,
        command=command,
        questions=f"{sum(t.questions for t in tallies):,}",
        pictures=f"{sum(t.pictures for t in tallies):,}",
        counts=table(count_rows(facts.tallies), right=True),
        choices=f"{sum(t.choices for t in tallies):,}",
        contrast=f"{sum(t.contrast for t in tallies):,}",
        wordings=len(FAMILIES["ego"].wordings),
        families=table(family_rows()),
        course=COURSE_RULES,
        strict=STRICT_RULES,
        considered=f"{considered:,}",
        declined_share=f"{sum(total(t.declined) for t in tallies) / max(1, considered):.0%}",
        declined=table(declined, right=True),
        ratio=facts.plan.ratio,
        shown=facts.shown,
        balance=table(balance_rows(tally), right=True),
        blind=table((guess.row() for guess in facts.guesses), right=True),
        blind_extended=table((guess.row() for guess in facts.extended_guesses), right=True),
        drawn=label_error(facts.marks.drawn),
        chosen=label_error(facts.marks.chosen),
        outdated=label_error(facts.marks.outdated),
        label_errors=table((found.row() for found in label_errors(facts.marks)), right=True),
        leaks=table((found.row() for found in facts.comparisons), right=True) or "There is only one split.",
    )


def notebook_command(config: QaConfig) -> str:
    """The command that makes these files, with the parameters that are not at their defaults."""
    default = upper(QaConfig(run_dir=config.run_dir))
    given = {name: value for name, value in upper(config).items() if value != default[name]}
    pairs = [word for name, value in given.items() for word in ("-p", name, str(value))]
    words = ["papermill", "-k", "python3", f"notebooks/{STEPS['02'][0]}.ipynb", "out.ipynb", *pairs]
    return f".venv/bin/{shlex.join(words)}"


def count_rows(tallies: dict[str, Tally]) -> list[dict]:
    """Written questions of each family: those of the ten forms and the extended ones of each split."""
    sets = {
        f"{split}, {kind}": {**{name: sum(answers.values()) for name, answers in counts.items()}, "all": total(counts)}
        for split, tally in tallies.items()
        for kind, counts in (("course", tally.course), ("extended", tally.extended))
    }
    rows = (*FAMILIES, "all")
    return [{"family": name, **{label: counts.get(name, "–") for label, counts in sets.items()}} for name in rows]


def family_rows() -> list[dict]:
    """Every family with its template and answers."""
    return [
        {
            "family": family.name,
            "group": family.group,
            "question": family.template,
            "answers": len(family.answers),
            "such as": ", ".join(family.answers[:4]) + (", …" if len(family.answers) > 4 else ""),
        }
        for family in FAMILIES.values()
    ]


def wording_rows() -> list[dict]:
    """Every family's wordings; the held-out one last."""
    return [
        {
            "family": family.name,
            "template": family.template,
            "paraphrases in train": " · ".join(family.paraphrases[:-1]),
            "held out": family.paraphrases[-1],
        }
        for family in FAMILIES.values()
    ]


def balance_rows(tally: Tally) -> list[dict]:
    """Number of questions and share of the most frequent answer of each family before and after balancing."""
    return [
        {
            "family": name,
            "answers": len(before),
            "questions before": sum(before.values()),
            "after": sum(tally.extended[name].values()),
            "most frequent answer": next(iter(before)),
            "its share before": f"{_top(before):.0%}",
            "highest share after": f"{_top(tally.extended[name]):.0%}",
        }
        for name in FAMILIES
        if (before := tally.candidates.get(name))
    ]


def decline_rows(tallies: dict[str, Tally]) -> list[dict]:
    """Extended questions declined for each reason, with the families that it concerns most."""
    reasons: dict[str, Counter] = {}
    for tally in tallies.values():
        for family, counts in tally.declined.items():
            for reason, n in counts.items():
                reasons.setdefault(reason, Counter())[family] += n
    ranked = sorted(reasons.items(), key=lambda item: (-item[1].total(), item[0]))
    return [
        {
            "reason": reason,
            "questions": counts.total(),
            "most in": ", ".join(f"{family} {n:,}" for family, n in counts.most_common(4)),
        }
        for reason, counts in ranked
    ]


def _top(counts: dict[str, int]) -> float:
    return max(counts.values()) / sum(counts.values())
