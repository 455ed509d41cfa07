"""Writing and reading the files of a run: each appears whole or not at all."""

import errno
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 1 << 30
"""Larger JSON files are refused: read, they would take many times as much memory."""

FULL_DISK_BYTES = 100_000_000


def cache_folder() -> Path:
    """The user's cache folder, where `XDG_CACHE_HOME` or its default says. Raises RuntimeError without a home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


PART_SUFFIX = ".part"
"""How the hidden files end that are written to before they take their place."""


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to; it takes the place of `path` only when the block ends without an error.

    An OSError names `path`, also where the system's own names no file (a full disk) or the temporary one.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}{PART_SUFFIX}")
    with errors_naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def drop_parts(folder: Path) -> None:
    """Remove what killed processes left of files that they were writing, in a folder and those in it."""
    for left in folder.rglob(f".*{PART_SUFFIX}"):
        left.unlink(missing_ok=True)


@contextmanager
def errors_naming(path: Path) -> Iterator[None]:
    """OSErrors of the system that name no file, or a temporary one, are raised as of `path`."""
    try:
        yield
    except OSError as error:
        named = str(error.filename or "")
        if error.errno is None or (named and not named.endswith(PART_SUFFIX)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def give_usual_mode(paths: Iterable[Path]) -> None:
    """The permissions that new files get by the umask; safetensors writes its own with 0600."""
    mask = os.umask(0o077)
    os.umask(mask)
    for path in paths:
        path.chmod(0o666 & ~mask)


def explain(error: OSError) -> str:
    """An error of the system in one line: the path, the reason, and what to do."""
    named = isinstance(error.filename, str | bytes | os.PathLike)
    where = os.fsdecode(error.filename) if named else "a file"
    if named and error.errno in _DISK_FULL:
        where = f"{Path(where).absolute().parent}: writing {Path(where).name}"
    remedy = _REMEDIES.get(error.errno, "see whether the path is right and the disk in order")
    return f"{where:.300}: {error.strerror or error}; {remedy}"


def full_disk(folder: Path) -> str:
    """That the disk of a folder has no room left, which not every library's error says; empty where it has."""
    free = shutil.disk_usage(folder).free
    return "" if free >= FULL_DISK_BYTES else f"{folder} has {free / 1e6:.0f} MB left; make room there"


_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_REMEDIES = {
    **dict.fromkeys(_DISK_FULL, "make room on its disk, or name a folder on another"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "change its owner or permissions, or name another place"),
    errno.EROFS: "name a place that can be written to",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOENT: "see whether the path is right",
    errno.EEXIST: "name another place, or move it away",
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR), "a file and a folder are taken for each other there; move it away"),
}


def write_text(path: str | Path, text: str) -> None:
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Raises ValueError naming the file for numbers that JSON does not have (NaN and infinities)."""
    write_text(path, _to_json(path, value, indent=2) + "\n")


def write_jsonl(path: str | Path, rows: Iterable[dict]) -> None:
    """One JSON object a line. Raises as write_json does."""
    with whole_file(path) as part, part.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(_to_json(path, row) + "\n")


def _to_json(path: str | Path, value: Any, indent: int | None = None) -> str:
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path}: not written, as a value is no number ({error}); find out where it is made") from None


def read_json(path: str | Path, remedy: str = "make it again or restore it") -> Any:
    """Raises FileNotFoundError or ValueError naming the file and the remedy."""
    try:
        return parse_json(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: not there; {remedy}") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); {remedy}") from None


def read_object(
    path: str | Path, remedy: str = "make it again or restore it", *, missing_ok: bool = False
) -> dict[str, Any]:
    """A JSON file that must hold an object. Raises as read_json does, also for a list or a bare value.

    missing_ok: where there is no such file, an empty object.
    """
    value = {} if missing_ok and not Path(path).is_file() else read_json(path, remedy)
    if not isinstance(value, dict):
        raise ValueError(f"{path}: holds a {type(value).__name__}, not a JSON object; {remedy}")
    return value


def parse_json(path: str | Path, most: int = MAX_JSON_BYTES) -> Any:
    """What a JSON file holds, in any UTF and with or without a byte order mark.

    Raises OSError or ValueError, without the file's name: one that is larger than `most` bytes, nested too deep, or has
    a key twice in one object is none. Numbers may be NaN or infinite.
    """
    return _parse(_read(path, most))


def read_json_list(path: str | Path, remedy: str) -> Any:
    """What a JSON file of somebody's making holds; one of JSON lines as the list of its lines. Raises as read_json."""
    try:
        return read_json(path, remedy)
    except ValueError as error:
        no_json = error
    items, broken = [], None
    try:
        data = _read(path, MAX_JSON_BYTES)
        for line in data.decode(json.detect_encoding(data)).split("\n"):
            if line.strip():
                items.append(_parse(line))
    except (OSError, ValueError) as error:
        broken = error
    if not items or not isinstance(items[0], dict):
        raise no_json
    if broken:
        raise ValueError(f"{path}: line {len(items) + 1} is not JSON ({broken}); {remedy}")
    return items


def _read(path: str | Path, most: int) -> bytes:
    size = Path(path).stat().st_size
    if size > most:
        raise ValueError(f"{size:,} bytes, over the limit of {most:,}")
    return Path(path).read_bytes()


def _parse(text: str | bytes) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r:.60} stands twice in one object")
    return found


def one_line(text: object) -> str:
    """A text, path or message in one line that any terminal prints: what cannot be shown stands as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in str(text))


def sha256(paths: Path | Iterable[Path]) -> str:
    """One hash over the contents of files, in the order given."""
    digest = hashlib.sha256()
    for path in [paths] if isinstance(paths, Path) else paths:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
