"""One large file by HTTP: with progress, going on where it was interrupted, its size checked."""

import re
import shutil
import sys
import time
from pathlib import Path

import requests
from tqdm import tqdm

from stkvlm_lib.files import read_json, write_json

CHUNK = 1 << 16
TIMEOUT = (15, 60)
"""Seconds to connect, and to wait for the next bytes."""
WAITS = (1, 2, 4, 8)
"""Seconds before each further attempt, as long as none brings more than the ones before."""
BRIEF = (408, 425, 429, 500, 502, 503, 504)
"""HTTP statuses that may pass by themselves."""


class DownloadError(ValueError):
    """A file that could not be fetched; the message names the address, what stands in the way and the remedy."""


class _Broken(Exception):
    """An attempt that ended early; another may go on."""


def download(url: str, path: str | Path) -> Path:
    """Bring `url` to `path`, which appears only when it is complete. Does nothing when it is there.

    What has arrived waits in `path`.part, so that a later call goes on from there where the server can and tells the
    size; what it belongs to is kept beside it. Raises DownloadError.
    """
    path = Path(path)
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part, note = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.json")
    waits, most = iter(WAITS), 0
    while True:
        try:
            _attempt(url, part, note)
            break
        except (_Broken, requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            size = _size(part)
            if size > most:
                waits, most = iter(WAITS), size
            wait = next(waits, None)
            if wait is None:
                go_on = f"{size:,} bytes are kept: call again" if size else "check the network, then call again"
                raise DownloadError(
                    f"{url}: the download stopped ({_reason(error)}); {go_on} to go on, or fetch it in a browser and "
                    "give the file's path"
                ) from None
            _say(f"{_reason(error)}; trying again in {wait} s")
            time.sleep(wait)
        except requests.RequestException as error:
            raise DownloadError(f"{url}: cannot be fetched ({_reason(error)}); correct the address") from None
    part.replace(path)
    note.unlink(missing_ok=True)
    return path


def _attempt(url: str, part: Path, note: Path) -> None:
    """Receive what is missing from `part`. Raises _Broken or a requests exception when it ends early."""
    known = _known(url, part, note)
    have = _size(part)
    if have and have == known["size"]:
        return
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if known["version"]:
            headers["If-Range"] = known["version"]  # a server whose file has changed then sends all of it
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code in BRIEF:
            raise _Broken(f"the server answers {response.status_code} {response.reason}")
        if response.status_code == 416 or (response.status_code == 206 and not _goes_on(response, have, known)):
            part.unlink(missing_ok=True)
            raise _Broken("the file has changed on the server, starting over")
        if response.status_code not in (200, 206):
            raise DownloadError(
                f"{url}: the server answers {response.status_code} {response.reason}; "
                "see in a browser whether the address still holds, or fetch the file by hand and give its path"
            )
        if have and response.status_code == 200:
            _say(f"starting over after {have:,} bytes: the server cannot resume, or the file has changed there")
            have = 0
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else None
        check_space(part.parent, (total or 0) - have)
        if not have:
            part.unlink(missing_ok=True)  # before the note: never bytes of another file beside it
            write_json(note, {"url": url, "version": _version(response), "size": total})
        with part.open("ab") as file, progress_bar("downloading", total, have) as bar:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and _size(part) != total:
        raise _Broken(f"{_size(part):,} of {total:,} bytes arrived")


def _known(url: str, part: Path, note: Path) -> dict:
    """Version and size of the file that `part` belongs to; a part is dropped of which they are not known."""
    try:
        known = read_json(note)
        if known["url"] == url and known["size"] and "version" in known:
            return known
    except (OSError, ValueError, KeyError, TypeError):
        pass
    part.unlink(missing_ok=True)
    return {}


def _goes_on(response: requests.Response, have: int, known: dict) -> bool:
    """Whether a partial answer continues what we have: from its end, of the same file."""
    if not have:
        return False
    rest = f"bytes {have}-{known['size'] - 1}/{known['size']}"
    return response.headers.get("Content-Range") == rest and _version(response) == known["version"]


def _version(response: requests.Response) -> str | None:
    """What tells one version of the file from another: a strong ETag, else the date."""
    tag = response.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def check_space(folder: Path, missing: int) -> None:
    """Raise DownloadError where so many bytes are to come into a folder and fewer are free."""
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise DownloadError(
            f"{folder}: {missing:,} bytes are still to come but {free:,} are free; "
            "make room, or name a folder on another disk"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: BaseException) -> str:
    """The innermost cause, without the wrapping of the libraries below."""
    text = str(error)
    found = re.findall(r"\[Errno -?\d+\] [^'\")]+|IncompleteRead\([^)]*\)|Read timed out|timed out", text)
    return found[-1] if found else text


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)


def progress_bar(label: str, total: int | None, done: int = 0, unit: str = "B") -> tqdm:
    """A bar with rate and time left on standard error; a line now and then where that is no terminal."""
    return tqdm(
        desc=label,
        total=total,
        initial=done,
        unit=unit,
        unit_scale=unit == "B",
        mininterval=0.2 if sys.stderr.isatty() else 15,
        file=sys.stderr,
    )
