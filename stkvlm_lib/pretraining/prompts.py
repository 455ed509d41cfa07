"""What the embedded base learns to say: short prompts and questions in words, and what a scene answers to them.

A prompt names a task and the karts it is about, as in `where tux` or `count_left`: a family's id in place of a
question. Besides there are `karts` (all names, from left to right) and `box tux` (where a kart stands, in sixteenths
of the picture). Later come the questions in the many words of `grammar.wordings`, with what is no question of ours
(`unknown`), and `task_of QUESTION`, which answers the prompt that asks the same.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stkvlm_lib.grammar.families import Family, pick
from stkvlm_lib.grammar.questions import COURSE_FAMILIES, FAMILIES, PRETRAINED
from stkvlm_lib.grammar.scene import IMAGE_SIZE, Kart, Reason, Scene
from stkvlm_lib.grammar.wordings import TASK_OF, UNKNOWN, ask_worded, unanswerable

WORDED, PROMPTS = 14, 4
"""Tasks of a picture with questions in drawn words, and without words."""
PLACES = 16
"""Places and sizes are told in a grid of this many columns and rows over the picture."""
KARTS_TASK, BOX_TASK = "karts", "box"
TASKS = (*PRETRAINED, KARTS_TASK, BOX_TASK, TASK_OF, UNKNOWN)
"""Names of all tasks."""


@dataclass(frozen=True)
class Task:
    """A prompt with its answer. name: one of TASKS."""

    name: str
    prompt: str
    answer: str


def course_tasks(scene: Scene) -> Iterator[Task]:
    """The course's ten families, by the rules of the scene."""
    for family in COURSE_FAMILIES.values():
        yield from _family_tasks(family, scene, 0)


def further_tasks(scene: Scene, strict: Scene, seed: int) -> Iterator[Task]:
    """The other families, by the strict rules; the list of karts; and the place of each. seed: draws subjects."""
    for family in PRETRAINED.values():
        if family.name not in COURSE_FAMILIES:
            yield from _family_tasks(family, strict, seed)
    if scene.karts:
        ordered = sorted(scene.karts, key=lambda kart: (kart.centre, kart.object_id))
        yield Task(KARTS_TASK, KARTS_TASK, " ".join(kart.name for kart in ordered))
    for kart in scene.karts:
        yield Task(BOX_TASK, f"{BOX_TASK} {kart.name}", place(kart))


def draw_tasks(scene: Scene, strict: Scene, most: int, seed: int) -> list[Task]:
    """At most so many tasks about a picture: the course's families first, filled up with others."""
    rng = random.Random(seed)
    course, further = list(course_tasks(scene)), list(further_tasks(scene, strict, seed))
    chosen = rng.sample(course, min(len(course), most))
    return chosen + rng.sample(further, min(len(further), most - len(chosen)))


def draw_worded(scene: Scene, strict: Scene, seed: int) -> list[Task]:
    """Tasks about a picture with questions in drawn words: WORDED of the families by the strict rules, or those of
    `scene` where they decline; one that no picture answers, one that asks for the task of a question, and PROMPTS tasks
    without words."""
    rng = random.Random(seed)
    questions = [*ask_worded(strict, WORDED, rng, scene, PRETRAINED), unanswerable(strict, rng)]
    understood = rng.choice(questions)
    return [
        *(Task(asked.family, asked.question, asked.answer) for asked in questions),
        Task(TASK_OF, f"{TASK_OF} {understood.question}", understood.task),
        *draw_tasks(scene, strict, PROMPTS, seed),
    ]


def _family_tasks(family: Family, scene: Scene, seed: int) -> Iterator[Task]:
    if family.needs_ego and scene.ego is None:
        return
    for subject in family.subjects(scene, lambda n, *key: pick(n, seed, family.name, *key)):
        answer = family.answer_about(scene, subject)
        if not isinstance(answer, Reason):
            yield Task(family.name, prompt(family.name, (kart.name for kart in subject)), answer)


def prompt(name: str, karts: Iterable[str] = ()) -> str:
    """The prompt of a task about some karts."""
    return " ".join((name, *karts))


def place(kart: Kart) -> str:
    """Column and row (0..15) of a kart's centre, and its width and height (1..16), all in sixteenths."""
    (x, y), (width, height), (x1, y1, x2, y2) = kart.centre, IMAGE_SIZE, kart.box
    column, row = (min(PLACES - 1, int(c * PLACES / full)) for c, full in ((x, width), (y, height)))
    wide, high = (max(1, round(d * PLACES / full)) for d, full in ((x2 - x1, width), (y2 - y1, height)))
    return f"column {column} row {row} width {wide} height {high}"


def vocabulary() -> Iterator[str]:
    """Texts that hold every word of prompts and answers."""
    yield from map(str, range(PLACES + 5))
    for family in FAMILIES.values():
        yield prompt(family.name, ("tux", "gnu")[: len(family.slots)])
    yield from (UNKNOWN, TASK_OF, KARTS_TASK, prompt(BOX_TASK, ("tux",)), place(Kart(0, "tux", (0, 0, 10, 10))))
