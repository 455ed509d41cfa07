"""What the confidence is worth: reliability, and how much can be answered at a chosen error rate.

The confidence threshold is fitted on valid races alone, which are not scored; the scored ones say what it is worth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stkvlm_lib.analysis.intervals import Bootstrap, column, mean
from stkvlm_lib.analysis.measured import Interval, Measured
from stkvlm_lib.analysis.scored_run import Analysis, ScoredRun
from stkvlm_lib.analysis.sections import Section, Shown, Table, listed, table_of
from stkvlm_lib.evaluation.predictions import Prediction
from stkvlm_lib.evaluation.question_sets import FIT_SPLIT
from stkvlm_lib.figures.style import BLACK, BLUE, GREY, ORANGE, VERMILLION, WIDTH, Chart, as_percent, plain
from stkvlm_lib.number_text import number, percent

BINS = 10
"""Bins of equal width, from 0 to 1, of the reliability curve."""
_STEPS = 50
"""Points of the curve of errors against coverage."""


@dataclass(frozen=True)
class Bin(Measured):
    """Answers of about the same confidence: their mean confidence, and the share of them that is right."""

    low: float
    high: float
    n: int
    confidence: float
    exact: float
    exact_ci95: Interval | None = None


@dataclass(frozen=True)
class CurvePoint(Measured):
    """If only the most confident are answered: share answered, and share of these wrong."""

    coverage: float
    error: float


@dataclass(frozen=True)
class Coverage(Measured):
    """What a threshold gives on some answers; error is None where it answers nothing."""

    n: int
    coverage: float
    error: float | None = None
    coverage_ci95: Interval | None = None
    error_ci95: Interval | None = None


@dataclass(frozen=True)
class Selective(Coverage):
    """What the threshold gives on the scored answers, and on those where it is fitted so that at most `error_rate` of
    the answers are wrong. threshold: None where no confidence is enough."""

    error_rate: float = 0.0
    threshold: float | None = None
    fit: Coverage | None = None


@dataclass(frozen=True)
class Calibration(Analysis):
    """ece: mean over the questions of the distance between confidence and share right of their bin. selective: only
    where there are valid races that are not scored."""

    KEY: ClassVar[str] = "calibration"

    n: int
    confidence: float
    exact: float
    ece: float
    bins: list[Bin]
    curve: list[CurvePoint] | None = None
    selective: Selective | None = None

    @classmethod
    def measure(cls, run: ScoredRun) -> Self:
        found, fitted = reliability(run.predictions, run.interval), run.answers(FIT_SPLIT)
        chosen = selective(fitted, run.predictions, run.settings.error_rate, run.interval) if fitted else None
        return cls(**vars(found) | {"curve": coverage_curve(run.predictions), "selective": chosen})

    def section(self, run: ScoredRun) -> Section:
        caption = "Accuracy against confidence, and errors against the share of questions answered."
        alt = listed("Accuracy by confidence", ((_span(row), percent(row.exact)) for row in self.bins))
        chart = Shown("score_calibration", calibration_chart(self), caption, alt)
        title = "What the confidence is worth"
        return Section(title, self.words(), [chart], self.selective_table(run.split), [self.table()])

    def words(self) -> str:
        text = (
            f"The mean confidence is {percent(self.confidence)}, and {percent(self.exact)} of the answers are right; "
            f"the expected calibration error is {percent(self.ece)}."
        )
        chosen = self.selective
        if not chosen:
            return f"{text} There are no valid races beside those scored, so no threshold for answering was fitted."
        rate = percent(chosen.error_rate)
        if chosen.threshold is None:
            return f"{text} No confidence keeps the errors on valid races at {rate}."
        return (
            f"{text} Answering only from the confidence on that kept the errors on valid races at {rate}, it answers "
            f"{percent(chosen.coverage)} of the scored questions, and {percent(chosen.error)} of these wrong."
        )

    def table(self) -> Table | None:
        """Share right by confidence."""
        columns = {"n": "n", "mean confidence": "confidence", "exact": "exact", "95% interval": "exact_ci95"}
        rows = ((_span(row), row) for row in self.bins)
        return table_of("confidence", rows, columns, "Accuracy by confidence, as text")

    def selective_table(self, split: str) -> Table | None:
        """What answering only above the threshold gives on the races where it was fitted, and on those scored."""
        chosen = self.selective
        if not chosen:
            return None
        sets = [("valid, where the threshold is fitted", chosen.fit)] if chosen.fit else []
        columns = {"n": "n", "confidence from": lambda _: number(chosen.threshold, 3), "answered": "coverage"}
        columns |= {"wrong": "error", "95% interval": "error_ci95", "aim": lambda _: percent(chosen.error_rate)}
        return table_of("answers", [*sets, (f"{split}, scored", chosen)], columns)


def _span(row: Bin) -> str:
    return f"{percent(row.low)} to {percent(row.high)}"


def reliability(predictions: Sequence[Prediction], interval_of: Bootstrap) -> Calibration:
    """n, mean confidence, share right, expected calibration error, and the same by bins of equal width."""
    sure, right = _columns(predictions)
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    bins = []
    for low in np.unique(place).tolist():
        member = place == low
        found = interval_of.means(member, "exact", exact=right, confidence=sure)
        bins.append(Bin(low=low / BINS, high=(low + 1) / BINS, **found))
    ece = sum(row.n * abs(row.exact - row.confidence) for row in bins) / len(predictions)
    return Calibration(len(predictions), mean(sure), mean(right), round(ece, 6), bins)


def coverage_curve(predictions: Sequence[Prediction]) -> list[CurvePoint]:
    """Share answered and share of these wrong, if only the most confident are answered; ties are answered together."""
    counts, wrong, _ = _by_confidence(predictions)
    wanted = np.unique(np.linspace(1, len(predictions), _STEPS).round())
    ends = np.unique(np.searchsorted(counts, wanted))
    shares = ((counts[i] / len(predictions), wrong[i] / counts[i]) for i in ends)
    return [CurvePoint(round(float(answered), 6), round(float(error), 6)) for answered, error in shares]


def selective(
    fitted: Sequence[Prediction], scored: Sequence[Prediction], error_rate: float, interval_of: Bootstrap
) -> Selective:
    """The threshold fitted on one set of answers and what it gives on another. See `fit_threshold`.

    interval_of: over the scored answers.
    """
    threshold = fit_threshold(fitted, error_rate)
    found = _coverage(scored, threshold, interval_of)
    return Selective(**vars(found), error_rate=error_rate, threshold=threshold, fit=_coverage(fitted, threshold))


def fit_threshold(predictions: Sequence[Prediction], error_rate: float) -> float | None:
    """The lowest confidence from which on at most `error_rate` of the answers are wrong; None where there is none."""
    counts, wrong, levels = _by_confidence(predictions)
    kept = np.flatnonzero(wrong <= error_rate * counts + 1e-9)  # 0.07 * 100 is a little more than 7, others less
    return float(levels[kept[-1]]) if len(kept) else None


def _coverage(
    predictions: Sequence[Prediction], threshold: float | None, interval_of: Bootstrap | None = None
) -> Coverage:
    """Those of at least the threshold's confidence are answered; none where there is no threshold."""
    sure, right = _columns(predictions)
    answered = sure >= (np.inf if threshold is None else threshold)
    ends = (interval_of(answered.astype(float)), interval_of(1 - right, answered)) if interval_of else ()
    return Coverage(len(predictions), mean(answered), mean(1 - right[answered]), *ends)


