"""Questions put to a model by hand: the answer with its rivals, the label, and what another model says beside it."""

import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import NamedTuple

from stkvlm_lib.data.frames import View
from stkvlm_lib.explore.filters import Given
from stkvlm_lib.explore.models import Askable, AskError, SharedModel
from stkvlm_lib.explore.own_picture import is_own
from stkvlm_lib.explore.understanding import LEAST_FAMILIAR, STRANGE, Understood, as_asked, is_unknown, unknown_means
from stkvlm_lib.grammar.families import COURSE
from stkvlm_lib.grammar.names import KARTS
from stkvlm_lib.grammar.questions import FAMILIES, answer, normalise
from stkvlm_lib.grammar.reading import several
from stkvlm_lib.grammar.scene import STRICT_RULES, Reason, read_scene
from stkvlm_lib.vlm.answers import Answer

BASE_ALONE = "base alone"
LONGEST_QUESTION = 1000
"""Characters; a longer text is no question, and would keep the model busy for minutes."""
LEAST_SHOWN = 0.005
"""Other answers that are less likely are not shown one by one."""
NO_MODEL = (
    "No model is loaded, so nothing can be asked. Open the explorer with a model: explore(frames, qa, model=...), "
    "or run ./run_all.sh first and then ./run_all.sh explore."
)


@dataclass(frozen=True)
class Beside:
    """Answers by (image_file, question), and the model that gives more of them; None where it cannot be asked.

    name: as it is shown. alone: the model is asked without its adapter.
    """

    name: str
    answers: Mapping[tuple[str, str], Given] = field(default_factory=dict)
    model: Askable | None = None
    alone: bool = False


@dataclass(frozen=True)
class Label:
    """What the labels say of a question: an answer under a set of rules, or why there is none."""

    answer: str = ""
    rules: str = ""
    reason: str = ""


class Aside(NamedTuple):
    """What the model of that name answers too, or why it does not."""

    name: str
    answer: Answer | None = None
    reason: str = ""


@dataclass(frozen=True)
class Reply:
    """A model's answer to a question, and how that was understood.

    wording: in which it was put to the model. rivals: the answers of the family's set, likeliest first; empty where the
    wording is of no known kind. seconds: for all of it; encoding: of these, for the picture, 0 where it was encoded
    before; strange: whether it is a picture of the reader's own that is most likely none of the game.
    """

    question: str
    wording: str
    understood: Understood
    answer: Answer
    rivals: tuple[Answer, ...]
    label: Label
    seconds: float
    encoding: float
    strange: bool
    beside: Aside | None = None


class Asker:
    """Asks a model about views. model: None: every question is refused.

    beside: what is asked beside it, unless its reader says otherwise; its base alone can be asked too.
    """

    def __init__(self, model: Askable | None, beside: Beside | None = None):
        self._model, self._prepared = model, False
        alone = [Beside(BASE_ALONE, model=model, alone=True)] if model else []
        others = [*alone, *([beside] if beside and beside.model else [])]
        self.others = {other.name: other for other in others}
        self.usual = others[-1].name if beside and beside.model else ""
        """Whom of the others to ask, empty for nobody."""

    @property
    def has_model(self) -> bool:
        return self._model is not None

    @property
    def is_loaded(self) -> bool:
        return self.has_model and self._model.is_loaded

    @property
    def model(self) -> Askable:
        """Raises AskError where there is none."""
        if self._model is None:
            raise AskError(NO_MODEL)
        return self._model

    def prepare(self) -> None:
        """Have the model loaded while a question is being thought of, where that is another process's work."""
        if isinstance(self._model, SharedModel) and not self._prepared:
            self._prepared = True
            threading.Thread(target=self._prepare, daemon=True).start()

    def _prepare(self) -> None:
        with suppress(AskError):  # which the first question meets too, and tells
            self._model.prepare()

    def ask(self, view: View, question: str, beside: str = "") -> Reply:
        """Answer a question about a view. beside: which of the others to ask too.

        Raises AskError where there is no model, and as `checked` does.
        """
        question, begin = checked(question), time.perf_counter()
        wording = as_asked(question)
        said = self.model.put(view.image_path, wording)
        label, seconds = label_of(view, said.understood), time.perf_counter() - begin
        other = self._ask_beside(view, wording, beside) if beside else None
        told = said.understood, said.answer, said.rivals, label, seconds, said.encoding
        return Reply(question, wording, *told, is_own(view) and said.familiarity < LEAST_FAMILIAR, other)

    def _ask_beside(self, view: View, wording: str, name: str) -> Aside:
        other = self.others[name]
        try:
            return Aside(name, other.model.answer(view.image_path, wording, alone=other.alone))
        except AskError as error:
            return Aside(name, reason=str(error))


