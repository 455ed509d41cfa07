"""Questions put to a model by hand: what a view can be asked, the live answer with its rivals, and the label."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cachetools import LRUCache

from stkvlm_lib.data.frames import View
from stkvlm_lib.explore.own_picture import is_own
from stkvlm_lib.explore.understanding import UNKNOWN_MEANS, Understood, is_unknown, understand
from stkvlm_lib.grammar.families import COURSE
from stkvlm_lib.grammar.questions import FAMILIES, answer, normalise
from stkvlm_lib.grammar.scene import STRICT_RULES, Reason, read_scene

if TYPE_CHECKING:  # importing these takes seconds, which looking at pictures need not wait for
    import torch

    from stkvlm_lib.vlm.answering import Answer, AnswerModel

ENCODED_PICTURES = 16
"""How many pictures stay encoded, those asked about last."""
LONGEST_QUESTION = 1000
"""Characters; a longer text is no question, and would keep the model busy for minutes."""
LEAST_SHOWN = 0.005
"""Other answers that are less likely are not shown in a terminal."""
NO_MODEL = (
    "No model is loaded, so nothing can be asked. Open the explorer with a model: explore(frames, qa, model=...), "
    "or run ./run_all.sh first and then ./run_all.sh explore."
)


class AskError(ValueError):
    """A question that cannot be answered here; the message says why and what to do."""


@dataclass(frozen=True)
class Label:
    """What the labels say of a question: an answer under a set of rules, or why there is none."""

    answer: str = ""
    rules: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Reply:
    """A model's answer to a question, and how that was understood.

    rivals: the answers of the family's set, likeliest first; empty where the wording is of no known kind. seconds: for
    all of it; encoding: of these, for the picture, 0 where it was still encoded.
    """

    question: str
    understood: Understood
    answer: "Answer"
    rivals: tuple["Answer", ...]
    label: Label
    seconds: float
    encoding: float


class Asker:
    """Asks a model about views. The last pictures stay encoded between questions.

    model: an answering model, or a function that loads it at the first question; None: every question is refused.
    """

    def __init__(self, model: "AnswerModel | Callable[[], AnswerModel] | None"):
        self._model = model
        self._encoded: LRUCache[str, torch.Tensor] = LRUCache(ENCODED_PICTURES)
        self.lock = threading.RLock()
        """Held while the model computes: an occlusion map may be in the making in another thread."""

    @property
    def has_model(self) -> bool:
        return self._model is not None

    @property
    def is_loaded(self) -> bool:
        return self._model is not None and not callable(self._model)

    @property
    def model(self) -> "AnswerModel":
        """The model, loaded now if it is not yet. Raises AskError."""
        with self.lock:
            if self._model is None:
                raise AskError(NO_MODEL)
            if not self.is_loaded:
                try:
                    self._model = self._model()
                except (ValueError, OSError) as error:
                    raise AskError(f"The model cannot be loaded. {error}") from error
            return self._model

    def ask(self, view: View, question: str) -> Reply:
        """Answer a question about a view. Raises AskError where there is no model, no question or no end of it."""
        question = " ".join(question.split())
        if not question:
            raise AskError("There is no question yet. Type one, or choose a kind of question above.")
        if len(question) > LONGEST_QUESTION:
            raise AskError(
                f"The question has {len(question):,} characters; shorten it to at most {LONGEST_QUESTION:,}."
            )
        model, begin = self.model, time.perf_counter()
        with self.lock:
            features, encoding = self.encode(view)
            understood, given, rivals = put(model, features, question)
        seconds = time.perf_counter() - begin
        return Reply(question, understood, given, rivals, label_of(view, understood), seconds, encoding)

    def encode(self, view: View) -> tuple["torch.Tensor", float]:
        """Image tokens (1, tokens, D) of a view, and the seconds that took: 0 where they were still there."""
        with self.lock:
            if view.image_file in self._encoded:
                return self._encoded[view.image_file], 0.0
            begin = time.perf_counter()
            features = self._encoded[view.image_file] = self.model.encode([view.image()])
            return features, time.perf_counter() - begin


def put(
    model: "AnswerModel", features: "torch.Tensor", question: str
) -> tuple[Understood, "Answer", tuple["Answer", ...]]:
    """How a model understands a question, what it answers, and the answers of the family's set, likeliest first (none
    where the question is of no known kind). features: (1, tokens, D) of the picture."""
    from stkvlm_lib.vlm.answering import ranked

    given = model.answer_encoded(features, [[question]])[0][0]
    understood = understand(question, lambda words: model.understood(features, words))
    if not understood.is_known:
        return understood, given, ()
    asked = [[(question, FAMILIES[understood.family].answers)]]
    return understood, given, tuple(ranked(model.likelihoods(features, asked)[0][0]))


def in_lines(understood: Understood, given: "Answer", rivals: Iterable["Answer"]) -> list[str]:
    """An answer as a terminal shows it: with a percentage only where it means something, what was understood, and the
    likeliest other answers."""
    if is_unknown(given.text):
        return [f"{given.text}: {UNKNOWN_MEANS}"]
    if not understood.is_known:
        return [f"{given.text}  (a guess: the question is of no kind that this model was made for)"]
    others = [a for a in rivals if normalise(a.text) != normalise(given.text) and a.confidence >= LEAST_SHOWN][:3]
    lines = [f"{given.text}  (confidence {given.confidence:.0%})", f"understood as: {understood.question}"]
    return lines + ([f"or: {', '.join(f'{a.text} {a.confidence:.0%}' for a in others)}"] if others else [])


def suggestions(view: View, family: str) -> list[str]:
    """What a family can ask about a view, in the wording of its template; names karts in view where it names any."""
    kind, scene = FAMILIES[family], read_scene(view)
    if kind.needs_ego and scene.ego is None:
        return []
    subjects = kind.subjects(scene, lambda n, *key: 0)
    return list(dict.fromkeys(kind.write(0, [kart.name for kart in subject]) for subject in subjects))


def label_of(view: View, asked: Understood) -> Label:
    """What the labels answer to a question as understood: the course's rule for its families, else the strict one."""
    if is_own(view):
        return Label(reason="nothing is known of a picture of your own")
    if not asked.is_known:
        return Label(reason="the wording is of no known kind, so no rule answers it")
    scene = read_scene(view)
    named = {scene.find(name).name for name in asked.karts}
    if FAMILIES[asked.family].group != COURSE or not {kart.name for kart in scene.others}.issuperset(named):
        scene = read_scene(view, rules=STRICT_RULES)  # which also tells why a kart cannot be asked about
    found = answer(asked.question, scene)
    return Label(reason=str(found)) if isinstance(found, Reason) else Label(found, scene.rules.name)
