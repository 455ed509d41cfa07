"""Figures that write themselves into metrics.json and read themselves back: dataclasses of numbers and each other."""

from dataclasses import MISSING, dataclass, fields
from functools import cache
from types import UnionType
from typing import Any, ClassVar, Self, get_args, get_origin, get_type_hints

from stkvlm_lib.grammar.questions import in_order

Interval = tuple[float, float]
"""The ends of a 95 % interval."""
_ENDLESS = 1e300
"""Numbers of this size are no figures, and larger whole ones no floating point number."""


class MeasuredError(ValueError):
    """A figure in metrics.json that is not there or of another kind; the message says where and what it is."""


class Measured:
    """Base of dataclasses of figures. What is None is not written; keys that a class does not have are passed over.

    WHOLE: the one field whose value is the whole of what is written, for those that are a table by name.
    """

    WHOLE: ClassVar[str] = ""

    def as_json(self) -> dict[str, Any]:
        """The figures as metrics.json holds them."""
        if self.WHOLE:
            return _plain(getattr(self, self.WHOLE))
        return {f.name: _plain(value) for f in fields(self) if (value := getattr(self, f.name)) is not None}

    @classmethod
    def from_json(cls, value: Any, where: str) -> Self:
        """Raises MeasuredError naming the place, `where` being that of the value."""
        kinds = _kinds(cls)
        if cls.WHOLE:
            return cls(_read(kinds[cls.WHOLE], value, where))
        if not isinstance(value, dict):
            raise MeasuredError(f"{where}: {value!r:.40} is not an object")
        given = {}
        for f in fields(cls):
            if f.name in value:
                given[f.name] = _read(kinds[f.name], value[f.name], f"{where}.{f.name}")
            elif f.default is MISSING and f.default_factory is MISSING:
                raise MeasuredError(f"{where}.{f.name}: not there")
        return cls(**given)


class ByFamily(Measured):
    """Figures over all questions that hold the same figures by family, in `families`: there, what all questions alone
    have is None."""

    @property
    def rows(self) -> list[tuple[str, Any]]:
        """(`all`, the figures of all questions), then those of each family in their fixed order."""
        return [("all", self), *((name, self.families[name]) for name in in_order(self.families or {}))]


@dataclass(frozen=True)
class Share(Measured):
    """Some questions: how many they are, and what share of them (0..1) is answered exactly right."""

    n: int
    exact: float
    exact_ci95: Interval | None = None


@cache
def _kinds(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _plain(value: Any) -> Any:
    if isinstance(value, Measured):
        return value.as_json()
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _read(kind: Any, value: Any, where: str) -> Any:
    """A value of JSON as one of a kind: a Measured, number, text, or list, table, pair or option of such; Any."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is UnionType:
        return None if value is None else _read(inner[0], value, where)
    if isinstance(kind, type) and issubclass(kind, Measured):
        return kind.from_json(value, where)
    if origin is dict and isinstance(value, dict):
        return {name: _read(inner[1], row, f"{where}.{name}") for name, row in value.items()}
    if origin is list and isinstance(value, list):
        return [_read(inner[0], row, f"{where}[{number}]") for number, row in enumerate(value)]
    if origin is tuple and isinstance(value, list) and len(value) == len(inner):
        return tuple(_read(part, row, where) for part, row in zip(inner, value, strict=True))
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _ENDLESS:
        return float(value)
    if kind in (int, str) and isinstance(value, kind) and not isinstance(value, bool):
        return value
    wanted = getattr(kind, "__name__", kind) if origin is None else origin.__name__
    raise MeasuredError(f"{where}: {value!r:.40} is not of type {wanted}")
