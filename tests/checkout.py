"""A copy of what run_all.sh needs to set up and to check words, without notebooks, frames and models."""

import shutil
from pathlib import Path

from stkvlm_lib.config import ROOT


def copy_checkout(folder: Path) -> Path:
    """-> the folder, made."""
    folder.mkdir()
    for name in ("run_all.sh", "pyproject.toml", "environment.yml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "stkvlm_lib", folder / "stkvlm_lib", ignore=shutil.ignore_patterns("__pycache__"))
    return folder
