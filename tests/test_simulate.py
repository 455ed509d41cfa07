"""Collecting frames with a renderer that needs no game: troubles are skipped and named, stopping loses nothing."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_renderer
import pytest
from fake_renderer import CRASHES, HANGS, LOADS_FOREVER, NAME, NEVER_STARTS, RAISES

from stkvlm_lib import __main__ as cli
from stkvlm_lib import parallel
from stkvlm_lib.config import ROOT
from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.data.frames import FLAT_SPLIT
from stkvlm_lib.game import simulate
from stkvlm_lib.game.game_assets import RenderError
from stkvlm_lib.game.race_plans import Recipe, as_json
from stkvlm_lib.game.race_process import Limits
from stkvlm_lib.game.simulate import CollectError, collect

LIMITS = Limits(start=60, frame=3.0, deaths=3)
SMOOTH = {FLAT_SPLIT: Recipe(tracks=("hacienda", "lighthouse", "scotland"), frames=3, size=(48, 32), saved=(24, 16))}


def rough(*tracks, **settings):
    return {FLAT_SPLIT: Recipe(tracks=tracks, **{"frames": 4, "size": (48, 32), "saved": (48, 32)} | settings)}


def run(recipes, out, workers=1, **more):
    return collect(recipes, out, workers=workers, renderer=NAME, limits=LIMITS, **more)


def truth(out):
    return {path.relative_to(out): path.read_bytes() for path in sorted(Path(out).rglob("*_info.json"))}


@pytest.fixture(scope="module")
def smooth(tmp_path_factory):
    """A set rendered without trouble by one worker, and its manifest."""
    out = tmp_path_factory.mktemp("smooth") / "set"
    return out, run(SMOOTH, out)


def test_a_set_is_whole_and_readable(smooth):
    out, manifest = smooth
    frames = read_frames(out, check_images=True)
    assert frames.summary()[0] | {"races": 3, "frames": 9, "views": 45} == frames.summary()[0]
    assert manifest["complete"] and (manifest["images"], manifest["frames"], manifest["skipped_frames"]) == (45, 9, 0)
    assert frames.views(FLAT_SPLIT)[0].image().size == (24, 16)
    assert {path.name for path in out.iterdir() if not path.name.startswith("0")} == {"manifest.json"}


def test_the_manifest_tells_recipe_races_and_the_hash_of_the_truth(smooth):
    out, manifest = smooth
    assert json.loads((out / "manifest.json").read_text()) == manifest
    assert manifest["recipe"] == as_json(SMOOTH) and manifest["versions"]["renderer"] == NAME
    infos = sorted(out.glob("*_info.json"))
    assert manifest["truth_sha256"] == hashlib.sha256(b"".join(path.read_bytes() for path in infos)).hexdigest()
    race = manifest["races"][1]
    own = [path for path in infos if path.name.startswith(race["number"])]
    assert race["truth_sha256"] == hashlib.sha256(b"".join(path.read_bytes() for path in own)).hexdigest()
    first = json.loads(own[0].read_text())
    assert (race["track"], race["seed"], race["karts"]) == (first["track"], first["race_seed"], first["karts"])
    assert race["frames"] == [0, 1, 2] and first["race"] == int(race["number"], 16)


def test_splits_have_folders_of_their_own(tmp_path):
    tracks = ("hacienda", "lighthouse", "scotland")
    splits = {split: Recipe(tracks=tracks, frames=1, size=(48, 32), saved=(48, 32)) for split in ("train", "test")}
    run(splits, tmp_path)
    summary = read_frames(tmp_path).summary()
    assert [(row["split"], row["races"]) for row in summary if row["races"]] == [("train", 3), ("test", 3)]


def test_two_workers_give_the_same_files_as_one(smooth, tmp_path):
    out, manifest = smooth
    assert run(SMOOTH, tmp_path, workers=2) == manifest
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert files == {path.name: path.read_bytes() for path in out.iterdir()}


def test_a_dask_cluster_of_two_workers_gives_the_same_truth(smooth, tmp_path):
    distributed = pytest.importorskip("distributed", reason="needs dask[distributed]")
    out, manifest = smooth
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local,
        parallel.cluster(local.scheduler_address),
    ):
        assert run(SMOOTH, tmp_path) == manifest
    assert {path.name for path in truth(tmp_path)} == {path.name for path in truth(out)}


@pytest.mark.parametrize(
    ("track", "reason"),
    [
        (HANGS, "took longer than 3 s"),
        (CRASHES, "the process ended with status 3"),
        (RAISES, "ValueError: nothing to see"),
    ],
)
def test_a_frame_that_fails_is_skipped_and_named_and_the_race_goes_on(tmp_path, track, reason):
    manifest = run(rough(track), tmp_path)
    race = manifest["races"][0]
    assert (race["frames"], race["skipped"]) == ([0, 2, 3], {"1": reason})
    assert manifest["complete"] and manifest["skipped_frames"] == 1
    assert not list(tmp_path.glob("000001_*")) and len(list(tmp_path.glob("*.jpg"))) == 15


def test_a_race_that_never_starts_is_given_up_and_named_and_the_others_are_rendered(tmp_path):
    manifest = run(rough(NEVER_STARTS, "hacienda"), tmp_path)
    lost, good = manifest["races"]
    assert lost["track"] == NEVER_STARTS and lost["frames"] == [] and len(lost["skipped"]) == 4
    assert set(lost["skipped"].values()) == {"race given up: the process ended with status 7: no such driver"}
    assert good["frames"] == [0, 1, 2, 3] and manifest["complete"]


def test_a_race_that_loads_forever_is_given_up_and_named(tmp_path):
    limits = Limits(start=1.0, frame=60, deaths=2)
    with pytest.raises(CollectError, match="fortmagma: race given up: took longer than 1 s"):
        collect(rough(LOADS_FOREVER), tmp_path, workers=1, renderer=NAME, limits=limits)


def test_when_nothing_can_be_rendered_it_says_why_and_another_try_begins_anew(tmp_path):
    for _ in range(2):
        with pytest.raises(CollectError, match="no frame could be rendered.*abyss.*status 7"):
            run(rough(NEVER_STARTS), tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["complete"] is False


def test_what_was_skipped_is_not_tried_again_unless_asked(tmp_path, monkeypatch):
    first = run(rough(CRASHES), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(simulate, "render_watched", lambda task: pytest.fail("nothing is left to render"))
        assert run(rough(CRASHES), tmp_path) == first
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["races"][0]["skipped"] = {"1": "for another reason"}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert run(rough(CRASHES), tmp_path, retry=True) == first


def test_the_skips_of_a_run_can_be_replayed(tmp_path):
    first = run(rough(CRASHES), tmp_path / "first")
    first["races"][0]["skipped"]["3"] = "took longer than 20 s"
    (tmp_path / "told.json").write_text(json.dumps(first))
    again = run(rough(CRASHES), tmp_path / "again", replay=tmp_path / "told.json")
    assert again["races"][0]["frames"] == [0, 2]
    assert again["races"][0]["skipped"] == first["races"][0]["skipped"]
    assert run(rough(CRASHES), tmp_path / "first", replay=tmp_path / "told.json") == again, "frames it lacks go"
    with pytest.raises(CollectError, match="another recipe.*frames=4, now 3"):
        run(rough(CRASHES, frames=3), tmp_path / "other", replay=tmp_path / "told.json")


def start_slow_run(out, workers=2):
    """A run in a process group of its own that takes many seconds."""
    script = (
        "from test_simulate import SMOOTH, run\n"
        "try:\n    run(SMOOTH, {out!r}, workers={workers})\nexcept KeyboardInterrupt:\n    raise SystemExit(130)"
    )
    environment = os.environ | {
        "FAKE_SECONDS": "0.3",
        "STKVLM_HEADLESS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), fake_renderer.here()]),
    }
    return subprocess.Popen(
        [sys.executable, "-c", script.format(out=str(out), workers=workers)],
        env=environment,
        start_new_session=True,
        # a test run in the background of a shell ignores Ctrl-C, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, seconds=120):
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds
        time.sleep(0.02)


def children_of_renderers():
    """Processes of this test that render."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes()
            if b"stkvlm_lib.game.race_process" in command and Path(entry.parent / "environ").read_bytes().count(
                b"FAKE_SECONDS"
            ):
                found.append(entry.parent.name)
        except OSError:
            continue
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_kill_9_and_a_restart_give_the_same_files_as_an_undisturbed_run(smooth, tmp_path):
    out, manifest = smooth
    process = start_slow_run(tmp_path)
    wait_for(lambda: truth(tmp_path))
    process.kill()
    process.wait()
    assert 0 < len(truth(tmp_path)) < 9
    wait_for(lambda: not children_of_renderers(), 5)  # nobody goes on rendering for a process that is gone
    (tmp_path / "000002_00_im.jpg").write_bytes(b"half")
    (tmp_path / ".000002_01_im.jpg.17.part").write_bytes(b"half")
    assert run(SMOOTH, tmp_path) == manifest
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in out.iterdir()
    }


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_everything_and_leaves_a_manifest_of_what_is_there(smooth, tmp_path, workers):
    process = start_slow_run(tmp_path, workers)
    wait_for(lambda: truth(tmp_path))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: every process of the group
    assert process.wait(timeout=20) == 130, process.stderr.read()
    assert process.stderr.read() == ""
    wait_for(lambda: not children_of_renderers(), 5)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert not manifest["complete"] and 0 < manifest["frames"] == len(truth(tmp_path)) < 9
    assert run(SMOOTH, tmp_path) == smooth[1]


