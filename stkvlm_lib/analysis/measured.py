"""Figures that write themselves into metrics.json and read themselves back: dataclasses of numbers and each other."""

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, get_type_hints

from pydantic import ConfigDict

from stkvlm_lib.grammar.questions import in_order
from stkvlm_lib.typed import TypedError, read_value

Interval = tuple[float, float]
"""The ends of a 95 % interval."""


class Measured:
    """Base of dataclasses of figures. What is None is not written; keys that a class does not have are passed over.

    WHOLE: the one field whose value is the whole of what is written, for those that are a table by name.
    """

    WHOLE: ClassVar[str] = ""
    __pydantic_config__ = ConfigDict(allow_inf_nan=False)

    def as_json(self) -> dict[str, Any]:
        """The figures as metrics.json holds them."""
        if self.WHOLE:
            return _plain(getattr(self, self.WHOLE))
        return {f.name: _plain(value) for f in fields(self) if (value := getattr(self, f.name)) is not None}

    @classmethod
    def from_json(cls, value: Any, where: str) -> Self:
        """Raises TypedError naming the place, `where` being that of the value."""
        kind = get_type_hints(cls)[cls.WHOLE] if cls.WHOLE else cls
        try:
            found = read_value(value, kind)
        except TypedError as error:
            raise error.within(where) from None
        return cls(found) if cls.WHOLE else found


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


def _plain(value: Any) -> Any:
    if isinstance(value, Measured):
        return value.as_json()
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
