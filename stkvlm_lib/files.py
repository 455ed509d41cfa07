"""Writing and reading the files of a run: each appears whole or not at all."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def cache_folder() -> Path:
    """The user's cache folder, where `XDG_CACHE_HOME` or its default says. Raises RuntimeError without a home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to; it takes the place of `path` only when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: str | Path, rows: Iterable[dict]) -> None:
    """One JSON object a line."""
    with whole_file(path) as part, part.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_json(path: str | Path, remedy: str = "make it again or restore it") -> Any:
    """Raises FileNotFoundError or ValueError naming the file and the remedy."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: not there; {remedy}") from None
    except (ValueError, IsADirectoryError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); {remedy}") from None


def read_jsonl(path: str | Path, remedy: str = "make it again or restore it") -> list[dict]:
    """Raises FileNotFoundError or ValueError naming the file, the line and the remedy."""
    return list(stream_jsonl(path, remedy))


def stream_jsonl(path: str | Path, remedy: str = "make it again or restore it") -> Iterator[dict]:
    """The lines one by one, for files larger than memory. Raises as read_jsonl does."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise ValueError(f"{path}: line {number} is not JSON ({error}); {remedy}") from None
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: not there; {remedy}") from None


def read_rows(path: str | Path, kind: type[T], remedy: str = "make it again or restore it") -> list[T]:
    """The lines of a JSON-lines file as dataclasses of one kind; keys that `kind` does not have are passed over.

    Raises FileNotFoundError or ValueError naming the file, the line, what it lacks and the remedy.
    """
    return list(stream_rows(path, kind, remedy))


def stream_rows(path: str | Path, kind: type[T], remedy: str = "make it again or restore it") -> Iterator[T]:
    """What read_rows reads, one by one, for files larger than memory."""
    names = {field.name for field in fields(kind)}
    needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    for number, row in enumerate(stream_jsonl(path, remedy), start=1):
        if not isinstance(row, dict):
            raise ValueError(f"{path}: line {number} is not an object but {row!r:.40}; {remedy}")
        if missing := sorted(needed - set(row)):
            raise ValueError(f"{path}: line {number} lacks {missing}; {remedy}")
        yield kind(**{name: value for name, value in row.items() if name in names})


def sha256(paths: Path | Iterable[Path]) -> str:
    """One hash over the contents of files, in the order given."""
    digest = hashlib.sha256()
    for path in [paths] if isinstance(paths, Path) else paths:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
