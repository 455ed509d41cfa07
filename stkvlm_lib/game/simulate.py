"""The game as a source of frames: renders the races of a recipe into a data folder, in worker processes.

`collect` can be stopped at any time and started again; it goes on with what is missing. A frame that hangs or crashes
the game is skipped, and named with its reason in the folder's `manifest.json`, which also holds the recipe, the
versions, every race, and hashes of the truth (the `_info.json` files).
"""

import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from stkvlm_lib import __version__
from stkvlm_lib.files import read_json
from stkvlm_lib.game.game_assets import DEBIAN_DATA, find_assets
from stkvlm_lib.game.pystk_adapter import load_game
from stkvlm_lib.game.race_plans import FLAT_SPLIT, TRACKS, Recipes, plan_races, read_recipes, recipe_for
from stkvlm_lib.game.race_process import GAME, Limits, RaceTask, render_watched
from stkvlm_lib.game.render_folder import CollectError, RenderFolder, package_version
from stkvlm_lib.parallel import Workers
from stkvlm_lib.runs import cores

GAME_PACKAGE = "PySuperTuxKart2"
_HOPELESS = 3
"""When so many races have come to nothing and none to anything, the game itself is at fault."""


def collect(
    recipes: Recipes,
    out: str | Path,
    *,
    workers: int = 0,
    replay: str | Path | None = None,
    retry: bool = False,
    renderer: str = GAME,
    limits: Limits | None = None,
) -> dict[str, Any]:
    """Render what is missing of a set into `out`, and return its manifest.

    workers: processes, 0 for one a core; inside `parallel.cluster` the cluster's. replay: a manifest whose skips are
    repeated, so that the set holds exactly the frames of that one. retry: try again what was skipped. Raises PlanError,
    RenderError (the game is not there) or CollectError before anything is rendered, CollectError too when no race
    renders at all.
    """
    races = plan_races(recipes)
    versions = {"stkvlm": __version__} | (game_versions() if renderer == GAME else {"renderer": renderer})
    folder = RenderFolder(Path(out).absolute(), recipes, races, versions)
    with folder.locked():
        folder.begin()
        folder.look(replay, retry)
        try:
            _render_all(folder, workers, renderer, limits or Limits())
        finally:
            folder.look(replay)
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
    """The recipes of a file, or of the manifest of a rendered set; without a file, of a set without splits.

    No tracks means all.
    """
    if not file:
        return {FLAT_SPLIT: recipe_for(images, tracks or TRACKS, seed)}
    data = read_json(file, "give a recipe file; the README shows one")
    return read_recipes(data["recipe"] if isinstance(data, dict) and "races" in data and "recipe" in data else data)


def skipped_rows(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each race and reason: which frames were skipped."""
    rows = []
    for race in manifest["races"]:
        for reason in dict.fromkeys(race["skipped"].values()):
            frames = [frame for frame, why in race["skipped"].items() if why == reason]
            place = {"race": race["number"], "split": race["split"], "track": race["track"]}
            rows.append(place | {"frames": ", ".join(frames), "why": reason})
    return rows


def _render_all(folder: RenderFolder, workers: int, renderer: str, limits: Limits) -> None:
    """Render the races that are not done. Raises CollectError when the first few all come to nothing."""
    paths = tuple(path for path in sys.path if path)
    tasks = [
        RaceTask(
            race,
            folder.recipes[race.split],
            folder.of(race.split),
            folder.state(race),
            frozenset(folder.held[race.number]),
            folder.skipped[race.number],
            renderer,
            limits,
            paths,
        )
        for race in folder.races
        if not folder.is_done(race)
    ]
    results = Workers(workers or cores()).run(render_watched, ((task,) for task in tasks), "races", len(tasks))
    fruitless = []
    for task, skipped in zip(tasks, results, strict=True):
        if len(skipped) < task.race.plan.frames:
            fruitless = None  # something was rendered: what fails from now on is named, and the rest goes on
        elif fruitless is not None:
            fruitless.append(f"{task.race.plan.track}: {skipped[0]}")
        if fruitless and len(fruitless) >= min(_HOPELESS, len(tasks)):
            folder.forget_skips()  # another try begins anew
            raise CollectError(f"no frame could be rendered ({'; '.join(fruitless)})")
