"""Finished steps handed on from one run of a batch to another that has the same parameters for them.

Files are linked where the disk allows, as every one of them is replaced and never changed in place; notebooks, which
papermill writes in place, are copied. The stamp is written last.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from stkvlm_lib import runs
from stkvlm_lib.batch.plan import SHARED_STEPS, PlannedRun
from stkvlm_lib.files import read_object, write_json

BESIDE = {"01": ("figures/data_*.png", "notebooks/01_*"), "02": ("figures/qa_*.png", "notebooks/02_*", "dataset/**/*")}
"""What a step leaves beside the artefacts in its manifest."""


def leaders(planned: Sequence[PlannedRun]) -> dict[str, PlannedRun]:
    """Name of a run -> the run that makes the shared steps for it and all others with the same parameters for them:
    one that has them done already, else the first."""
    first: dict[str, PlannedRun] = {}
    for run in sorted(planned, key=lambda run: not run.has_shared):
        first.setdefault(_choice(run), run)
    return {run.name: first[_choice(run)] for run in planned}


def _choice(run: PlannedRun) -> str:
    return repr([run.recorded[step] for step in SHARED_STEPS])


def hand_on(source: PlannedRun, target: PlannedRun) -> list[str]:
    """Give the target the shared steps that it lacks; -> those given.

    Nothing is given where the source's parameters or artefacts are not those that were recorded: then the run makes the
    step itself.
    """
    given = []
    for step in SHARED_STEPS:
        if runs.is_done(target.folder, step):
            continue
        if not _is_sound(source.folder, step, target.recorded[step]):
            break
        for name in _files(source.folder, step):
            _take_over(source.folder / name, target.folder / name)
        _record(source, target, step)
        given.append(step)
    return given


def _is_sound(folder: Path, step: str, wanted: dict) -> bool:
    """Whether a step is done there with these parameters, and its artefacts have the hashes that were recorded."""
    if not runs.is_done(folder, step):
        return False
    try:
        recorded = _artefacts(folder, step)
        same = runs.recorded_steps(folder).get(step) == wanted
        return same and all(runs.hash_of(folder / name) == value for name, value in recorded.items())
    except (OSError, ValueError, KeyError):
        return False


def _artefacts(folder: Path, step: str) -> dict[str, str]:
    return read_object(folder / "manifest.json")["steps"][step]["artefacts"]


def _files(folder: Path, step: str) -> Iterator[str]:
    beside = (path for pattern in BESIDE[step] for path in folder.glob(pattern) if path.is_file())
    named = {*_artefacts(folder, step), *(path.relative_to(folder).as_posix() for path in beside)}
    yield from sorted(name for name in named if not Path(name).name.startswith("."))


def _take_over(source: Path, target: Path) -> None:
    """A link to the same content, or a copy where no link can be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if source.suffix not in (".ipynb", ".html"):
        with suppress(OSError):  # another disk, or one that knows no links
            return os.link(source, target)
    shutil.copy2(source, target)


def _record(source: PlannedRun, target: PlannedRun, step: str) -> None:
    """Enter a step into the target's records as its own run would have, with where it comes from."""
    config = runs.recorded_steps(target.folder)
    write_json(target.folder / "config.json", config | {step: target.recorded[step]})
    there = read_object(source.folder / "manifest.json")
    own = read_object(target.folder / "manifest.json", missing_ok=True)
    kept = {name: value for name, value in own.get("steps", {}).items() if name < step and name in config}
    entry = there["steps"][step] | {"made_by": source.run_id}
    manifest = there | own | {"run_id": target.name, "steps": kept | {step: entry}}
    write_json(target.folder / "manifest.json", manifest)
    write_json(runs.stamp_path(target.folder, step), read_object(runs.stamp_path(source.folder, step)))
