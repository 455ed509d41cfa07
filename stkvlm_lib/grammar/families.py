"""What a family of questions is: its wordings, its possible answers, why it declines a scene, and how it asks one."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b

from stkvlm_lib.grammar.scene import Kart, Reason, Scene
from stkvlm_lib.grammar.spelling import one_word, plain

COURSE, EXTENDED = "course", "extended"
"""Groups of families: the course's ten, and those beside them."""
UNKNOWN = "unknown"
"""The answer to what a picture cannot show or the model was not made for."""

Subject = tuple[Kart, ...]
Pick = Callable[..., int]


@dataclass(frozen=True)
class Asked:
    """A question with its answer. wording: 0 is the family's template, then its paraphrases."""

    family: str
    wording: int
    question: str
    answer: str


@dataclass(frozen=True)
class Declined:
    """A question that is not asked of a scene, and why."""

    family: str
    reason: Reason


def pick(n: int, *key: object) -> int:
    """A number from 0 to n - 1 that depends on the key alone: the same in any order, process or version of Python."""
    text = "\x1f".join(map(str, key)).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") % n


def nobody(scene: Scene, pick: Pick) -> Iterable[Subject]:
    """The subjects of a family that asks about the scene as a whole: one question, no kart named."""
    return ((),)


@dataclass(frozen=True)
class Family:
    """One kind of question.

    template: the wording of the files; paraphrases: others, the last of which is held out from training. `{kart}`
    (or `{a}` and `{b}`) stands for the name of a kart asked about.
    answers: every answer it may give. names: what they name, the `karts` or the `track` of a frame, if anything: names
    that only these frames have are answers too. answer: (scene, *karts asked about) -> one of them, or the reason for
    none.
    subjects: (scene, pick) -> the karts to ask about, a tuple a question.
    needs_ego: it is asked only where there is an ego kart, and never about that kart by name.
    asks_absent: it may be asked about a kart that is not in view.
    besides: why it declines -> what is answered all the same to a person who asks in words of their own.
    always_told: in drawn words it is answered by the course's rule where the strict ones decline.
    pretrained: whether the embedded base is trained on it; if not, it shows what a fine-tuning teaches from nothing.
    """

    name: str
    template: str
    paraphrases: tuple[str, ...]
    answers: tuple[str, ...]
    answer: Callable[..., str | Reason]
    subjects: Callable[[Scene, Pick], Iterable[Subject]] = nobody
    needs_ego: bool = False
    asks_absent: bool = False
    names: str = ""
    besides: Mapping[Reason, str] = field(default_factory=dict, hash=False)
    group: str = EXTENDED
    always_told: bool = False
    pretrained: bool = True

    @cached_property
    def wordings(self) -> tuple[str, ...]:
        return (self.template, *self.paraphrases)

    @cached_property
    def said(self) -> tuple[str, ...]:
        """Every answer beside `unknown` that a person may get."""
        return (*self.answers, *(answer for answer in self.besides.values() if answer != UNKNOWN))

    @property
    def held_out(self) -> int:
        """The number of the wording that training never draws."""
        return len(self.paraphrases)

    @cached_property
    def slots(self) -> tuple[str, ...]:
        """Names of the places for karts in its wordings: () or (kart,) or (a, b)."""
        return tuple(re.findall(r"\{(\w+)\}", self.template))

    @cached_property
    def patterns(self) -> tuple[re.Pattern, ...]:
        """One a wording, for questions in plain form."""
        wordings = (re.escape(plain(wording)) for wording in self.wordings)
        return tuple(re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\S+)", wording)) for wording in wordings)

    def read(self, question: str) -> tuple[int, tuple[str, ...]] | None:
        """(number of the wording, names of the karts asked about, each one word) of a question of this family in plain
        form, else None."""
        for number, pattern in enumerate(self.patterns):
            if match := pattern.fullmatch(question):
                return number, tuple(match[slot] for slot in self.slots)
        return None

    def write(self, wording: int, names: Iterable[str]) -> str:
        """A question in one of its wordings; a name of several words is joined to one, as questions hold it."""
        text = self.wordings[wording]
        return text.format(**dict(zip(self.slots, map(one_word, names), strict=True))) if self.slots else text

    def answer_about(self, scene: Scene, subject: Subject) -> str | Reason:
        """What a scene answers, or why it does not."""
        if self.needs_ego and scene.ego is None:
            return scene.no_ego
        if any(one_word(kart.name) in scene.ambiguous for kart in subject):
            return Reason.SAME_NAME
        if not scene.rules.declines:
            return self.answer(scene, *subject)
        if doubt := self._doubt(scene, subject):
            return doubt
        answer = self.answer(scene, *subject)
        known = isinstance(answer, Reason) or self.names or answer in self.answers
        return answer if known else Reason.UNKNOWN

    def _doubt(self, scene: Scene, subject: Subject) -> Reason | None:
        """Why the strict rules do not let a question about these karts be asked at all."""
        names = [kart.name for kart in subject]
        if any(kart in scene.unclear or kart in scene.specks for kart in subject):
            return Reason.UNCLEAR
        if not self.asks_absent and any(kart not in scene.karts for kart in subject):
            return Reason.ABSENT
        if len(set(names)) < len(names) or (self.needs_ego and scene.ego in subject):
            return Reason.ITSELF
        return None

    def about(self, scene: Scene, pick: Pick | None = None) -> Iterator[tuple[tuple[str, ...], str | Reason]]:
        """(names of the karts asked about, what the scene answers or why not) of every question about a scene.

        pick: for families that draw whom to ask about; the course's do not.
        """
        for subject in self.subjects(scene, pick) if scene.ego or not self.needs_ego else ((),):
            yield tuple(kart.name for kart in subject), self.answer_about(scene, subject)

    def ask(self, scene: Scene, key: str, seed: int, held_out: bool = False) -> Iterator[Asked | Declined]:
        """Every question of this family about a scene, each in one wording, and what it declines.

        key: names the scene (its image file). Of the course's families only paraphrases are drawn: the files of the
        ten forms hold the template. held_out: draw from all of them; else the last one is left out, as in training.
        The wording follows from seed, key, family and subject alone.
        """
        first = 1 if self.group == COURSE else 0
        number = self.held_out + held_out - first
        for names, answer in self.about(scene, lambda n, *what: pick(n, seed, key, self.name, *what)):
            if isinstance(answer, Reason):
                yield Declined(self.name, answer)
                continue
            wording = first + pick(number, "wording", seed, key, self.name, *names)
            yield Asked(self.name, wording, self.write(wording, names), answer)
