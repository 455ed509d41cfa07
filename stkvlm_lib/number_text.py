"""Figures as text, the same in tables, in the report and in notebooks; what is missing is a dash."""

from collections.abc import Callable
from sys import float_info
from typing import Any

NOTHING = "–"
"""Stands where a figure is missing."""


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Whether a value of JSON is a number that a float can hold: neither NaN nor infinite, nor a whole one beyond."""
    return type(value) in (int, float) and abs(value) <= float_info.max


def percent(value: Any) -> str:
    return f"{value:.1%}" if is_number(value) else NOTHING


def points(value: Any) -> str:
    """A difference of two shares in percentage points, with its sign."""
    return f"{round(100 * value, 1) or 0.0:+.1f}" if is_number(value) else NOTHING  # never -0.0


def count(value: Any) -> str:
    return f"{value:,}" if is_number(value) else NOTHING


def counted(n: int, noun: str) -> str:
    """`1 race`, `1,234 races`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def number(value: Any, digits: int = 1) -> str:
    return f"{value:,.{digits}f}" if is_number(value) else NOTHING


def interval(value: Any, show: Callable[[Any], str] = percent) -> str:
    """A pair as `low to high`."""
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(map(is_number, value)):
        return NOTHING
    return f"{show(value[0])} to {show(value[1])}"
