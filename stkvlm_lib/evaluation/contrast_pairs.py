"""Contrast pairs: whether the model has one question right about two pictures that answer it differently.

Guessing from the words gives both pictures the same answer; so does a model that always names one side.
"""

from collections.abc import Sequence
from itertools import chain
from operator import attrgetter

from stkvlm_lib.config import ScoreConfig
from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.evaluation.asking import answer_items
from stkvlm_lib.evaluation.predictions import PairPrediction
from stkvlm_lib.evaluation.question_sets import check_pictures, draw
from stkvlm_lib.grammar.questions import is_exact
from stkvlm_lib.grouping import grouped
from stkvlm_lib.qa.contrast import KINDS, ContrastItem, Pair, pairs_of, read_contrast
from stkvlm_lib.qa.qa_sets import CONTRAST, CUSTOM_SPLIT
from stkvlm_lib.vlm.features import FeatureStore


def pairs_to_ask(frames: FrameSet, config: ScoreConfig, split: str) -> list[Pair]:
    """The run's contrast pairs, EXTENDED_SCORED of each kind and family; none where it has none."""
    written = config.run_path / "qa" / CONTRAST.format(split)
    if split == CUSTOM_SPLIT or not written.exists():
        return []
    items = read_contrast(written)
    check_pictures(written, items, frames)
    of_first = {pair[0]: pair for pair in pairs_of(items)}
    return [of_first[item] for kind in KINDS for item in draw((i for i in of_first if i.kind == kind), config)]


def answer_pairs(store: FeatureStore, pairs: Sequence[Pair]) -> list[PairPrediction]:
    """Each picture, mirrored or not, is asked each question once."""
    asked = grouped(chain.from_iterable(pairs), attrgetter("image_file", "mirrored"))
    said: dict[ContrastItem, str] = {}
    for chunk, features in store.batches(asked, "pairs"):
        answers = answer_items(store.answerer, features, [asked[picture] for picture in chunk])
        said |= {item: answer.text for item, answer in answers.items()}
    return [_prediction(first, second, (said[first], said[second])) for first, second in pairs]


def _prediction(first: ContrastItem, second: ContrastItem, said: tuple[str, str]) -> PairPrediction:
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
