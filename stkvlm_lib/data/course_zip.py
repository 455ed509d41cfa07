"""The course's data: its zip fetched, checked, and unpacked where files are missing.

The data belong to UT Austin (homework 4 of "Advances in Deep Learning") and may not be redistributed: nothing of them
is part of this project.
"""

import hashlib
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from stkvlm_lib.data.download import CHUNK, check_space, download, progress_bar
from stkvlm_lib.data.frames import FLAT_SPLIT, INFO_SUFFIX, SPLITS

COURSE_URL = "https://utexas.box.com/shared/static/qubjm5isldqvyimfj9rsmbnvnbezwcv4.zip"
FOLDER = "data/course"
"""Where the course's data go by default, from the repository; git ignores `data/`."""

MAX_ENTRIES = 1_000_000
MAX_FILE = 1 << 30
MAX_TOTAL = 64 << 30
MAX_RATIO = 100
"""Limits that no zip of frames comes near: entries, bytes a file, bytes in all, bytes unpacked for one packed."""

DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError)
"""What reading a broken zip raises (what Python cannot unpack is a RuntimeError)."""

BLOCK = 4096
"""Bytes by which a file grows on common disks."""


class CourseZipError(ValueError):
    """A zip that cannot be used; the message names it, what is wrong with it, and the remedy."""


@dataclass(frozen=True)
class Unpacked:
    """What a zip gave. `folder`: what `read_frames` takes; `frames`: number of frames by split."""

    folder: Path
    frames: dict[str, int]
    written: int
    kept: int


def fetch(source: str | Path = COURSE_URL, to: str | Path = FOLDER) -> Unpacked:
    """Download the zip at an address, or take the one at a path, and unpack into `to` what is not there yet.

    A downloaded zip stays in `to`, so that a further call needs no network. Of a path that is no zip of frames nothing
    is made. Raises CourseZipError or DownloadError.
    """
    to = Path(to)
    if not is_address(source):
        with _opened(Path(source)) as archive:
            _frames(Path(source), _checked(Path(source), archive.infolist()))
    to.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(to / ".fetch.lock", timeout=0):
            return unpack(_downloaded(str(source), to) if is_address(source) else Path(source), to)
    except Timeout:
        raise CourseZipError(f"{to}: another fetch is at work there; wait for it, or name another folder") from None


def is_address(source: str | Path) -> bool:
    return urlsplit(str(source)).scheme in ("http", "https")


def _downloaded(url: str, to: Path) -> Path:
    """The zip of an address, in a file whose name no other address shares."""
    name = Path(urlsplit(url).path).stem or "data"
    path = download(url, to / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:8]}.zip")
    if not zipfile.is_zipfile(path):
        begin = path.read_bytes()[:24]
        path.unlink()
        raise CourseZipError(
            f"{url}: what came is not a whole zip (it begins with {begin!r}); call again, "
            "or open the address in a browser, fetch the zip by hand and give its path"
        )
    return path


