"""What the project needs of an environment, by pyproject.toml, and which checkout's library is installed in it."""

import json
import os
import re
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path
from urllib.parse import unquote, urlsplit

from stkvlm_lib.config import ROOT

NAME = "stkvlm"
PROJECT_FILE = ROOT / "pyproject.toml"


def pins(*extras: str) -> dict[str, str]:
    """Package -> version as pinned in pyproject.toml, torch first; those of the named extras too."""
    project = tomllib.loads(PROJECT_FILE.read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *_extra_lines(project["optional-dependencies"], extras)]
    return dict(line.split("==") for line in lines)


def _extra_lines(optional: dict[str, list[str]], extras: tuple[str, ...]) -> Iterator[str]:
    """An extra may name another one of this project, as in `stkvlm[cluster]`."""
    for line in (line for extra in extras for line in optional[extra]):
        if inner := re.fullmatch(rf"{NAME}\[(\w+)\]", line):
            yield from _extra_lines(optional, (inner[1],))
        else:
            yield line


def unmet(wanted: dict[str, str]) -> dict[str, str]:
    """Those that this interpreter lacks or has in another version (2.13.0+cpu counts as 2.13.0)."""
    return {name: pinned for name, pinned in wanted.items() if _installed(name) != pinned}


def _installed(name: str) -> str | None:
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return None
    return re.sub(r"\+.*", "", found.version or "")


def is_linked() -> bool:
    """Whether `pip install -e` has installed this checkout's library here, and not that of another one or a copy.

    Looked for in the environment's own folder alone: what stands before it in sys.path is no installation.
    """
    found = next(iter(distributions(name=NAME, path=[sysconfig.get_path("purelib")])), None)
    origin = json.loads(found.read_text("direct_url.json") or "{}") if found else {}
    editable = origin.get("dir_info", {}).get("editable", False)
    return editable and Path(unquote(urlsplit(origin["url"]).path)).resolve() == ROOT


def lead_to_this_library() -> None:
    """Processes started from here find this checkout's library and this environment's programs and kernel first."""
    _put_first("PYTHONPATH", str(ROOT))
    _put_first("PATH", str(Path(sys.executable).parent))
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")


def _put_first(variable: str, folder: str) -> None:
    others = [part for part in os.environ.get(variable, "").split(os.pathsep) if part and part != folder]
    os.environ[variable] = os.pathsep.join([folder, *others])
