"""JSON read as what it should be: dataclasses, and lists, tables and options of such, each field of its type.

pydantic checks and says what is wrong; a whole number counts as a float, a list as a tuple, and nothing else is
converted. Keys that a class does not have are passed over, so that files of later versions can be read.
"""

import codecs
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")
_REMEDY = "make it again or restore it"


class TypedError(ValueError):
    """JSON of another form than was expected. place: in it, as `parts.ego.share`, empty for the whole; what: is wrong
    there."""

    def __init__(self, place: str, what: str):
        super().__init__(f"{place}: {what}" if place else what)
        self.place, self.what = place, what

    def within(self, where: str, joint: str = ".") -> "TypedError":
        """The same of something larger: the JSON is a part of what is called `where`."""
        return TypedError(f"{where}{joint if self.place else ''}{self.place}", self.what)


def read_typed(text: str | bytes, kind: type[T]) -> T:
    """JSON as a value of a kind. Raises TypedError for the first thing that is wrong in it."""
    try:
        return _adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        raise _typed_error(error) from None


def read_value(value: Any, kind: type[T]) -> T:
    """A part of JSON that was read already as a value of a kind. Raises as read_typed does."""
    return read_typed(json.dumps(value), kind)  # not the value itself: of JSON a list may stand for a pair


def read_file(path: Path, kind: type[T], remedy: str = _REMEDY) -> T:
    """What a JSON file holds. Raises FileNotFoundError or ValueError naming file, place and remedy."""
    try:
        return read_typed(path.read_bytes().removeprefix(codecs.BOM_UTF8), kind)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: not there; {remedy}") from None
    except TypedError as error:
        raise ValueError(f"{error.within(str(path), ': ')}; {remedy}") from None


def read_rows(path: str | Path, kind: type[T], remedy: str = _REMEDY) -> list[T]:
    """The lines of a JSON-lines file. Raises FileNotFoundError or ValueError naming file, line, place and remedy."""
    return list(stream_rows(path, kind, remedy))


def stream_rows(path: str | Path, kind: type[T], remedy: str = _REMEDY) -> Iterator[T]:
    """What read_rows reads, one by one, for files larger than memory."""
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield read_typed(line.removeprefix(codecs.BOM_UTF8), kind)
                except TypedError as error:
                    raise ValueError(f"{error.within(f'{path}: line {number}', ', ')}; {remedy}") from None
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: not there; {remedy}") from None


@cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(kind)


def _typed_error(error: ValidationError) -> TypedError:
    found = error.errors(include_url=False)[0]
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in found["loc"])
    place, said = "".join(steps).removeprefix("."), found["msg"]
    if found["type"] == "missing":
        return TypedError(place, "not there")
    if found["type"] == "json_invalid":
        return TypedError(place, f"not JSON ({said.removeprefix('Invalid JSON: ')})")
    if said.startswith("Input should be "):
        return TypedError(place, f"{found['input']!r:.40} is not {said.removeprefix('Input should be ')}")
    if found["type"] == "value_error":  # the class itself says what
        return TypedError(place, said.removeprefix("Value error, "))
    return TypedError(place, f"{found['input']!r:.40}: {said}")
