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
    """A setting less the one it is compared with. problem: why there are no figures."""

    figures: PairedFigures | None
    problem: str = ""


def differences(settings: Sequence[Setting], baseline: Setting, *, resamples: int, seed: int) -> dict[str, Difference]:
    """Name of a setting -> its difference to the baseline, for all others."""
    others = [setting for setting in settings if setting.name != baseline.name]
    return {setting.name: difference(setting, baseline, resamples=resamples, seed=seed) for setting in others}


def difference(setting: Setting, baseline: Setting, *, resamples: int, seed: int) -> Difference:
    """Over the runs of equal seed, or over all pairs of runs where no seed is in both.

    A race is drawn with its questions of all seeds at once: it is the race that questions have in common. What other
    seeds would give is told by the spread alone.
    """
    paired = paired_runs(setting, baseline)
    if not paired:
        return Difference(None, "no scored run on one of the sides")
    try:
        shared = [share(*(read_answers(run.folder / HEADLINE) for run in both)) for both in paired]
    except (ComparisonError, OSError, ValueError) as error:
        return Difference(None, str(error))
    pairs = [pair for part in shared for pair in part.pairs]
    interval_of = Bootstrap([pair.ours for pair in pairs], resamples, seed)
    return Difference(compare(Shared(pairs, only_ours=0, only_other=0, other_truth=0), interval_of))


def paired_runs(setting: Setting, baseline: Setting) -> list[tuple[Result, Result]]:
    """Runs of the same seed; every one with every one where there are none."""
    same = [(ours, other) for ours in setting.scored for other in baseline.scored if ours.seed == other.seed]
    return same or [(ours, other) for ours in setting.scored for other in baseline.scored]