def unpack(path: str | Path, to: str | Path) -> Unpacked:
    """Unpack into `to` the files that are missing there or differ in size or CRC-32. Each file appears whole.

    All names and sizes are checked before anything is written. Raises CourseZipError, or DownloadError without room.
    """
    path, to = Path(path), Path(to)
    with _opened(path) as archive:
        entries = _checked(path, archive.infolist())
        root, frames = _frames(path, entries)
        to.mkdir(parents=True, exist_ok=True)
        missing = [entry.file_size for name, entry in entries.items() if not os.path.exists(to / name)]
        check_space(to, sum(-(-size // BLOCK) * BLOCK for size in missing))
        written = 0
        with progress_bar("unpacking", len(entries), unit=" files") as bar:
            for name, entry in entries.items():
                if not _is_there(to / name, entry):
                    _write(path, archive, entry, to / name)
                    written += 1
                bar.update()
    return Unpacked(to / root, frames, written, len(entries) - written)


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        raise CourseZipError(f"{path}: no such file; give the path or the address of the course's zip") from None
    except DAMAGE as error:
        raise CourseZipError(f"{path}: not a whole zip ({error}); fetch it again, or give another path") from None


def _checked(path: Path, infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """The files of a zip by name. Refuses the whole zip when one entry is not what it should be."""
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        if reason := _refusal(info):
            raise CourseZipError(f"{path}: entry {info.filename!r} {reason}; nothing was unpacked, use another zip")
        name = PurePosixPath(info.filename).as_posix()
        if info.is_dir() or _is_finder_file(name):
            continue
        if name in entries:
            raise CourseZipError(f"{path}: entry {name!r} is there twice; nothing was unpacked, use another zip")
        entries[name] = info
    total, packed = sum(info.file_size for info in infos), sum(info.compress_size for info in infos)
    for what, value, limit in (
        ("entries", len(infos), MAX_ENTRIES),
        ("bytes when unpacked", total, MAX_TOTAL),
        ("bytes when unpacked", total, MAX_RATIO * max(packed, BLOCK)),
    ):
        if value > limit:
            raise CourseZipError(f"{path}: {value:,} {what}, over the limit of {limit:,}; nothing was unpacked")
    return entries


def _refusal(info: zipfile.ZipInfo) -> str | None:
    """Why an entry must not be unpacked."""
    name, kind = info.filename, stat.S_IFMT(info.external_attr >> 16)
    if name.startswith("/") or "\\" in name or name[1:2] == ":" or ".." in PurePosixPath(name).parts:
        return "would leave the folder"
    if not PurePosixPath(name).parts:
        return "has no name"
    if any(ord(character) < 32 for character in name):
        return "has a control character in its name"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device, not a file"
    if info.flag_bits & 1:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is packed in another way than zip's usual one (deflate)"
    if info.file_size > MAX_FILE:
        return f"is {info.file_size:,} bytes long, over the limit of {MAX_FILE:,}"
    return None


def _is_finder_file(name: str) -> bool:
    """What macOS adds to zips beside the files themselves."""
    parts = PurePosixPath(name)
    return "__MACOSX" in parts.parts or parts.name.startswith("._") or parts.name == ".DS_Store"


def _frames(path: Path, entries: dict[str, zipfile.ZipInfo]) -> tuple[str, dict[str, int]]:
    """The data folder inside the zip, and the number of frames by split."""
    homes = Counter(PurePosixPath(name).parent for name in entries if name.endswith(INFO_SUFFIX))
    if not homes:
        seen = ", ".join(list(entries)[:3]) or "no file at all"
        raise CourseZipError(
            f"{path}: no *{INFO_SUFFIX} in it, so these are not frames (it holds {seen}); give the course's zip"
        )
    roots = {home.parent if home.name in SPLITS else home for home in homes}
    if len(roots) > 1:
        raise CourseZipError(
            f"{path}: frames in several folders ({', '.join(sorted(map(str, roots)))}); "
            f"a data folder holds {'/ '.join(SPLITS)}/ or the files themselves"
        )
    return str(roots.pop()), {home.name if home.name in SPLITS else FLAT_SPLIT: n for home, n in homes.items()}


def _is_there(target: Path, entry: zipfile.ZipInfo) -> bool:
    try:
        return target.stat().st_size == entry.file_size and zlib.crc32(target.read_bytes()) == entry.CRC
    except OSError:  # not there, or no place for a file: writing it says so
        return False


def _write(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    """One file of the zip. Its temporary name is always the same, so that a killed call leaves nothing behind."""
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as source, part.open("wb") as file:
            shutil.copyfileobj(source, file, CHUNK)
        part.replace(target)
    except OSError as error:
        raise CourseZipError(f"{target}: cannot be written ({error}); mend this and call again to go on") from None
    except DAMAGE as error:
        part.unlink(missing_ok=True)
        raise CourseZipError(
            f"{path}: entry {entry.filename!r} is damaged ({error}); remove the zip and fetch it again, "
            "the files unpacked so far stay"
        ) from None
