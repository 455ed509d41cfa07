"""The course's multiple choice: which of five sentences about a picture is true, by the likelihood of each.

A sentence is weighed as the answer that it states to its family's question (`tux is the ego car.` as `tux` to `What
kart is the ego car?`): the log-probability of that answer with its stop token, plus the logarithm of the number of
answers that the family has, which makes answers of different families comparable (a half is a guess between left and
right, but knowledge among 23 tracks). Sentences of no known form are weighed themselves, behind PROMPT; an item that
holds one is weighed so as a whole.

Chosen on bundled valid races with the adapter of the `cpu` profile of 2026-11-23: items right, of a run's own file (826
about 160 pictures, the sentences of an item of one kind) and of sentences of mixed kinds (842 about 200 pictures).

    the sentence behind an empty prompt                  42 %   39 %
    the sentence behind PROMPT                           45 %   42 %
      for each token                                     45 %   34 %
      less its blind log-probability                     41 %   41 %
    the answer that it states                            54 %   72 %
      less its blind log-probability                     42 %   52 %
      less 0.3 of that                                   54 %   76 %
      plus the logarithm of the number of answers        54 %   77 %

The adapter learns answers to questions, not captions; and to divide by tokens or by the blind probability favours what
is merely odd. Weighing sentences about a kart's place also by the probability that it is in view changed nothing that
shows (54 % to 54 %, with an adapter trained on such questions for a few minutes).
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from stkvlm_lib.config import ScoreConfig, resolve
from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.evaluation.asking import Blind
from stkvlm_lib.evaluation.predictions import Choice, ChoicePrediction
from stkvlm_lib.evaluation.question_sets import draw
from stkvlm_lib.files import read_json
from stkvlm_lib.grammar.captions import CANDIDATES, family_of_caption, read_caption
from stkvlm_lib.grammar.questions import FAMILIES
from stkvlm_lib.qa.qa_sets import CUSTOM_SPLIT, MULTIPLE_CHOICE, QaError, by_picture, find_view, given_items
from stkvlm_lib.vlm.answering import AnswerModel
from stkvlm_lib.vlm.features import FeatureStore, Picture

PROMPT = "Describe the picture."
FORM = f"a JSON list of image_file, candidates ({CANDIDATES} texts), correct_index"

Candidates = tuple[str, ...]
Scores = tuple[float, ...]


class Statement(NamedTuple):
    """A sentence as an answer to a question that has so many answers."""

    question: str
    answer: str
    answers: int


def read_items(path: Path, folder: FrameSet) -> list[Choice]:
    """Read a file of the course's multiple choice; pictures must lie in `folder`. Raises QaError naming the item."""
    return [_item(where, row, folder) for where, row in given_items(path, FORM)]


def _item(where: str, row: object, folder: FrameSet) -> Choice:
    if not isinstance(row, dict) or not isinstance(row.get("image_file"), str):
        raise QaError(f"{where} has no image_file (a text); give {FORM}")
    candidates, index = row.get("candidates"), row.get("correct_index")
    if not isinstance(candidates, list) or not all(isinstance(c, str) and c.strip() for c in candidates):
        raise QaError(f"{where}: candidates is not a list of texts; give {FORM}")
    if len(candidates) != CANDIDATES:
        raise QaError(f"{where} has {len(candidates)} candidates; give {CANDIDATES}")
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < CANDIDATES:
        raise QaError(f"{where}: correct_index is {index!r}; give a whole number from 0 to {CANDIDATES - 1}")
    view = find_view(where, row["image_file"], folder)
    family = family_of_caption(candidates[index])
    return Choice(view.image_file, tuple(candidates), index, family, view.frame.race, view.frame.track)


def items_to_ask(frames: FrameSet, config: ScoreConfig, split: str) -> list[Choice]:
    """The items of MC_FILE, or EXTENDED_SCORED of each kind of the run's own."""
    if config.mc_file:
        return read_items(resolve(config.mc_file), frames)
    written = config.run_path / "qa" / MULTIPLE_CHOICE.format(split)
    if split == CUSTOM_SPLIT or not written.exists() or read_json(written) == []:
        return []
    return draw(read_items(written, frames), config)


def choose(store: FeatureStore, items: Sequence[Choice], blind: Blind) -> list[ChoicePrediction]:
    """Weigh the candidates of every item with the picture and blind, in their order."""
    sets = by_picture(items)
    seen: dict[Picture, dict[Candidates, Scores]] = {}
    for chunk, features in store.batches([(name, False) for name in sets], "choose"):
        groups = [[item.candidates for item in sets[name]] for name, _ in chunk]
        seen |= zip(chunk, _weigh(store.answerer, features, groups), strict=True)
    every = sorted({item.candidates for item in items})
    unseen = _weigh(store.answerer, blind.features, [every])[0]
    return [_prediction(i, seen[i.image_file, False][i.candidates], unseen[i.candidates]) for i in items]


def _weigh(
    answerer: AnswerModel, features: torch.Tensor, groups: Sequence[Sequence[Candidates]]
) -> list[dict[Candidates, Scores]]:
    """features: (B, tokens, D); groups: B lists of items' candidates -> B dictionaries of their scores."""
    asked: list[dict[str, list[str]]] = []
    for group in groups:
        answers: dict[str, list[str]] = defaultdict(list)
        stated = [statement for candidates in group for statement in _statements(candidates)]
        for question, answer in dict.fromkeys((s.question, s.answer) for s in stated):
            answers[question].append(answer)
        asked.append(answers)
    found = answerer.likelihoods(features, [list(answers.items()) for answers in asked])
    weighed = []
    for group, answers, likely in zip(groups, asked, found, strict=True):
        known = {(q, c.text): c.log_probability for q, row in zip(answers, likely, strict=True) for c in row}
        weighed.append({candidates: _scores(candidates, known) for candidates in group})
    return weighed


@lru_cache(maxsize=1 << 14)
def _statements(candidates: Candidates) -> tuple[Statement, ...]:
    """What each candidate states; themselves behind PROMPT where one states nothing known."""
    stated = [read_caption(text) for text in candidates]
    if None in stated:
        return tuple(Statement(PROMPT, text, 1) for text in candidates)
    return tuple(Statement(question, answer, len(FAMILIES[family].answers)) for family, question, answer in stated)


def _scores(candidates: Candidates, known: dict[tuple[str, str], float]) -> Scores:
    return tuple(round(known[question, answer] + math.log(n), 4) for question, answer, n in _statements(candidates))


def _prediction(item: Choice, scores: Scores, blind: Scores) -> ChoicePrediction:
    right = item.candidates[item.correct_index]
    chosen, unseen = int(np.argmax(scores)), int(np.argmax(blind))
    return ChoicePrediction(
        **vars(item),
        chosen=chosen,
        correct=item.candidates[chosen] == right,
        scores=scores,
        blind_chosen=unseen,
        blind_correct=item.candidates[unseen] == right,
    )
