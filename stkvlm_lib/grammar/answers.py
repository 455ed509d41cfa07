"""Whom the families of questions ask about and what a scene answers, or why it does not. The wordings: questions.py."""

from collections.abc import Callable, Iterable, Iterator
from itertools import combinations
from math import atan2, degrees, hypot, radians, sin

from stkvlm_lib.grammar.families import Pick, Subject
from stkvlm_lib.grammar.kart_colours import KART_COLOURS
from stkvlm_lib.grammar.names import COURSE_ONLY_KARTS, KARTS
from stkvlm_lib.grammar.scene import Kart, Reason, Scene, absent, sure_depth, sure_nearer, sure_side

# whom a family asks about


def others(scene: Scene, _: Pick) -> Iterable[Subject]:
    return ((kart,) for kart in (*scene.others, *scene.unclear))


def each(scene: Scene, _: Pick) -> Iterable[Subject]:
    return ((kart,) for kart in (*scene.karts, *scene.unclear))


def pairs(scene: Scene, pick: Pick) -> Iterator[Subject]:
    """Every two karts once, in an order drawn by their names."""
    for pair in combinations(sorted((*scene.karts, *scene.unclear), key=lambda kart: kart.object_id), 2):
        yield pair if pick(2, "order", *(kart.name for kart in pair)) else pair[::-1]


def in_view_or_not(scene: Scene, pick: Pick) -> Iterator[Subject]:
    """Every kart in view and as many that are not, in turn from those of the race and from those that are not in it."""
    yield from each(scene, pick)
    seen = {kart.name for kart in scene.detected}
    racing = set(scene.line_up) - seen
    elsewhere = set(KARTS) - set(scene.line_up) - set(COURSE_ONLY_KARTS)
    # sorted first: where `pick` draws from a generator, the order of a set would change with each process
    piles = [sorted(sorted(names), key=lambda name: pick(2**32, "absent", name)) for names in (racing, elsewhere)]
    first = pick(2, "first pile")
    drawn = [(rank, (pile + first) % 2, name) for pile, names in enumerate(piles) for rank, name in enumerate(names)]
    for _, _, name in sorted(drawn)[: len(scene.karts)]:
        yield (absent(name),)


# what a scene answers


def count(scene: Scene) -> str | Reason:
    if scene.unclear:
        return Reason.UNCLEAR
    return str(len(scene.karts)) if scene.karts else Reason.NO_KART


def left_right(scene: Scene, kart: Kart) -> str | Reason:
    return sure_side(kart, scene.ego, scene.rules)


def front_back(scene: Scene, kart: Kart) -> str | Reason:
    return sure_depth(kart, scene.ego, scene.rules)


def where(scene: Scene, kart: Kart) -> str | Reason:
    along, across = front_back(scene, kart), left_right(scene, kart)
    if isinstance(along, Reason) or isinstance(across, Reason):
        return along if isinstance(along, Reason) else across
    return f"{along} and {across}"


def clock(scene: Scene, kart: Kart) -> str | Reason:
    """The hour at which a kart stands on a clock face laid on the picture around the ego kart, 12 above it.

    Declined where one centre, moved by the rules' `level`, could be at another hour.
    """
    (x, y), (ego_x, ego_y) = kart.centre, scene.ego.centre
    right, up = x - ego_x, ego_y - y
    hours = degrees(atan2(right, up)) / 30
    hour = round(hours)
    if scene.rules.declines:
        reach = sin(radians(30 * (0.5 - abs(hours - hour)))) * hypot(right, up)
        if reach < scene.rules.level:
            return Reason.BETWEEN_HOURS
    return str(hour % 12 or 12)


def _tally(scene: Scene, relation: Callable[[Scene, Kart], str | Reason]) -> list[str] | Reason:
    """What a relation says of every other kart, or why it cannot say it of one."""
    if scene.unclear:
        return Reason.UNCLEAR
    told = [relation(scene, kart) for kart in scene.others]
    return next((answer for answer in told if isinstance(answer, Reason)), told)


