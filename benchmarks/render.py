"""How fast frames are rendered, and what was tried for it: pictures a second over ten tracks.

    python benchmarks/render.py [--out outputs/benchmarks/render] [--again]

Two tables. The first is `collect` as people use it, with one and with two workers: starting the game, loading races,
playing, drawing and writing. The second renders the same moments of the same races in one process with one setting
changed at a time. Every line is kept in `render.jsonl` as it is measured, and a restart measures what is missing.
Close other programs: the machine's load before each line is recorded beside it.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree

from stkvlm_lib.config import ROOT
from stkvlm_lib.data.frames import FLAT_SPLIT
from stkvlm_lib.game.race_plans import Recipe, plan_races
from stkvlm_lib.game.simulate import collect
from stkvlm_lib.typed import read_rows

TRACKS = (
    *("abyss", "candela_city", "cocoa_temple", "hacienda", "lighthouse"),
    *("sandtrack", "scotland", "snowmountain", "xr591", "zengarden"),
)
WORKERS = (1, 2)
BASE = {"size": [300, 200], "views": 5, "preset": "ld", "threads": 1, "every_step": False, "anisotropy": False}
TRIED = {
    "as it is: 300x200, 5 views": {},
    "every step drawn": {"every_step": True},
    "anisotropic filter as the game has it": {"anisotropy": True},
    "preset sd": {"preset": "sd"},
    "450x300": {"size": [450, 300]},
    "1 view a frame": {"views": 1},
    "2 views a frame": {"views": 2},
    "4 views a frame": {"views": 4},
    "8 views a frame": {"views": 8},
    "drawing threads: 2": {"threads": 2},
    "as it is, once more": {},
}
"""Line of the table -> what it changes of BASE. The first is measured again at the end, which shows drift."""
FRAMES, LIMIT = 4, 240.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "benchmarks" / "render")
    parser.add_argument("--again", action="store_true", help="measure everything anew")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure_setting(options.one)))
        return
    if options.again:
        rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "render.jsonl"
    done = {row["what"] for row in read_rows(results, dict)} if results.is_file() else set()
    for what, measure in lines(options.out).items():
        if what not in done:
            row = {"what": what, "load": round(os.getloadavg()[0], 1)} | measure()
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), file=sys.stderr)
    print(tables(read_rows(results, dict)))


def lines(out: Path) -> dict[str, Callable[[], dict]]:
    """Everything that is measured, by its line in the tables."""
    collected = {f"{n} worker{'s' * (n > 1)}": lambda n=n: measure_collect(out / f"set{n}", n) for n in WORKERS}
    return collected | {what: lambda changed=changed: in_a_process(BASE | changed) for what, changed in TRIED.items()}


def measure_collect(folder: Path, workers: int) -> dict:
    """500 pictures in ten races, all in."""
    rmtree(folder, ignore_errors=True)
    begin = time.perf_counter()
    made = collect({FLAT_SPLIT: Recipe(tracks=TRACKS)}, folder, workers=workers)
    seconds = time.perf_counter() - begin
    rmtree(folder)
    truth = made["truth_sha256"]
    return {"pictures": made["images"], "seconds": round(seconds, 1), "skipped": made["skipped_frames"], "truth": truth}


def in_a_process(setting: dict) -> dict:
    """A process can start the game only once, and with the anisotropic filter some frames never end."""
    environment = os.environ | {"LP_NUM_THREADS": str(setting["threads"]), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, "--one", json.dumps(setting)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {"failure": f"not done after {LIMIT:.0f} s"}
    if done.returncode:
        return {"failure": f"status {done.returncode}: {done.stderr.strip()[-300:]}"}
    return json.loads(done.stdout.splitlines()[-1])


def measure_setting(setting: dict) -> dict:
    """Seconds of loading (the game, then race and warm-up ten times), and of playing and drawing the moments saved."""
    from stkvlm_lib.game import race_renderer

    recipe = Recipe(tracks=TRACKS, karts_min=8, frames=FRAMES, views=setting["views"], size=tuple(setting["size"]))
    loading = drawing = pictures = 0
    change_renderer(setting)
    for race in plan_races({FLAT_SPLIT: recipe}):
        begin, first = time.perf_counter(), []
        for frame in race_renderer.render_race(
            race.plan, recipe.size, on_frame=lambda _, first=first: first.append(time.perf_counter())
        ):
            pictures += len(frame.images)
        loading, drawing = loading + first[0] - begin, drawing + time.perf_counter() - first[0]
    return {"pictures": pictures, "loading": round(loading, 1), "drawing": round(drawing, 2)}


def change_renderer(setting: dict) -> None:
    """Change preset, filter, and what is drawn, for the rest of this process."""
    from stkvlm_lib.game import pystk_adapter, race_renderer

    game = pystk_adapter.load_game()
    if setting["preset"] != "ld":
        game.GraphicsConfig.ld = getattr(game.GraphicsConfig, setting["preset"])
    if setting["anisotropy"]:
        pystk_adapter.turn_off_anisotropy = lambda: None
    if setting["every_step"]:
        play = pystk_adapter.play

        def play_and_draw(race, cameras, seconds):
            play(race, cameras, seconds)
            pystk_adapter.draw(race, cameras, setting["views"])
            race.config.step_size = seconds

        race_renderer.adapter.play = play_and_draw


def tables(rows: list[dict]) -> str:
    """Both tables as Markdown."""
    by_what = {row["what"]: row for row in rows}
    base = by_what[next(iter(TRIED))]
    text = [
        "| collecting 500 pictures | pictures/s | seconds | skipped frames | load before |",
        "|---|--:|--:|--:|--:|",
    ]
    for n in WORKERS:
        row = by_what[f"{n} worker{'s' * (n > 1)}"]
        rate = row["pictures"] / row["seconds"]
        text.append(f"| {row['what']} | {rate:.1f} | {row['seconds']} | {row['skipped']} | {row['load']} |")
    same = len({row["truth"] for row in rows if "truth" in row}) == 1
    text += ["", f"The truth of both is {'the same' if same else 'NOT the same'}.", ""]
    text += ["| one process | pictures/s | of the first | loading a race, s | load before |", "|---|--:|--:|--:|--:|"]
    for what in TRIED:
        row = by_what[what]
        if "failure" in row:
            text.append(f"| {what} | {row['failure']} | | | {row['load']} |")
            continue
        rate = row["pictures"] / row["drawing"]
        relative = rate / (base["pictures"] / base["drawing"])
        loading = row["loading"] / len(TRACKS)
        text.append(f"| {what} | {rate:.1f} | {relative:.2f} | {loading:.1f} | {row['load']} |")
    return "\n".join(text)


if __name__ == "__main__":
    main()
