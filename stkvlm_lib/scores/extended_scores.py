"""What is scored beside the headline and by itself: the extended families, held-out wordings, unseen line-ups.

None of it enters the ten forms' figures. Each function writes its answers to `predictions_<name>.jsonl` and returns its
part of metrics.json, empty where the run has nothing to score.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from stkvlm_lib.config import ScoreConfig
from stkvlm_lib.grammar.families import EXTENDED as EXTENDED_GROUP
from stkvlm_lib.grammar.families import pick
from stkvlm_lib.grammar.questions import FAMILIES, normalise, read_question
from stkvlm_lib.qa.qa_sets import COURSE, CUSTOM_SPLIT, EXTENDED, Record, make_records
from stkvlm_lib.scores.metrics import Bootstrap, mean, score
from stkvlm_lib.scores.scoring import Blind, Prediction, draw_views, predict, read_known, write_predictions
from stkvlm_lib.vlm.features import FeatureStore

T = TypeVar("T")

PREDICTIONS = "predictions_{}.jsonl"
FURTHER_SPLITS = ("test_unseen",)
"""Splits that are scored by themselves where the data have them."""


def score_extended(store: FeatureStore, config: ScoreConfig, split: str, blind: Blind) -> dict:
    """`extended` and `held_out_wordings`: the run's extended questions of a split, EXTENDED_SCORED of each family.

    Each question is asked in a wording that training draws from, and again in the one it never has.
    """
    written, files = config.run_path / "qa" / EXTENDED.format(split), fresh(config, "extended", "held_out_wordings")
    if split == CUSTOM_SPLIT or not written.exists():
        return {}
    records = draw(read_known(written, store.frames), config)
    if not records:
        return {}
    asked = [reworded(r, trained_wording(r, config.seed)) for r in records]
    asked += [reworded(r, FAMILIES[r.family].held_out) for r in records]
    rows, _ = predict(store, asked, blind, base_too=False, label="extended")
    trained, held_out = rows[: len(records)], rows[len(records) :]
    for predictions, file in zip((trained, held_out), files, strict=True):
        write_predictions(predictions, file)
    mine = [p for p in trained if FAMILIES[p.family].group == EXTENDED_GROUP]
    figures = {"extended": score(mine, resamples=config.bootstrap, seed=config.seed)} if mine else {}
    return figures | {"held_out_wordings": compare_wordings(trained, held_out, config)}


def fresh(config: ScoreConfig, *names: str) -> list[Path]:
    """The files for answers, without those of an earlier scoring."""
    files = [config.run_path / PREDICTIONS.format(name) for name in names]
    for file in files:
        file.unlink(missing_ok=True)
    return files


def draw(items: Iterable[T], config: ScoreConfig) -> list[T]:
    """EXTENDED_SCORED items of each family in the order of `items`, the same ones for any order."""
    items, families = list(items), defaultdict(list)
    for number, item in enumerate(items):
        families[item.family].append((pick(1 << 64, "scored", config.seed, str(item)), number))
    kept = {number for ranks in families.values() for _, number in sorted(ranks)[: config.extended_scored or None]}
    return [item for number, item in enumerate(items) if number in kept]


def trained_wording(record: Record, seed: int) -> int:
    """The record's own wording where training draws from it, else one of those that it draws from."""
    if not record.held_out:
        return record.wording
    return pick(FAMILIES[record.family].held_out, "trained", seed, record.image_file, record.question)


def reworded(record: Record, wording: int) -> Record:
    """The same question in another wording of its family."""
    family, _, names = read_question(record.question)
    return replace(record, question=FAMILIES[family].write(wording, names), wording=wording)


def compare_wordings(trained: Sequence[Prediction], held_out: Sequence[Prediction], config: ScoreConfig) -> dict:
    """Shares right of the same questions in both wordings, and how often both get the same answer.

    exact: in the held-out wording. difference: held out less trained, paired by question. Intervals resample races.
    """
    interval = Bootstrap(held_out, config.bootstrap, config.seed)
    new, old = (np.array([p.correct for p in rows], float) for rows in (held_out, trained))
    same = np.array(
        [normalise(a.prediction) == normalise(b.prediction) for a, b in zip(trained, held_out, strict=True)], float
    )

    def figures(member: np.ndarray) -> dict:
        return {
            "n": int(member.sum()),
            "exact": mean(new[member]),
            "exact_ci95": interval(new, member),
            "trained_exact": mean(old[member]),
            "difference": mean((new - old)[member]),
            "difference_ci95": interval(new - old, member),
            "same_answer": mean(same[member]),
        }

    families = {}
    for name in FAMILIES:
        member = np.array([p.family == name for p in held_out])
        if member.any():
            families[name] = figures(member)
    return {**figures(np.ones(len(new), bool)), "families": families}


def score_further_splits(store: FeatureStore, config: ScoreConfig, split: str, blind: Blind) -> dict:
    """`other_splits`: the ten forms about the splits in FURTHER_SPLITS, each by itself."""
    found = {}
    for name, file in zip(FURTHER_SPLITS, fresh(config, *FURTHER_SPLITS), strict=True):
        written = config.run_path / "qa" / COURSE.format(name)
        if split in (CUSTOM_SPLIT, name):
            continue
        if written.exists():
            records = read_known(written, store.frames)
        else:
            records = make_records(store.frames, name) if name in store.frames.splits else []
        if not records:
            continue
        records = draw_views(records, config.test_views)
        rows, _ = predict(store, records, blind, base_too=False, label=name)
        write_predictions(rows, file)
        found[name] = score(rows, resamples=config.bootstrap, seed=config.seed)
    return {"other_splits": found} if found else {}
