"""What can be reached at most: questions whose truth is in doubt, and an oracle whose boxes are a pixel off.

The course's rule decides every question, also where a box of five pixels or two centres a pixel apart decide it. Three
measures of what that costs, none of them assumed:

- pixel: questions that hang on one pixel of the rule (see question_facts);
- strict: questions that the strict rules decline, because a person could not tell the answer from the picture;
- oracle: the share of truths that stay when every edge of every box moves by up to a pixel, drawn by seed. Who knew all
  karts by name, saw every box to the pixel and knew the rule would score that.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from stkvlm_lib.config import ScoreConfig
from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.data.frames import BOX_FRAME, View
from stkvlm_lib.grammar.questions import FAMILIES, OTHER, answer, normalise, read_question
from stkvlm_lib.grammar.scene import IMAGE_SIZE, Box, read_scene
from stkvlm_lib.scores.metrics import mean
from stkvlm_lib.scores.question_facts import PIXEL, Facts
from stkvlm_lib.scores.scoring import Prediction

DRAWS = 4
"""Times the boxes of a picture are moved."""
_REACH = PIXEL * BOX_FRAME[0] // IMAGE_SIZE[0]
"""The same as PIXEL, in px of the 600x400 frame in which boxes are given."""


def score_ceiling(
    predictions: Sequence[Prediction], facts: Sequence[Facts], folder: FrameSet, config: ScoreConfig
) -> dict:
    """`ceiling`: over all questions and by family, n, exact, oracle, and for `pixel` and `strict` what doubt costs.

    Those hold doubtful, the share of questions in doubt; exact_doubtful and exact_clear, what is right of them and of
    the rest (where there are any); reach, what would be right if all clear ones were and the doubtful ones stayed as
    they are. strict also counts the reasons. Empty without a question of a known family.
    """
    known = [p.family in FAMILIES for p in predictions]
    if not any(known):
        return {}
    right = np.array([p.correct for p in predictions], float)
    oracle = oracle_rates(predictions, folder, config.seed)
    doubts = {"pixel": np.array([f.pixel > 0 for f in facts]), "strict": np.array([bool(f.declined) for f in facts])}

    def figures(member: np.ndarray) -> dict:
        row = {"n": int(member.sum()), "exact": mean(right[member]), "oracle": mean(oracle[member])}
        row |= {name: doubt_figures(doubt[member], right[member]) for name, doubt in doubts.items()}
        row["strict"]["reasons"] = _reasons([f for f, mine in zip(facts, member, strict=True) if mine])
        return row

    members = {name: np.array([p.family == name for p in predictions]) for name in FAMILIES}
    families = {name: figures(member) for name, member in members.items() if member.any()}
    return {"ceiling": figures(np.array(known)) | {"families": families}}


def doubt_figures(doubt: np.ndarray, right: np.ndarray) -> dict:
    """doubt: (N,) bool; right: (N,) 0 or 1."""
    row = {"doubtful": mean(doubt), "reach": mean(np.where(doubt, right, 1.0))}
    for name, member in (("exact_doubtful", doubt), ("exact_clear", ~doubt)):
        if member.any():
            row[name] = mean(right[member])
    return row


def _reasons(facts: Sequence[Facts]) -> dict[str, int]:
    told = [f.declined.value for f in facts if f.declined]
    return dict(Counter(told).most_common())


def oracle_rates(predictions: Sequence[Prediction], folder: FrameSet, seed: int) -> np.ndarray:
    """(N,) how often, of DRAWS, each truth stays under moved boxes; NaN for questions of no family."""
    draws: dict[str, list] = {}
    rates = []
    for p in predictions:
        family, _, names = read_question(p.question)
        if family == OTHER:
            rates.append(np.nan)
            continue
        if p.image_file not in draws:
            draws[p.image_file] = _moved_scenes(folder.by_image_file[p.image_file], seed)
        stays = [_stays(p, scene, names) for scene in draws[p.image_file]]
        rates.append(sum(stays) / DRAWS)
    return np.array(rates)


def _stays(p: Prediction, scene, names: Sequence[str]) -> bool:
    """Whether a question has its truth in a scene. A kart that has become too small to count has no place."""
    there = {kart.name for kart in scene.karts}
    return there.issuperset(names) and normalise(str(answer(p.question, scene))) == normalise(p.answer)


def _moved_scenes(view: View, seed: int) -> list:
    rng = np.random.default_rng([seed, *view.image_file.encode()])
    return [read_scene(view, _mover(rng)) for _ in range(DRAWS)]


def _mover(rng: np.random.Generator) -> Callable[[Box], Box]:
    def move(box: Box) -> Box:
        return tuple(int(v) for v in np.maximum(0, box + rng.integers(-_REACH, _REACH, 4, endpoint=True)))

    return move
