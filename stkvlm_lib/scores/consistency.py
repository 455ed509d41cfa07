"""Contrast pairs: whether the model has one question right about two pictures that answer it differently.

Guessing from the words gives both pictures the same answer; so does a model that always names one side.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from stkvlm_lib.config import ScoreConfig
from stkvlm_lib.files import write_jsonl
from stkvlm_lib.grammar.questions import FAMILIES
from stkvlm_lib.qa.contrast import KINDS, ContrastItem, Pair, pairs_of, read_contrast
from stkvlm_lib.qa.qa_sets import CONTRAST, CUSTOM_SPLIT, QaError
from stkvlm_lib.scores.extended_scores import draw, fresh
from stkvlm_lib.scores.metrics import Bootstrap, mean
from stkvlm_lib.scores.scoring import is_exact
from stkvlm_lib.vlm.features import FeatureStore, Picture


@dataclass(frozen=True)
class PairPrediction:
    """One pair answered. differ: whether its two answers do; image_file: the first picture, other_file the second."""

    pair: str
    kind: str
    family: str
    question: str
    image_file: str
    other_file: str
    answers: tuple[str, str]
    predictions: tuple[str, str]
    correct: tuple[bool, bool]
    differ: bool
    race: str
    track: str


def score_consistency(store: FeatureStore, config: ScoreConfig, split: str) -> dict:
    """`consistency`: the run's contrast pairs, EXTENDED_SCORED of each kind and family; {} where it has none."""
    written, (file,) = config.run_path / "qa" / CONTRAST.format(split), fresh(config, "consistency")
    if split == CUSTOM_SPLIT or not written.exists():
        return {}
    pairs = pairs_of(read_contrast(written))
    folder = store.frames
    strange = next((i.image_file for pair in pairs for i in pair if i.image_file not in folder.by_image_file), None)
    if strange:
        raise QaError(f"{written}: {strange} is not in {folder.root}; run notebook 02 with this FRAMES_DIR again")
    rows = answer_pairs(store, draw_pairs(pairs, config))
    write_jsonl(file, map(asdict, rows))
    kinds = {kind: [row for row in rows if row.kind == kind] for kind in KINDS}
    found = {kind: consistency(mine, config) for kind, mine in kinds.items() if any(row.differ for row in mine)}
    return {"consistency": found} if found else {}


def draw_pairs(pairs: Sequence[Pair], config: ScoreConfig) -> list[Pair]:
    """EXTENDED_SCORED pairs of each kind and family."""
    by_name = {first.pair: (first, second) for first, second in pairs}
    firsts = [[first for first, _ in pairs if first.kind == kind] for kind in KINDS]
    return [by_name[item.pair] for mine in firsts for item in draw(mine, config)]


def answer_pairs(store: FeatureStore, pairs: Sequence[Pair]) -> list[PairPrediction]:
    """Each picture, mirrored or not, is asked each question once."""
    asked: dict[Picture, dict[str, None]] = {}
    for item in (item for pair in pairs for item in pair):
        asked.setdefault((item.image_file, item.mirrored), {})[item.question] = None
    given: dict[tuple[str, bool, str], str] = {}
    for chunk, features in store.batches(asked, "pairs"):
        answers = store.answerer.answer_encoded(features, [list(asked[picture]) for picture in chunk])
        for picture, group in zip(chunk, answers, strict=True):
            given.update({(*picture, q): answer.text for q, answer in zip(asked[picture], group, strict=True)})
    return [_prediction(pair, tuple(given[i.image_file, i.mirrored, i.question] for i in pair)) for pair in pairs]


def _prediction(pair: tuple[ContrastItem, ContrastItem], said: tuple[str, str]) -> PairPrediction:
    first, second = pair
    return PairPrediction(
        pair=first.pair,
        kind=first.kind,
        family=first.family,
        question=first.question,
        image_file=first.image_file,
        other_file=second.image_file,
        answers=(first.answer, second.answer),
        predictions=said,
        correct=(is_exact(said[0], first.answer), is_exact(said[1], second.answer)),
        differ=first.answer != second.answer,
        race=first.race,
        track=first.track,
    )


def consistency(rows: Sequence[PairPrediction], config: ScoreConfig) -> dict:
    """Of the pairs whose answers differ: shares with both, the first and the second right, and the same by family.

    independent: what both right would be if a family's errors fell on the two pictures independently, the mean over
    the pairs. same: the controls, pairs with one answer to both pictures.
    """
    interval = Bootstrap(rows, config.bootstrap, config.seed)
    right = np.array([row.correct for row in rows], float)
    both, differ = right.all(1).astype(float), np.array([row.differ for row in rows])
    family = np.array([row.family for row in rows])
    independent = np.zeros(len(rows))
    for name in set(family.tolist()):
        for kind in (True, False):
            member = (family == name) & (differ == kind)
            if member.any():
                independent[member] = right[member].mean(0).prod()

    def figures(member: np.ndarray) -> dict:
        return {
            "n": int(member.sum()),
            "both": mean(both[member]),
            "both_ci95": interval(both, member),
            "first": mean(right[member, 0]),
            "second": mean(right[member, 1]),
            "independent": mean(independent[member]),
        }

    names = [name for name in FAMILIES if (differ & (family == name)).any()]
    return {
        **figures(differ),
        **({"same": figures(~differ)} if not differ.all() else {}),
        "families": {name: figures(differ & (family == name)) for name in names},
    }
