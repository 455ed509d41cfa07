"""Paired differences of settings: question by question, seed by seed, with intervals that resample whole races."""

from collections.abc import Sequence
from dataclasses import dataclass

from stkvlm_lib.analysis.comparison import Comparison as PairedFigures
from stkvlm_lib.analysis.comparison import ComparisonError, Shared, compare, share
from stkvlm_lib.analysis.intervals import Bootstrap
from stkvlm_lib.batch.results import Result, Setting
from stkvlm_lib.evaluation.predictions import HEADLINE, read_answers


@dataclass(frozen=True)
class Difference:
    """A setting less the one it is compared with. pairs: of runs. problem: why there are no figures."""

    setting: Setting
    figures: PairedFigures | None
    pairs: int = 0
    problem: str = ""


def differences(
    settings: Sequence[Setting], baseline: Setting, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Difference]:
    """Name of a setting -> its difference to the baseline, for all others."""
    others = [setting for setting in settings if setting.name != baseline.name]
    return {setting.name: difference(setting, baseline, resamples=resamples, seed=seed) for setting in others}


def difference(setting: Setting, baseline: Setting, *, resamples: int, seed: int) -> Difference:
    """Over the runs of equal seed, or over all pairs of runs where no seed is in both.

    A race is drawn with its questions of all seeds at once: it is the race that questions have in common. What other
    seeds would give is told by the spread alone.
    """
    pairs = paired_runs(setting, baseline)
    if not pairs:
        return Difference(setting, None, problem="no scored run on one of the sides")
    try:
        shared = [share(*(read_answers(run.folder / HEADLINE) for run in both)) for both in pairs]
    except (ComparisonError, OSError, ValueError) as error:
        return Difference(setting, None, problem=str(error))
    together = _together(shared)
    interval_of = Bootstrap([pair.ours for pair in together.pairs], resamples, seed)
    return Difference(setting, compare(together, interval_of), len(pairs))


def paired_runs(setting: Setting, baseline: Setting) -> list[tuple[Result, Result]]:
    """Runs of the same seed; every one with every one where there are none."""
    same = [(ours, other) for ours in setting.scored for other in baseline.scored if ours.seed == other.seed]
    return same or [(ours, other) for ours in setting.scored for other in baseline.scored]


def _together(shared: Sequence[Shared]) -> Shared:
    pairs = [pair for part in shared for pair in part.pairs]
    return Shared(
        pairs,
        sum(part.only_ours for part in shared),
        sum(part.only_other for part in shared),
        sum(part.other_truth for part in shared),
    )
