"""What the confidence is worth: reliability, and how much can be answered at a chosen error rate.

The confidence threshold is fitted on the valid split alone, on races that are not scored; test says what it is worth.
"""

from collections.abc import Sequence

import numpy as np

from stkvlm_lib.config import ScoreConfig
from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.qa.qa_sets import COURSE, Record, make_records
from stkvlm_lib.qa.training_draw import draw_pictures
from stkvlm_lib.scores.extended_scores import fresh
from stkvlm_lib.scores.metrics import Bootstrap, mean
from stkvlm_lib.scores.scoring import Prediction, predict_plain, read_known, write_predictions
from stkvlm_lib.vlm.features import FeatureStore

FIT_SPLIT = "valid"
"""The split on which the threshold is fitted, and nothing else of the score."""
BINS = 10
"""Bins of equal width, from 0 to 1, of the reliability curve."""
_STEPS = 50
"""Points of the curve of errors against coverage."""


def score_calibration(store: FeatureStore, config: ScoreConfig, predictions: Sequence[Prediction]) -> dict:
    """`calibration`: how the confidence of the scored answers compares with their being right.

    `selective`, only where there are valid races that are not scored: the threshold under which the model should rather
    not answer, fitted on CALIBRATION_VIEWS valid pictures so that at most ERROR_RATE of the answers are wrong, with its
    coverage and error there (`fit`) and on the scored questions.
    """
    figures = {**reliability(predictions, config), "curve": coverage_curve(predictions)}
    (file,) = fresh(config, FIT_SPLIT)
    records = records_to_fit(store.frames, config, predictions)
    if records:
        fitted = predict_plain(store, records, FIT_SPLIT)
        write_predictions(fitted, file)
        figures["selective"] = selective(fitted, predictions, config)
    return {"calibration": figures}


def records_to_fit(folder: FrameSet, config: ScoreConfig, scored: Sequence[Prediction]) -> list[Record]:
    """All questions about CALIBRATION_VIEWS drawn pictures of valid races that are not scored."""
    written = config.run_path / "qa" / COURSE.format(FIT_SPLIT)
    if written.exists():
        records = read_known(written, folder)
    else:
        records = make_records(folder, FIT_SPLIT) if folder.splits.get(FIT_SPLIT) else []
    races = {p.race for p in scored}
    records = [r for r in records if r.race not in races]
    drawn = set(draw_pictures((r.image_file for r in records), config.calibration_views, config.seed))
    return [r for r in records if r.image_file in drawn]


def reliability(predictions: Sequence[Prediction], config: ScoreConfig) -> dict:
    """n, mean confidence, share right, expected calibration error, and the same by bins of equal width.

    ece: mean over the questions of the distance between confidence and share right of their bin.
    """
    interval = Bootstrap(predictions, config.bootstrap, config.seed)
    sure, right = _columns(predictions)
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    bins = []
    for number in range(BINS):
        member = place == number
        if member.any():
            bins.append(
                {
                    "low": number / BINS,
                    "high": (number + 1) / BINS,
                    "n": int(member.sum()),
                    "confidence": mean(sure[member]),
                    "exact": mean(right[member]),
                    "exact_ci95": interval(right, member),
                }
            )
    ece = sum(row["n"] * abs(row["exact"] - row["confidence"]) for row in bins) / len(predictions)
    figures = {"n": len(predictions), "confidence": mean(sure), "exact": mean(right), "ece": round(ece, 6)}
    return figures | {"bins": bins}


def coverage_curve(predictions: Sequence[Prediction]) -> list[dict]:
    """Share answered and share of these wrong, if only the most confident are answered; ties are answered together."""
    counts, wrong, _ = _by_confidence(predictions)
    wanted = np.unique(np.linspace(1, len(predictions), _STEPS).round())
    ends = np.unique(np.searchsorted(counts, wanted))
    return [{"coverage": round(counts[i] / len(predictions), 6), "error": round(wrong[i] / counts[i], 6)} for i in ends]


def selective(fitted: Sequence[Prediction], scored: Sequence[Prediction], config: ScoreConfig) -> dict:
    """The threshold fitted on one set of answers and what it gives on another. See `fit_threshold`."""
    threshold = fit_threshold(fitted, config.error_rate)
    interval = Bootstrap(scored, config.bootstrap, config.seed)
    sure, right = _columns(scored)
    answered = sure >= (np.inf if threshold is None else threshold)
    found = {
        "error_rate": config.error_rate,
        "threshold": threshold,
        "coverage": mean(answered),
        "coverage_ci95": interval(answered.astype(float)),
        "fit": _at(fitted, threshold),
        "n": len(scored),
    }
    if answered.any():
        found |= {"error": mean(1 - right[answered]), "error_ci95": interval(1 - right, answered)}
    return found


def fit_threshold(predictions: Sequence[Prediction], error_rate: float) -> float | None:
    """The lowest confidence from which on at most `error_rate` of the answers are wrong; None where there is none."""
    counts, wrong, levels = _by_confidence(predictions)
    kept = np.flatnonzero(wrong <= error_rate * counts + 1e-9)
    return float(levels[kept[-1]]) if len(kept) else None


def _at(predictions: Sequence[Prediction], threshold: float | None) -> dict:
    sure, right = _columns(predictions)
    answered = sure >= (np.inf if threshold is None else threshold)
    error = {"error": mean(1 - right[answered])} if answered.any() else {}
    return {"n": len(predictions), "coverage": mean(answered), **error}


def _by_confidence(predictions: Sequence[Prediction]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From the most confident on, at each level of confidence: answers so far, wrong ones so far, and the level."""
    sure, right = _columns(predictions)
    order = np.argsort(-sure, kind="stable")
    sure, wrong = sure[order], np.cumsum(1 - right[order])
    last = np.append(sure[:-1] != sure[1:], True)
    return np.flatnonzero(last) + 1, wrong[last], sure[last]


def _columns(predictions: Sequence[Prediction]) -> tuple[np.ndarray, np.ndarray]:
    """(N,) confidences and (N,) 1 where right, else 0."""
    return np.array([p.confidence for p in predictions]), np.array([p.correct for p in predictions], float)
