"""A model to ask about pictures: one of this process, or the one that all pages of a server share.

Both take the same calls and give plain values, so that a page needs nothing of what answering needs. Questions come
worded for the model, see `understanding.as_asked`.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import exp, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachetools import LRUCache

from stkvlm_lib.data.pictures import load_image
from stkvlm_lib.explore.patches import covered
from stkvlm_lib.explore.understanding import Understood, families_with, tasks_with, understand
from stkvlm_lib.grammar.names import KARTS
from stkvlm_lib.grammar.questions import FAMILIES, OTHER
from stkvlm_lib.grammar.spelling import plain
from stkvlm_lib.grammar.wordings import TASK_OF, read_task
from stkvlm_lib.vlm.answers import Answer

if TYPE_CHECKING:  # importing these takes seconds, which looking at pictures need not wait for
    import torch

    from stkvlm_lib.vlm.answering import AnswerModel

SIGHTS = tuple(FAMILIES[name].write(0, ()) for name in ("track", "ego"))
"""What any picture of the game shows, in the wording that is always answered."""
ENCODED_PICTURES = 16
"""How many pictures stay encoded, those asked about last."""
ADDRESS_VARIABLE = "STKVLM_MODEL_SOCKET"
"""Tells a page's kernel where the process listens; not set in notebooks, which load a model of their own."""
ENDED = (
    "The process of the model has ended before it answered, most likely because memory ran out. End other programs and "
    "ask again: the next question starts it anew."
)
UNREACHABLE = (
    "The process of the model cannot be reached. Start the explorer again with ./run_all.sh explore and open the "
    "address it prints."
)


class AskError(ValueError):
    """A question that cannot be answered here; the message says why and what to do."""


@dataclass(frozen=True)
class Said:
    """How a question was understood and answered. rivals: the answers of the family's set, likeliest first; empty where
    the wording is of no known kind. familiarity: how sure the model is of track and ego kart together, 0..1; encoding:
    seconds for the picture, 0 where it was encoded before."""

    understood: Understood
    answer: Answer
    rivals: tuple[Answer, ...]
    familiarity: float
    encoding: float


class OwnModel:
    """A model of this process; the last pictures stay encoded between questions.

    model: an answering model, or a function that loads it at the first question. Every call raises AskError where it
    cannot be loaded or cannot answer.
    """

    def __init__(self, model: "AnswerModel | Callable[[], AnswerModel]"):
        self._model = model
        self._encoded: LRUCache[tuple[str, int], torch.Tensor] = LRUCache(ENCODED_PICTURES)
        self._lock = threading.RLock()  # a map may be in the making in another thread

    @property
    def is_loaded(self) -> bool:
        return not callable(self._model)

    def prepare(self) -> None:
        """Load it before it is asked."""
        with self._loaded():
            pass

    def put(self, picture: Path, question: str) -> Said:
        """A question about a picture file."""
        with self._loaded() as model:
            features, encoding = self._encode(model, picture)
            return Said(*put(model, features, question), encoding)

    def answer(self, picture: Path, question: str, *, alone: bool) -> Answer:
        """The answer by itself. alone: of the base without its adapter."""
        with self._loaded() as model:
            features, _ = self._encode(model, picture)
            with model.without_adapter() if alone else nullcontext():
                return model.answer_encoded(features, [[question]])[0][0]

    def cover(self, picture: Path, question: str, first: str, start: int) -> list[tuple[str, float]]:
        """(answer, probability of the first answer) where one patch is covered, of a batch from the start-th on."""
        with self._loaded() as model:
            features = model.encode(covered(load_image(picture), start))
            chances = [chance for (chance,) in _chances(model, features, question, [first])]
            answers = [first] * len(chances)
            unsure = [number for number, chance in enumerate(chances) if chance <= 0.5]  # else no other can be written
            written = model.answer_encoded(features[unsure], [[question]] * len(unsure))
            for number, (answer,) in zip(unsure, written, strict=True):
                answers[number] = answer.text
            return list(zip(answers, chances, strict=True))

    @contextmanager
    def _loaded(self) -> Iterator["AnswerModel"]:
        with self._lock:
            if not self.is_loaded:
                try:
                    self._model = self._model()
                except (ValueError, OSError) as error:
                    raise AskError(f"The model cannot be loaded. {error}") from error
            try:
                yield self._model
            except (ValueError, OSError) as error:  # a picture that is gone or broken, a model that computes NaN
                raise AskError(f"The model could not answer. {error}") from error

    def _encode(self, model: "AnswerModel", picture: Path) -> tuple["torch.Tensor", float]:
        """Image tokens (1, tokens, D) of a picture file, and the seconds that took: 0 where they were still there."""
        key = str(picture), picture.stat().st_mtime_ns
        if key in self._encoded:
            return self._encoded[key], 0.0
        begin = time.perf_counter()
        features = self._encoded[key] = model.encode([load_image(picture)])
        return features, time.perf_counter() - begin


