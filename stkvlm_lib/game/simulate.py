"""The game as a source of frames: renders the races of a recipe into a data folder, in worker processes.

`collect` can be stopped at any time and started again; it goes on with what is missing. A frame that hangs or crashes
the game is skipped, and named with its reason in the folder's `manifest.json`, which also holds the recipe, the
versions, every race, and hashes of the truth (the `_info.json` files).
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from stkvlm_lib import __version__
from stkvlm_lib.files import read_json
from stkvlm_lib.game.game_assets import DEBIAN_DATA, find_assets
from stkvlm_lib.game.pystk_adapter import load_game
from stkvlm_lib.game.race_plans import FLAT_SPLIT, TRACKS, Recipes, plan_races, read_recipes, recipe_for
from stkvlm_lib.game.race_process import GAME, Limits, RaceTask, render_watched
from stkvlm_lib.game.render_folder import CollectError, Counts, RenderFolder, package_version
from stkvlm_lib.parallel import Workers

GAME_PACKAGE = "PySuperTuxKart2"
_REPORT_SECONDS = 2.0
_HOPELESS = 3


@dataclass(frozen=True)
class Progress:
    """How far a collection has come. rendered: pictures since its start, `seconds` ago."""

    counts: Counts
    rendered: int
    seconds: float

    @property
    def rate(self) -> float:
        """Pictures a second since the start."""
        return self.rendered / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        counts = self.counts
        time_left = f", about {_duration(counts.left / self.rate)} left" if counts.left and self.rate else ""
        skipped = f", {counts.skipped} skipped" if counts.skipped else ""
        return f"{counts.held:,} of {counts.wanted:,} pictures, {self.rate:.1f} a second{skipped}{time_left}"


def collect(
    recipes: Recipes,
    out: str | Path,
    *,
    workers: int = 0,
    replay: str | Path | None = None,
    retry: bool = False,
    report: Callable[[Progress], None] | None = None,
    renderer: str = GAME,
    limits: Limits | None = None,
) -> dict[str, Any]:
    """Render what is missing of a set into `out`, and return its manifest.

    workers: processes, 0 for one a core; inside `parallel.cluster` the cluster's. replay: a manifest
    whose skips are repeated, so that the set holds exactly the frames of that one. retry: try again what was skipped.
    report: called every two seconds and at the end. Raises PlanError, RenderError (the game is not there) or
    CollectError before anything is rendered, CollectError too when no race renders at all.
    """
    races = plan_races(recipes)
    versions = {"stkvlm": __version__} | (game_versions() if renderer == GAME else {"renderer": renderer})
    folder = RenderFolder(Path(out).absolute(), recipes, races, versions)
    with folder.locked():
        folder.begin()
        folder.look(retry)
        if replay:
            folder.replay(Path(replay))
        try:
            with _reporting(folder, report):
                _render_all(folder, workers, renderer, limits or Limits())
        finally:
            folder.look()
            if replay:
                folder.replay(Path(replay))
            manifest = folder.write_manifest()
        folder.forget_skips()
    return manifest


def game_versions() -> dict[str, str]:
    """Versions of what decides pictures and truth. Raises RenderError saying what to install when it is not there."""
    load_game()
    assets = find_assets()
    debian = assets is not None and (assets / "data" / "karts").resolve().is_relative_to(DEBIAN_DATA)
    return {
        "pillow": metadata.version("pillow"),
        GAME_PACKAGE: metadata.version(GAME_PACKAGE),
        "assets": f"supertuxkart-data {package_version('supertuxkart-data')}" if debian else f"those of {GAME_PACKAGE}",
    }


def choose_recipes(file: str | Path | None, images: int, tracks: Sequence[str], seed: int) -> Recipes:
    """The recipes of a file where one is named, else of a set without splits; no tracks means all."""
    return read_recipe_file(file) if file else {FLAT_SPLIT: recipe_for(images, tracks or TRACKS, seed)}


def skipped_rows(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each race and reason: which frames were skipped."""
    rows = []
    for race in manifest["races"]:
        for reason in dict.fromkeys(race["skipped"].values()):
            frames = [frame for frame, why in race["skipped"].items() if why == reason]
            place = {"race": race["number"], "split": race["split"], "track": race["track"]}
            rows.append(place | {"frames": ", ".join(frames), "why": reason})
    return rows


def read_recipe_file(path: str | Path) -> Recipes:
    """A recipe file, or the manifest of a rendered set, whose recipe is then meant."""
    data = read_json(path, "give a recipe file; the README shows one")
    return read_recipes(data["recipe"] if isinstance(data, dict) and "races" in data and "recipe" in data else data)


def printed(every: float = 20.0) -> Callable[[Progress], None]:
    """A `report` for `collect`: one line that rewrites itself on a terminal or in a notebook, else one every 20 s."""
    rewrites = not os.environ.get("STKVLM_HEADLESS") and (sys.stdout.isatty() or "ipykernel" in sys.modules)
    last: float | None = None

    def show(progress: Progress) -> None:
        nonlocal last
        over = not progress.counts.left
        if rewrites:
            print(f"\r{progress}   ", end="\n" if over else "", flush=True)
        elif last is None or progress.seconds - last >= every or over:
            last = progress.seconds
            print(progress, flush=True)

    return show


def _render_all(folder: RenderFolder, workers: int, renderer: str, limits: Limits) -> None:
    """Render the races that are not done. Raises CollectError when the first few all come to nothing."""
    tasks = _tasks(folder, renderer, limits)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    results = Workers(workers or cores, quiet=True).run(render_watched, ((t,) for t in tasks), "races", len(tasks))
    fruitless = []
    for task, skipped in zip(tasks, results, strict=True):
        if len(skipped) < task.plan.frames:
            fruitless = None  # something was rendered: what fails from now on is named, and the rest goes on
        elif fruitless is not None:
            fruitless.append(f"{task.plan.track}: {skipped[0]}")
        if fruitless and len(fruitless) >= min(_HOPELESS, len(tasks)):
            folder.forget_skips()  # another try begins anew
            raise CollectError(f"no frame could be rendered ({'; '.join(fruitless)})")


def _tasks(folder: RenderFolder, renderer: str, limits: Limits) -> list[RaceTask]:
    paths = tuple(path for path in sys.path if path)
    return [
        RaceTask(
            number=race.number,
            plan=race.plan,
            folder=folder.of(race.split),
            state=folder.state(race),
            held=frozenset(folder.held[race.number]),
            skipped=folder.skipped[race.number],
            size=folder.recipes[race.split].size,
            saved=folder.recipes[race.split].saved,
            quality=folder.recipes[race.split].quality,
            renderer=renderer,
            limits=limits,
            paths=paths,
        )
        for race in folder.races
        if not folder.is_done(race)
    ]


@contextmanager
def _reporting(folder: RenderFolder, report: Callable[[Progress], None] | None) -> Iterator[None]:
    """Look every two seconds at what the folder holds, which works for workers on any machine, and report it."""
    if report is None:
        yield
        return
    started, begun, over = time.monotonic(), folder.counts().held, threading.Event()

    def look() -> None:
        counts = folder.counts()
        report(Progress(counts, counts.held - begun, time.monotonic() - started))

    def watch() -> None:
        while not over.wait(_REPORT_SECONDS):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        look()


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