def base_alone(answers: Iterable[Given], model: Askable | None) -> Beside:
    """The base of a run, by what the run has recorded of its answers."""
    recorded = (given for given in answers if given.base_prediction is not None)
    said = by_question(replace(g, prediction=g.base_prediction, correct=g.base_correct) for g in recorded)
    return Beside(BASE_ALONE, said, model, alone=True)


def by_question(answers: Iterable[Given]) -> dict[tuple[str, str], Given]:
    return {(given.image_file, given.question): given for given in answers}


def checked(question: str) -> str:
    """A question in one line. Raises AskError where there is none, no end of it, or more than one."""
    question = " ".join(question.split())
    if not question:
        raise AskError("There is no question yet. Type one, or choose a kind of question above.")
    if len(question) > LONGEST_QUESTION:
        raise AskError(f"The question has {len(question):,} characters; shorten it to at most {LONGEST_QUESTION:,}.")
    if parts := several(question):
        raise AskError(f"These are {len(parts)} questions; ask one at a time: {' / '.join(parts)}")
    return question


def in_lines(understood: Understood, given: Answer, rivals: Iterable[Answer], familiarity: float = 1.0) -> list[str]:
    """An answer as a terminal shows it: with a percentage only where it means something, what was understood, the
    likeliest other answers, and a word where the picture is most likely none of the game."""
    return _answer_lines(understood, given, rivals) + ([STRANGE] if familiarity < LEAST_FAMILIAR else [])


def _answer_lines(understood: Understood, given: Answer, rivals: Iterable[Answer]) -> list[str]:
    if is_unknown(given.text):
        return [f"{given.text}: {unknown_means(understood)}"]
    if not understood.is_known:
        return [f"{given.text}  (a guess: the question is of no kind that this model was made for)"]
    others = [a for a in rivals if normalise(a.text) != normalise(given.text) and a.confidence >= LEAST_SHOWN][:3]
    lines = [f"{given.text}  (confidence {given.confidence:.0%})", f"understood as: {understood.question}"]
    return lines + ([f"or: {', '.join(f'{a.text} {a.confidence:.0%}' for a in others)}"] if others else [])


def suggestions(view: View, family: str) -> list[str]:
    """What a family can ask about a view, in the wording of its template; names karts in view where it names any,
    and all karts where nobody knows which are in view."""
    kind, scene = FAMILIES[family], read_scene(view)
    if is_own(view):  # any kart may be in it
        return [kind.write(0, karts) for karts in permutations(KARTS, len(kind.slots))]
    if kind.needs_ego and scene.ego is None:
        return []
    subjects = kind.subjects(scene, lambda n, *key: 0)
    return list(dict.fromkeys(kind.write(0, [kart.name for kart in subject]) for subject in subjects))


def label_of(view: View, asked: Understood) -> Label:
    """What the labels answer to a question as understood: the course's rule for its families, else the strict one."""
    if is_own(view):
        return Label(reason="a picture of your own has none; whatever it shows, the model takes it for one of the game")
    if not asked.is_known:
        return Label(reason="the wording is of no known kind, so no rule answers it")
    family, scene = FAMILIES[asked.family], read_scene(view)
    named = {scene.find(name).name for name in asked.karts}
    if family.group != COURSE or not {kart.name for kart in scene.others}.issuperset(named):
        scene = read_scene(view, rules=STRICT_RULES)  # which also tells why a kart cannot be asked about
    found = answer(asked.question, scene)
    if isinstance(found, Reason) and family.besides.get(found) in family.said:  # a count of none, never asked in files
        found = family.besides[found]
    return Label(reason=str(found)) if isinstance(found, Reason) else Label(found, scene.rules.name)