def test_another_recipe_is_refused_with_what_differs(smooth):
    out, _ = smooth
    with pytest.raises(CollectError, match="another recipe.*all: frames=3, now 4.*a new folder"):
        run({FLAT_SPLIT: Recipe(**as_json(SMOOTH)[FLAT_SPLIT] | {"frames": 4})}, out)
    with pytest.raises(CollectError, match="another recipe.*splits all, now train"):
        run({"train": SMOOTH[FLAT_SPLIT]}, out)


def test_other_versions_are_refused(tmp_path):
    run(rough("hacienda", frames=1), tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["versions"]["renderer"] = "of yesterday"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CollectError, match="other versions.*of yesterday"):
        run(rough("hacienda", frames=1), tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", r"\[\] is not an object"),
        ("{}", "races: not there"),
        ('{"races": [{"number": 1, "skipped": {}}]}', r"races\[0\]\.number: 1 is not a valid string"),
        (
            '{"races": [{"number": "0000", "skipped": {"x": "?"}}]}',
            r"races\[0\]\.skipped\.x.*'x' is not a valid integer",
        ),
    ],
)
def test_a_manifest_to_replay_that_is_none_is_named_with_the_place_in_it(smooth, tmp_path, text, said):
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(ValueError, match=rf"other\.json: {said}.*; give the manifest\.json of a rendered set"):
        run(SMOOTH, smooth[0], replay=tmp_path / "other.json")


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(CollectError, match="not empty"):
        run(SMOOTH, tmp_path)
    with pytest.raises(CollectError, match="not a folder"):
        run(SMOOTH, tmp_path / "letter.txt")
    assert (tmp_path / "letter.txt").read_text() == "dear"


