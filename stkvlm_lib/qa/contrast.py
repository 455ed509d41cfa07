"""Contrast pairs: one question asked of two pictures that differ in one respect, with the answer that each gives.

`mirror`: a picture and its mirror image, where left and right change and nothing else does. `other_view`: the same
moment from behind another kart, where the ego kart changes and the race does not. A model that looks has both right;
one that guesses from the words has at most one right where the two answers differ. Answers follow the strict rules, so
what is level, or cannot be told from one of the two pictures, is no pair.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from pathlib import Path

from stkvlm_lib.data.frames import Frame, View
from stkvlm_lib.grammar.families import Asked, pick
from stkvlm_lib.grammar.questions import FAMILIES, answer, ask_extended
from stkvlm_lib.grammar.scene import STRICT_RULES, Reason, Scene, mirror_box, read_scene
from stkvlm_lib.grammar.spelling import plain
from stkvlm_lib.grouping import grouped
from stkvlm_lib.typed import read_rows

MIRROR, OTHER_VIEW = "mirror", "other_view"
KINDS = (MIRROR, OTHER_VIEW)
_RANKS = 1 << 64


@dataclass(frozen=True)
class ContrastItem:
    """One of the two questions of a pair; both stand next to each other in the file.

    mirrored: the picture is to be flipped left to right before it is shown.
    """

    pair: str
    kind: str
    image_file: str
    mirrored: bool
    question: str
    answer: str
    family: str
    split: str
    race: str
    track: str
    rules: str


Pair = tuple[ContrastItem, ContrastItem]


def contrast_items(frames: Sequence[Frame], split: str, seed: int, pictures: int) -> list[ContrastItem]:
    """The pairs of a split: all those whose two answers differ, and one a picture whose answers are the same.

    pictures: pairs of pictures of each kind, drawn by rank, so the same for any order of the frames.
    """
    makers: dict[str, Callable[[Frame, int], Iterable[Pair]]] = {MIRROR: _mirrored, OTHER_VIEW: _other_view}
    items = []
    for kind, make in makers.items():
        found = (pairs for frame, view in _ranked(frames, kind, seed) if (pairs := make(frame, view, split, seed)))
        for pairs in islice(found, pictures):
            items += [item for pair in pairs for item in pair]
    return items


def pairs_of(items: Iterable[ContrastItem]) -> list[Pair]:
    """Items put together by their pair."""
    return [(first, second) for first, second in grouped(items, attrgetter("pair")).values()]


def read_contrast(path: Path) -> list[ContrastItem]:
    return read_rows(path, ContrastItem, "write it again with notebook 02")


def contrast_rows(items: Iterable[ContrastItem]) -> list[dict]:
    """A table: pairs of each kind, and those whose two answers differ, by family."""
    rows: dict[str, dict] = {}
    for first, second in pairs_of(items):
        row = rows.setdefault(first.family, {f"{kind}, {what}": 0 for kind in KINDS for what in ("differ", "same")})
        row[f"{first.kind}, {'same' if first.answer == second.answer else 'differ'}"] += 1
    return [{"family": name, **rows[name]} for name in FAMILIES if name in rows]


def _ranked(frames: Sequence[Frame], kind: str, seed: int) -> list[tuple[Frame, int]]:
    """Every view as (frame, its index), in the order in which they are drawn; nothing is parsed for that."""
    places = [(frame, view) for frame in frames for view in range(frame.view_count)]
    return sorted(places, key=lambda place: pick(_RANKS, kind, seed, place[0].image_file(place[1])))


def _mirrored(frame: Frame, index: int, split: str, seed: int) -> list[Pair]:
    view = frame.views[index]
    scenes = _scene(view), read_scene(view, mirror_box, STRICT_RULES)
    return _pairs(MIRROR, (view, view), scenes, split, seed)


def _other_view(frame: Frame, index: int, split: str, seed: int) -> list[Pair]:
    """With the first view, in a drawn order, that shows an ego kart too: by the strict rules the one it follows."""
    view = frame.views[index]
    scene = _scene(view)
    others = sorted(frame.views, key=lambda other: pick(_RANKS, OTHER_VIEW, seed, view.image_file, other.index))
    for other in others if scene.ego else ():
        if other.index != index and (seen := _scene(other)).ego:
            return _pairs(OTHER_VIEW, (view, other), (scene, seen), split, seed)
    return []


def _scene(view: View) -> Scene:
    return read_scene(view, rules=STRICT_RULES)


def _pairs(kind: str, views: tuple[View, View], scenes: tuple[Scene, Scene], split: str, seed: int) -> list[Pair]:
    """The pairs of two pictures, asked in the families' templates, those that differ first; none when none differs."""
    differ, same = [], []
    for found in ask_extended(scenes[0], views[0].image_file, seed):
        if not isinstance(found, Asked):
            continue
        family = FAMILIES[found.family]
        _, names = family.read(plain(found.question))
        question = family.write(0, names)
        other = answer(question, scenes[1])
        if isinstance(other, Reason):
            continue
        asked = {"pair": f"{kind}:{views[0].image_file}:{question}", "kind": kind, "question": question}
        asked |= {"family": family.name, "split": split, "rules": STRICT_RULES.name}
        asked |= {"race": views[0].frame.race, "track": views[0].frame.track}
        first = ContrastItem(image_file=views[0].image_file, mirrored=False, answer=found.answer, **asked)
        second = ContrastItem(image_file=views[1].image_file, mirrored=kind == MIRROR, answer=other, **asked)
        (same if found.answer == other else differ).append((first, second))
    drawn = pick(len(same), "same", seed, views[0].image_file) if same else 0
    return differ + same[drawn : drawn + 1] if differ else []