def count_where(relation: Callable[[Scene, Kart], str | Reason], value: str) -> Callable[[Scene], str | Reason]:
    def answer(scene: Scene) -> str | Reason:
        told = _tally(scene, relation)
        if isinstance(told, Reason):
            return told
        return str(told.count(value)) if value in told else Reason.NONE  # a count of zero is never asked

    return answer


def more_side(scene: Scene) -> str | Reason:
    told = _tally(scene, left_right)
    if isinstance(told, Reason) or not told:
        return told or Reason.NONE
    left, right = told.count("left"), told.count("right")
    return "equal" if left == right else "left" if left > right else "right"


def colour(kart: Kart) -> str | Reason:
    return KART_COLOURS.get(kart.name, Reason.NO_COLOUR)


def left_of(scene: Scene, a: Kart, b: Kart) -> str | Reason:
    told = sure_side(a, b, scene.rules)
    return told if isinstance(told, Reason) else "yes" if told == "left" else "no"


def nearer(scene: Scene, a: Kart, b: Kart) -> str | Reason:
    told = sure_nearer(a, b, scene.rules)
    return told if isinstance(told, Reason) else "yes" if told else "no"


def _first(karts: Iterable[Kart], beats: Callable[[Kart, Kart], bool]) -> Kart | None:
    """The kart that clearly beats all others."""
    karts = tuple(karts)
    return next((kart for kart in karts if all(beats(kart, other) for other in karts if other is not kart)), None)


def _named(scene: Scene, karts: Iterable[Kart], beats: Callable[[Kart, Kart], bool], tie: Reason) -> str | Reason:
    """The first of several karts, barely visible ones among them, if that one is visible; tie: where none is first."""
    karts = tuple(karts)
    if sum(kart in scene.karts for kart in karts) < 2:
        return Reason.TOO_FEW
    winner = _first(karts, beats)
    if winner is None:
        return tie
    return winner.name if winner in scene.karts else Reason.UNCLEAR


def outermost(value: str, opposite: str) -> Callable[[Scene], str | Reason]:
    def answer(scene: Scene) -> str | Reason:
        def beats(a: Kart, b: Kart) -> bool:
            return sure_side(a, b, scene.rules) == value and sure_side(b, a, scene.rules) == opposite

        return _named(scene, (*scene.karts, *scene.unclear), beats, Reason.LEVEL)

    return answer


def nearest(scene: Scene) -> str | Reason:
    """Of the other karts: the ego kart itself is nearly always the nearest."""
    karts = (*scene.others, *scene.unclear)
    return _named(scene, karts, lambda a, b: sure_nearer(a, b, scene.rules) is True, Reason.EQUALLY_FAR)


def farthest(scene: Scene) -> str | Reason:
    return _named(scene, scene.detected, lambda a, b: sure_nearer(b, a, scene.rules) is True, Reason.EQUALLY_FAR)


def directly_front(scene: Scene) -> str | Reason:
    """The nearest of the karts ahead whose centre is at most an ego kart's width aside.

    Declined unless that kart is clearly nearer than the next such kart, clearly ahead and at most half a width aside.
    """
    ego, width = scene.ego, scene.ego.box[2] - scene.ego.box[0]

    def aside(kart: Kart) -> float:
        return abs(kart.centre[0] - ego.centre[0])

    ahead = [
        kart
        for kart in (*scene.others, *scene.unclear)
        if aside(kart) <= width and sure_depth(kart, ego, scene.rules) != "back"
    ]
    if not ahead:
        return Reason.NONE
    winner = _first(ahead, lambda a, b: sure_nearer(a, b, scene.rules) is True)
    if winner is None:
        return Reason.EQUALLY_FAR
    if winner in scene.unclear:
        return Reason.UNCLEAR
    told = sure_depth(winner, ego, scene.rules)
    if isinstance(told, Reason):
        return told
    return winner.name if aside(winner) <= width / 2 else Reason.ASIDE
