"""Paired differences of settings: question by question, seed by seed, with intervals that resample whole races."""

from stkvlm_lib.analysis.comparison import Comparison as PairedFigures
from stkvlm_lib.analysis.comparison import ComparisonError, Shared, compare, share
from stkvlm_lib.analysis.intervals import Bootstrap
from stkvlm_lib.batch.results import Result, Setting
from stkvlm_lib.evaluation.predictions import HEADLINE, read_answers


def difference(setting: Setting, baseline: Setting, *, resamples: int, seed: int) -> PairedFigures:
    """A setting less another, over the runs of equal seed, or over all pairs of runs where no seed is in both.

    A race is drawn with its questions of all seeds at once: it is the race that questions have in common. What other
    seeds would give is told by the spread alone. Raises OSError or ValueError where there is nothing to compare.
    """
    paired = paired_runs(setting, baseline)
    if not paired:
        raise ComparisonError("no scored run on one of the sides")
    shared = [share(*(read_answers(run.folder / HEADLINE) for run in both)) for both in paired]
    pairs = [pair for part in shared for pair in part.pairs]
    interval_of = Bootstrap([pair.ours for pair in pairs], resamples, seed)
    return compare(Shared(pairs, only_ours=0, only_other=0, other_truth=0), interval_of)


def paired_runs(setting: Setting, baseline: Setting) -> list[tuple[Result, Result]]:
    """Runs of the same seed; every one with every one where there are none."""
    every = [(ours, other) for ours in setting.scored for other in baseline.scored]
    return [(ours, other) for ours, other in every if ours.seed == other.seed] or every
