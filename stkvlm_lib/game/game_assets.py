"""The game's data files: found where they already are, or laid out from Debian's package.

PySuperTuxKart2 0.7.4 wants the data of SuperTuxKart 1.5 and downloads it at its first start. Debian's package
`supertuxkart-data` (1.4) serves as well when laid out under a folder of symbolic links.
"""

import os
from pathlib import Path

from stkvlm_lib.config import Failure
from stkvlm_lib.files import cache_folder

DATA_VARIABLE = "SUPERTUXKART_DATADIR"
DEBIAN_DATA = Path("/usr/share/games/supertuxkart/data")
DEBIAN_PACKAGES = "supertuxkart-data libgl1 libegl1 libgl1-mesa-dri"
GAME_VERSION = "1.5"
VERSION_FILE = f"supertuxkart.{GAME_VERSION}"
OLD_SKIN, NEW_SKIN = "classic", "cartoon"
"""The skin that the game asks for at its start, and the one of the same size in Debian's package."""
INSTALL_PACKAGES = f"install Debian's packages (apt-get install {DEBIAN_PACKAGES})"


class RenderError(Failure):
    """The game cannot be used; the message says what is missing and what to do."""


def default_folder() -> Path:
    """Where `prepare_assets` lays out the data when no folder is named."""
    return cache_folder() / "stkvlm" / "supertuxkart"


def prepare_assets(folder: Path, package: Path | None = None) -> Path:
    """Lay out the data of Debian's package under `folder`/data as symbolic links. Returns `folder`.

    package: its data folder; None means where Debian installs it. Links that are there already stay; links of an
    earlier package version are renewed. Raises RenderError when the package is missing.
    """
    package = package or DEBIAN_DATA
    if not (package / "stk_config.xml").is_file():
        raise RenderError(f"{package}: no game data here; {INSTALL_PACKAGES}")
    data = folder / "data"
    (data / "skins").mkdir(parents=True, exist_ok=True)
    for entry in package.iterdir():
        if entry.name != "skins":
            _link(data / entry.name, entry)
    for skin in (package / "skins").iterdir():
        _link(data / "skins" / skin.name, skin)
    if not (package / "skins" / OLD_SKIN).exists():
        _link(data / "skins" / OLD_SKIN, Path(NEW_SKIN))
    if not (data / VERSION_FILE).exists():  # else it may be a link into the package, which only root may touch
        (data / VERSION_FILE).touch()
    check_assets(folder)
    return folder


def check_assets(folder: Path) -> None:
    """Raise RenderError unless `folder` holds the game's data; with a wrong folder the game ends the process."""
    needed = (VERSION_FILE, "stk_config.xml", "karts", "tracks", "shaders", f"skins/{OLD_SKIN}")
    missing = [name for name in needed if not (folder / "data" / name).exists()]
    if missing:
        raise RenderError(
            f"{folder}: not a data folder of SuperTuxKart {GAME_VERSION} (data/{missing[0]} is missing); unset "
            f"{DATA_VARIABLE}, or name a folder made by `python -m stkvlm_lib assets`"
        )


def find_assets() -> Path | None:
    """The data folder to start the game with, or None when PySuperTuxKart2 has to download its own.

    In this order: the folder named by SUPERTUXKART_DATADIR, what PySuperTuxKart2 has downloaded, the layout of Debian's
    package (made here when the package is installed). Raises RenderError for a named folder that is none.
    """
    named = os.environ.get(DATA_VARIABLE)
    if named:
        check_assets(Path(named))
        return Path(named)
    downloaded = cache_folder() / "PySuperTuxKart2" / GAME_VERSION
    if (downloaded / "__downloaded__.txt").is_file():
        return downloaded
    if DEBIAN_DATA.is_dir():
        return prepare_assets(default_folder())
    return None


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and Path(os.readlink(link)) == target:
        return
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.symlink_to(target)
    fresh.replace(link)