def _by_confidence(predictions: Sequence[Prediction]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From the most confident on, at each level of confidence: answers so far, wrong ones so far, and the level."""
    sure, right = _columns(predictions)
    order = np.argsort(-sure, kind="stable")
    sure, wrong = sure[order], np.cumsum(1 - right[order])
    last = np.append(sure[:-1] != sure[1:], True)
    return np.flatnonzero(last) + 1, wrong[last], sure[last]


def _columns(predictions: Sequence[Prediction]) -> tuple[np.ndarray, np.ndarray]:
    """(N,) confidences and (N,) 1 where right, else 0."""
    return column(predictions, "confidence"), column(predictions, "correct")


def calibration_chart(figures: Calibration) -> Figure:
    """Above: share right against confidence. Below: errors against coverage, with the point fitted on valid races."""
    chart = Chart(figsize=(WIDTH, 7.6), layout="constrained")
    above, below = chart.subplots(2, 1)
    _draw_reliability(above, figures)
    _draw_coverage(below, figures)
    for axis in (above.xaxis, above.yaxis, below.xaxis, below.yaxis):
        axis.set_major_formatter(as_percent)
    return chart


def _draw_reliability(axes: Axes, figures: Calibration) -> None:
    most = max(row.n for row in figures.bins)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    axes.text(0.98, 0.3, "dashed: right as often\nas it is sure", color="#666666", fontsize=8, ha="right")
    for row in figures.bins:
        width, height = row.high - row.low, 0.16 * row.n / most
        axes.bar(row.low, height, width, align="edge", color="#DDDDDD", edgecolor="white", zorder=0)
        if row.exact_ci95:
            axes.plot([row.confidence] * 2, row.exact_ci95, color=BLUE, **_INTERVAL)
        axes.plot(row.confidence, row.exact, "o", color=BLUE, markersize=5.5, clip_on=False, zorder=4)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    title = f"Reliability: expected calibration error {percent(figures.ece)}"
    plain(axes, title, f"confidence of the answer (n = {figures.n:,}; grey: how many)", "answered exactly right")


_INTERVAL = {"linewidth": 4, "alpha": 0.4, "solid_capstyle": "butt"}


def _draw_coverage(axes: Axes, figures: Calibration) -> None:
    curve, chosen = figures.curve or [], figures.selective
    axes.plot([row.coverage for row in curve], [row.error for row in curve], color=BLUE, linewidth=1.8)
    errors = [row.error for row in curve] or [0.1]
    told = "(no threshold: no valid races beside those scored)"
    if chosen:
        axes.axhline(chosen.error_rate, color=BLACK, linewidth=1, linestyle=":")
        beside = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 8}  # where no curve is
        axes.text(1.01, chosen.error_rate, f"chosen: {chosen.error_rate:.0%}", **beside)
        errors += [chosen.error_rate, *(chosen.error_ci95 or ())]
        told = _chosen_points(axes, chosen)
    axes.set(xlim=(0, 1.0), ylim=(0, 1.12 * max(errors) or 0.1))
    axes.yaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
    label = f"questions answered, the surest first (n = {figures.n:,})"
    plain(axes, f"Wrong among the answers given\n{told}", label, "of these wrong")


def _chosen_points(axes: Axes, chosen: Selective) -> str:
    """Mark what the threshold gives on both sets; -> the same in words."""
    if chosen.threshold is None:
        return f"No confidence keeps the errors on valid races at {chosen.error_rate:.0%}"
    if fit := chosen.fit:
        hollow = {"markerfacecolor": "white", "color": ORANGE, "markersize": 7, "markeredgewidth": 1.8}
        axes.plot(fit.coverage, fit.error, "D", **hollow, label=f"valid, where it is fitted (n = {fit.n:,})")
    if chosen.error is None:
        return f"No answer is as sure as the threshold {chosen.threshold:.2f}"
    if chosen.error_ci95:
        axes.plot([chosen.coverage] * 2, chosen.error_ci95, color=VERMILLION, **_INTERVAL)
    label = f"scored (n = {chosen.n:,}), 95% interval"
    axes.plot(chosen.coverage, chosen.error, "o", color=VERMILLION, markersize=7, label=label)
    axes.legend(loc="upper left", frameon=False, fontsize=8)
    answered, wrong = f"{chosen.coverage:.0%} answered", f"{percent(chosen.error)} wrong"
    return f"Confidence from {chosen.threshold:.2f}: {answered}, {wrong}"
