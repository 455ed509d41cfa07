"""Things sorted into groups, in the order in which they come."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

T, K = TypeVar("T"), TypeVar("K")


def grouped(items: Iterable[T], group: Callable[[T], K]) -> dict[K, list[T]]:
    """Items of each group, in their order; the groups in that of their first."""
    groups: dict[K, list[T]] = defaultdict(list)
    for item in items:
        groups[group(item)].append(item)
    return dict(groups)


def by_turns(items: Iterable[T], group: Callable[[T], Hashable]) -> list[T]:
    """The first of each group, then the second of each, and so on; within a turn in the order given."""
    seen: Counter[Hashable] = Counter()
    turns = []
    for place, item in enumerate(items):
        turns.append((seen[group(item)], place, item))
        seen[group(item)] += 1
    return [item for *_, item in sorted(turns, key=lambda turn: turn[:2])]