def test_a_second_run_into_the_same_folder_is_refused(tmp_path):
    process = start_slow_run(tmp_path)
    try:
        wait_for(lambda: truth(tmp_path))
        with pytest.raises(CollectError, match="another process"):
            run(SMOOTH, tmp_path)
    finally:
        process.kill()
        process.communicate()


def test_progress_is_told_by_races(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("STKVLM_HEADLESS", raising=False)
    run(rough(CRASHES), tmp_path)
    assert "races: 100%" in capsys.readouterr().err


def test_the_command_without_the_game_says_what_to_install(tmp_path, monkeypatch, capsys):
    def load_game():
        raise RenderError('pip install -e ".[render]"')

    monkeypatch.setattr(simulate, "load_game", load_game)
    assert cli.main(["render", str(tmp_path / "new")]) == 1
    assert capsys.readouterr().err == 'error: pip install -e ".[render]"\n'
    assert not (tmp_path / "new").exists()


def test_the_command_when_interrupted_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(simulate, "collect", interrupted)
    assert cli.main(["render", str(tmp_path)]) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_the_command_renders_and_writes_a_card(tmp_path, monkeypatch, capsys):
    def without_the_game(recipes, out, **options):
        return collect(SMOOTH, out, renderer=NAME, limits=LIMITS)

    monkeypatch.setattr(simulate, "collect", without_the_game)
    monkeypatch.delenv("STKVLM_HEADLESS", raising=False)
    assert cli.main(["render", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("45 pictures in 3 races, 0 frames skipped\n") and f"-p FRAMES_DIR {tmp_path}" in said
    assert "| all | 3 | 9 | 45 | 3 |" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--tracks", "mines", "overworld"], "overworld"),
        (["--recipe", "absent.json"], "absent.json"),
        (["--recipe", "absent.json", "--seed", "1"], "leave out --seed"),
    ],
)
def test_a_wrong_recipe_is_one_line_and_status_2(tmp_path, capsys, arguments, named):
    assert cli.main(["render", str(tmp_path / "new"), *arguments]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and named in message
    assert not (tmp_path / "new").exists()


def test_the_command_reads_a_recipe_or_the_one_of_a_manifest(smooth, tmp_path, monkeypatch):
    asked = []

    def note(recipes, *given, **options):
        asked.append(recipes)
        raise CollectError("enough")

    monkeypatch.setattr(simulate, "collect", note)
    (tmp_path / "recipe.json").write_text(json.dumps({"train": {"races": 3}, "test": {}}))
    assert cli.main(["render", "x", "--recipe", str(tmp_path / "recipe.json")]) == 1
    assert cli.main(["render", "x", "--replay", str(smooth[0] / "manifest.json")]) == 1
    assert cli.main(["render", "x", "--images", "60", "--tracks", "mines", "--seed", "4"]) == 1
    assert asked[0] == {"train": Recipe(races=3), "test": Recipe()}
    assert asked[1] == SMOOTH
    assert asked[2][FLAT_SPLIT].tracks == ("mines",) and asked[2][FLAT_SPLIT].images >= 60


@pytest.mark.render
def test_the_game_gives_the_same_truth_again_whoever_renders_and_in_whatever_order(tmp_path):
    settings = {"frames": 2, "views": 2, "karts_max": 7, "size": (96, 64), "saved": (96, 64), "warm_up_max": 9.0}
    recipes = {FLAT_SPLIT: Recipe(tracks=("hacienda", "lighthouse", "mines"), **settings)}
    first = collect(recipes, tmp_path / "first", workers=2)
    assert first["complete"] and first["images"] == 12 and first["versions"]["PySuperTuxKart2"]
    for path in [*(tmp_path / "first").glob("000[12]*"), *(tmp_path / "first").glob("000000_*")]:
        path.unlink()
    again = collect(recipes, tmp_path / "first", workers=1)
    assert again["truth_sha256"] == first["truth_sha256"]
    assert len(read_frames(tmp_path / "first", check_images=True).views(FLAT_SPLIT)) == 12
