"""JSON as the dataclasses, tables and lists that it must hold: nothing is converted, and what does not fit is named.

Keys that a dataclass does not have are passed over, so that what a later version wrote can be read.
"""

import codecs
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from stkvlm_lib.files import one_line, read_json

T = TypeVar("T")
_adapter = cache(TypeAdapter)


class FormError(ValueError):
    """A part of JSON that is not there or of another kind; the message says where in it and what it is."""


def read_rows(path: str | Path, kind: type[T], remedy: str = "make it again or restore it") -> list[T]:
    """The lines of a JSON-lines file as dataclasses of one kind.

    Raises FileNotFoundError or ValueError naming the file, the line, what is wrong with it and the remedy.
    """
    return list(stream_rows(path, kind, remedy))


def stream_rows(path: str | Path, kind: type[T], remedy: str = "make it again or restore it") -> Iterator[T]:
    """What read_rows reads, one by one, for files larger than memory."""
    parse = _adapter(kind).validate_json
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield parse(line.removeprefix(codecs.BOM_UTF8) if number == 1 else line, strict=True)
                except ValidationError as error:
                    raise ValueError(f"{path}: {_fault(error, f'line {number}')}; {remedy}") from None
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: not there; {remedy}") from None


def read_file(path: str | Path, kind: type[T], remedy: str = "make it again or restore it") -> T:
    """What a JSON file holds. Raises FileNotFoundError or ValueError naming the file, the place and the remedy."""
    try:
        return read_value(read_json(path, remedy), kind, "")
    except FormError as error:
        raise ValueError(f"{path}: {error}; {remedy}") from None


def read_text(text: str | bytes, kind: type[T], where: str) -> T:
    """A text in JSON as one of a kind. Raises FormError naming its place, `where` being that of the whole."""
    try:
        return _adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        raise FormError(_fault(error, where)) from None


def read_value(value: Any, kind: type[T], where: str) -> T:
    """What a JSON file held as one of a kind. Raises as read_text does."""
    return read_text(json.dumps(value), kind, where)


def _fault(error: ValidationError, where: str) -> str:
    """The first of what does not fit: its place, beginning with `where`, and what is wrong there, in one line."""
    first = error.errors(include_url=False)[0]
    place = where + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
    match first["type"]:
        case "missing":
            said = "not there"
        case "json_invalid":
            said = f"not JSON ({first['ctx']['error']})"
        case "value_error":  # of the dataclass itself
            said = str(first["ctx"]["error"])
        case _:
            said = f"{first['input']!r:.40} {first['msg'].replace('Input should be', 'is not')}"
    return one_line(": ".join(filter(None, (place.removeprefix("."), said))))