class SharedModel:
    """An adapter in the process that a server's pages share (see `model_process`), reached by its socket.

    base: the adapter's base where it is not the one it names. Every call raises AskError, also where that process ends.
    """

    def __init__(self, address: str | Path, adapter: Path, base: str = ""):
        self._address, self._model = str(address), {"adapter": str(adapter), "base": base}
        self.is_loaded = False
        """Whether it has answered before; as far as this page knows."""

    def prepare(self) -> None:
        self._call("prepare")

    def put(self, picture: Path, question: str) -> Said:
        (family, karts, by_model), answer, rivals, *more = self._call("put", picture, question)
        understood = Understood(family, tuple(karts), by_model)
        return Said(understood, Answer(*answer), tuple(Answer(*rival) for rival in rivals), *more)

    def answer(self, picture: Path, question: str, *, alone: bool) -> Answer:
        return Answer(*self._call("answer", picture, question, alone=alone))

    def cover(self, picture: Path, question: str, first: str, start: int) -> list[tuple[str, float]]:
        return list(map(tuple, self._call("cover", picture, question, first=first, start=start)))

    def _call(self, what: str, picture: Path | str = "", question: str = "", **more: Any) -> Any:
        """One request, one connection, one line each way; who comes first is answered first."""
        request = {"call": what, **self._model, "picture": str(picture), "question": question, "more": more}
        try:
            with socket.socket(socket.AF_UNIX) as channel:
                channel.connect(self._address)
                channel.sendall(json.dumps(request).encode() + b"\n")
                line = channel.makefile("rb").readline()
        except (ConnectionRefusedError, FileNotFoundError):
            raise AskError(UNREACHABLE) from None
        except OSError:
            line = b""
        self.is_loaded = line.endswith(b"\n")
        if not self.is_loaded:
            raise AskError(ENDED)
        reply = json.loads(line)
        if "error" in reply:
            raise AskError(reply["error"])
        return reply["value"]


Askable = OwnModel | SharedModel


def put(
    model: "AnswerModel", features: "torch.Tensor", question: str
) -> tuple[Understood, Answer, tuple[Answer, ...], float]:
    """A question to a model, see `Said` but for the encoding. features: (1, tokens, D) of the picture."""
    given, *sights = model.answer_encoded(features, [[question, *SIGHTS]])[0]
    familiarity = prod(sight.confidence for sight in sights)
    understood = understand(question)
    if not understood.is_known:
        understood = _read(model, features, question, given.text)
    if not understood.is_known:
        return understood, given, (), familiarity
    answers = FAMILIES[understood.family].said
    rivals = map(Answer, answers, _chances(model, features, question, answers)[0])
    return understood, given, tuple(sorted(rivals, key=lambda rival: -rival.confidence)), familiarity


def _read(model: "AnswerModel", features: "torch.Tensor", question: str, answer: str) -> Understood:
    """A question that no rule reads, as the model does.

    It reads and answers in two texts, which need not agree. Its answer tells what it took the question for: where that
    is none of the family that it read, its likeliest reading among the families with this answer counts.
    """
    read = model.understood(features, question)
    if read and read[0] not in families_with(answer):
        named = dict.fromkeys((*read[1], *(word for word in plain(question).split() if word in KARTS)))
        tasks = tasks_with(answer, named)
        found = model.likelihoods(features, [[(f"{TASK_OF} {question}", tasks)]])[0][0] if tasks else []
        read = read_task(max(found, key=lambda task: task.log_probability).text) if found else None
    return Understood(*read, by_model=True) if read else Understood(OTHER)


def _chances(
    model: "AnswerModel", features: "torch.Tensor", question: str, answers: Sequence[str]
) -> list[list[float]]:
    """How likely each answer is to each encoded picture. features: (pictures, tokens, D)."""
    found = model.likelihoods(features, [[(question, answers)]] * len(features))
    return [[exp(candidate.log_probability) for candidate in candidates] for (candidates,) in found]


def load_model(adapter: Path, base_model: str = "") -> "AnswerModel":
    """An adapter with its base; base_model: where it is not the one that the adapter names. Raises ModelError."""
    from stkvlm_lib.model_files import read_adapter_record
    from stkvlm_lib.runs import set_up_hub, set_up_torch

    record = read_adapter_record(adapter)  # what is wrong with it shows before seconds of imports
    set_up_hub(base_model or record["base"]["name"])
    set_up_torch()
    from stkvlm_lib.vlm.adapter import load_answerer

    return load_answerer(adapter, base_model or None)
