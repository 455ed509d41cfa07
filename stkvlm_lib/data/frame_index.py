"""Reading a folder of frames, with an index of its info files, so that tens of thousands are parsed only once.

The index of a folder lies in ($XDG_CACHE_HOME or ~/.cache)/stkvlm/index, named after the folder's resolved path. An
info file is taken from it as long as its size and its times of change stay the same. Pictures are not part of it: their
names are listed anew at each reading. It may be deleted at any time; STKVLM_INDEX=0 in the environment does without.

Format: gzip of JSON lines. A header; then for each info file a line of its name, version and contents, and for each of
its views a line of detections, which stays text until the view is used.
"""

import gzip
import hashlib
import json
import os
import time
import zlib
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stkvlm_lib.data.frames import INFO_SUFFIX, VIEW_NAME, Frame
from stkvlm_lib.data.info_files import Info, check_pictures, make_frame, read_info
from stkvlm_lib.data.pictures import BrokenFile
from stkvlm_lib.files import cache_folder, whole_file

SETTLED_SECONDS = 2.0
"""A file changed less than this before it was read is not kept: it may change again within its clock's tick."""
_FORMAT = 2

Version = tuple[int, int, int]
"""Size in bytes, time of the last change of the contents and of the entry, in ns."""
Entries = dict[str, tuple[Version, Info]]


def read_split(folder: Path, split: str, check_images: bool) -> list[Frame | BrokenFile]:
    """Each frame of a folder or what is wrong with it: pictures without an info file first, then by frame id."""
    with os.scandir(folder) as entries:
        files = sorted((entry for entry in entries if _is_data(entry)), key=lambda entry: entry.name)
    pictures: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for file in files:
        if match := VIEW_NAME.match(file.name):
            pictures[match["frame"]].append((int(match["view"]), file.name))
    infos = {file.name.removesuffix(INFO_SUFFIX): file for file in files if file.name.endswith(INFO_SUFFIX)}
    missing = [
        BrokenFile(folder / f"{frame_id}{INFO_SUFFIX}", "missing, but its pictures are there")
        for frame_id in sorted(set(pictures) - set(infos))
    ]

    def build(frame_id: str, info: Info | BrokenFile) -> Frame | BrokenFile:
        try:
            if isinstance(info, BrokenFile):
                return info
            frame = make_frame(folder / infos[frame_id].name, info, split, pictures[frame_id])
            if check_images:
                check_pictures(frame)
            return frame
        except BrokenFile as error:
            return error

    read = read_infos(folder, list(infos.values()))
    if not check_images:
        return missing + list(map(build, infos, read))
    with ThreadPoolExecutor(max_workers=4) as pool:  # decoding a picture lets other threads run
        return missing + list(pool.map(build, infos, read))


def _is_data(entry: os.DirEntry) -> bool:
    """Whether an entry of a folder may belong to a frame: hidden files do not, as those that macOS adds (`._...`)."""
    try:
        return not entry.name.startswith(".") and entry.is_file()
    except OSError:  # a link that leads back to itself: reading it says so
        return True


def read_infos(folder: Path, files: Sequence[os.DirEntry]) -> list[Info | BrokenFile]:
    """What each info file of a folder says, or the error that reading it raises; in the order given."""
    place = index_path(folder)
    kept = _load(place) if place else {}
    now, found, entries = time.time_ns(), [], {}
    for file in files:
        version = _version(file)
        before, info = kept.get(file.name, (None, None))
        if info is None or before != version:
            info = _read(folder / file.name)
        found.append(info)
        if isinstance(info, Info) and max(version[1:]) < now - SETTLED_SECONDS * 1e9:
            entries[file.name] = version, info
    if place and [(name, entry[0]) for name, entry in entries.items()] != [(n, e[0]) for n, e in kept.items()]:
        _write(place, folder, entries)
    return found


def index_path(folder: Path) -> Path | None:
    """Where the index of a folder is kept; None when the environment does without or there is no home."""
    if os.environ.get("STKVLM_INDEX", "").lower() in ("0", "off", "false", "no"):
        return None
    try:
        cache = cache_folder()
    except RuntimeError:
        return None
    resolved = str(folder.resolve())
    return cache / "stkvlm" / "index" / f"{hashlib.sha256(resolved.encode()).hexdigest()[:20]}.jsonl.gz"


def _version(file: os.DirEntry) -> Version:
    try:
        stat = file.stat()
    except OSError:  # gone since the folder was listed
        return 0, 0, 0
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _read(path: Path) -> Info | BrokenFile:
    try:
        return read_info(path)
    except BrokenFile as error:
        return error


def _load(place: Path) -> Entries:
    """What an index holds; nothing when it is missing, broken or of another format."""
    try:
        lines = gzip.decompress(place.read_bytes()).decode().split("\n")
        if json.loads(lines[0])["format"] != _FORMAT:
            return {}
        entries, at = {}, 1
        while at < len(lines):
            name, version, track, karts, race_seed, outside, views = json.loads(lines[at])
            at += 1 + views
            rows = tuple(lines[at - views : at])
            entries[name] = tuple(version), Info(track, tuple(karts), race_seed, rows, outside)
        return entries if at == len(lines) else {}
    except (OSError, EOFError, zlib.error, ValueError, TypeError, LookupError):
        return {}


def _write(place: Path, folder: Path, entries: Entries) -> None:
    """Replace an index. A cache folder that cannot be written is no error: the next reading parses again."""
    lines = [json.dumps({"format": _FORMAT, "folder": str(folder.resolve())})]
    for name, (version, info) in entries.items():
        head = [name, version, info.track, info.karts, info.race_seed, info.outside, len(info.rows)]
        lines.append(json.dumps(head))
        lines += info.rows
    try:
        with whole_file(place) as part:
            part.write_bytes(gzip.compress("\n".join(lines).encode(), compresslevel=1, mtime=0))
    except OSError:
        pass
