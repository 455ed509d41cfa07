"""A run folder as far as it can be read: what is missing or broken is named once, and the rest is there."""

import json
import shutil

import pytest
from hand_made import scored_run
from scored_folder import SAID, answers, make_frames, make_scored
from tiny import prediction

from stkvlm_lib.analysis.accuracy import Accuracy
from stkvlm_lib.analysis.calibration import Calibration
from stkvlm_lib.analysis.error_budget import ErrorBudget
from stkvlm_lib.analysis.further_sets import MultipleChoice
from stkvlm_lib.analysis.scored_run import ScoredRun, open_scored
from stkvlm_lib.analysis.slices import Slices
from stkvlm_lib.analysis.story import measure
from stkvlm_lib.config import ROOT, ConfigError, ErrorConfig
from stkvlm_lib.data.frames import FramesError
from stkvlm_lib.evaluation.predictions import HEADLINE, ChoicePrediction, further_file, write_answers
from stkvlm_lib.figures.style import message, save
from stkvlm_lib.files import read_json, write_json

FILES = {
    "metrics.json": ("metrics", {}),
    HEADLINE: ("predictions", []),
    "manifest.json": ("manifest", {}),
    "config.json": ("config", {}),
    "train_log.jsonl": ("log", []),
    "training.json": ("training", {}),
    "adapter/stkvlm.json": ("adapter", {}),
}
OPTIONAL = ("training.json", "adapter/stkvlm.json")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = make_scored(tmp_path_factory.mktemp("runs") / "run")
    write_json(folder / "metrics.json", measure(ScoredRun(folder, metrics={"split": "test", "train_seconds": 9.0})))
    write_json(folder / "training.json", {"pictures": 4})
    write_json(folder / "adapter" / "stkvlm.json", {"base": {"name": "embedded"}})
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A complete run, to be broken; its frames lie where they were made."""
    return shutil.copytree(made, tmp_path / "run")


def test_a_complete_run_is_read_without_a_problem(folder):
    run = ScoredRun(folder)
    assert all(getattr(run, name) for name, _ in FILES.values()) and run.problems == []
    assert len(run.predictions) == len(run.facts) == 63 and run.split == "test" and run.run_id == "run"
    assert (run.settings.bootstrap, run.settings.seed, run.settings.run_dir) == (100, 3, str(folder))
    assert (run.interval.unit, run.interval.n) == ("race", 3)
    choices = run.answers("mc", ChoicePrediction)
    assert len(choices) == 13 and choices[0].candidates[0] == "There are 0 karts."


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_there_is_named_once_unless_a_run_can_do_without(folder, name):
    (folder / name).unlink()
    run, (attribute, empty) = ScoredRun(folder), FILES[name]
    assert getattr(run, attribute) == getattr(run, attribute) == empty
    assert run.problems == ([] if name in OPTIONAL else [f"{name}: not there"])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("text", ["{", "\x00", "\xff", '{"a": 1}\n{'])
def test_a_broken_file_is_named_without_the_place_of_the_run(folder, name, text):
    (folder / name).write_bytes(text.encode("latin-1"))
    run, (attribute, empty) = ScoredRun(folder), FILES[name]
    assert getattr(run, attribute) == empty
    (problem,) = run.problems
    assert problem.startswith(f"{name}: not readable (") and str(folder) not in problem and "\n" not in problem


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".json")])
def test_a_file_of_another_kind_is_named(folder, name):
    (folder / name).write_text("[1]")
    run = ScoredRun(folder)
    assert getattr(run, FILES[name][0]) == {} and run.problems == [f"{name}: holds a list, not a dict"]


def test_a_further_file_is_missed_only_where_it_is_broken(folder):
    further_file(folder, "mc").unlink()
    further_file(folder, "extended").write_text('{"question": "?"}\n')
    run = ScoredRun(folder)
    assert run.answers("mc", ChoicePrediction) == [] and run.problems == []
    assert run.answers("extended") == []
    (problem,) = run.problems
    assert problem.startswith("predictions_extended.jsonl: not readable (") and "04_evaluate" in problem


def test_a_run_without_a_training_has_no_log_to_miss(folder):
    write_json(folder / "metrics.json", {"split": "test", "train_seconds": None})
    (folder / "train_log.jsonl").unlink()
    run = ScoredRun(folder)
    assert run.log == [] and run.problems == []


def test_figures_are_those_of_the_metrics_and_measured_where_these_have_none(folder):
    metrics = read_json(folder / "metrics.json")
    del metrics["slices"]
    write_json(folder / "metrics.json", metrics | {"exact": 0.25})
    run = ScoredRun(folder)
    assert run.figures(Accuracy).exact == 0.25, "as they stand"
    assert run.figures(Slices) == Slices.measure(run) is not None and run.figures(Slices) is run.figures(Slices)
    assert ScoredRun(folder, metrics={}).figures(Accuracy).exact == pytest.approx(59 / 63, abs=1e-6)


def test_a_broken_figure_is_named_with_its_place_and_the_others_are_there(folder):
    metrics = read_json(folder / "metrics.json")
    metrics["error_budget"]["errors"] = "many"
    metrics["calibration"]["bins"][0]["n"] = None
    write_json(folder / "metrics.json", metrics | {"mc": "x"})
    run = ScoredRun(folder)
    kinds = (ErrorBudget, Calibration, MultipleChoice)
    assert [run.figures(kind) for kind in kinds] == [run.figures(kind) for kind in kinds] == [None] * 3
    assert run.problems == [
        "metrics.json: error_budget.errors: 'many' is not a valid integer",
        "metrics.json: calibration.bins[0].n: None is not a valid integer",
        "metrics.json: mc: 'x' is not an object",
    ]
    assert run.figures(Accuracy) is not None


def test_without_answers_there_are_the_figures_of_the_metrics_alone(folder):
    (folder / HEADLINE).unlink()
    metrics = read_json(folder / "metrics.json")
    del metrics["slices"]
    write_json(folder / "metrics.json", metrics)
    run = ScoredRun(folder)
    assert run.figures(Accuracy).n == 63 and run.figures(Slices) is None and run.facts == []


def test_frames_that_are_gone_or_others_are_named_and_nothing_else_is_lost(folder, tmp_path):
    config = read_json(folder / "config.json")
    config["04"]["FRAMES_DIR"] = str(tmp_path / "gone")
    write_json(folder / "config.json", config)
    run = ScoredRun(folder)
    assert run.frames is None and run.facts == [] and run.figures(Slices) is not None
    assert len(run.problems) == 1 and run.problems[0].startswith("frames: ") and "gone" in run.problems[0]

    config["04"]["FRAMES_DIR"] = ""
    write_json(folder / "config.json", config)
    run = ScoredRun(folder)
    assert run.frames is None and run.facts == []
    assert run.problems == [
        f"frames: no picture {run.predictions[0].image_file} in {ROOT / 'frames'}; name the run's own in FRAMES_DIR"
    ]


def test_an_old_run_without_newer_keys_is_analysed_from_its_answers(folder):
    """As runs were before errors had a notebook of their own: fewer parameters and figures, and one that has gone."""
    config = read_json(folder / "config.json")
    kept = {name: config["04"][name] for name in ("SEED", "FRAMES_DIR", "BOOTSTRAP")}
    old = {"01": config["01"], "03": config["03"], "04": kept | {"COMPARE_RUN": "before", "GONE": 1}}
    write_json(folder / "config.json", old)
    families = {"ego": {"n": 6, "exact": 0.5}}
    write_json(folder / "metrics.json", {"split": "test", "n": 63, "exact": 0.9, "families": families})
    rows = [json.loads(line) for line in (folder / HEADLINE).read_text().splitlines()]
    for row in rows:
        for name in ("closed_prediction", "closed_correct", "closed_second", "closed_margin", "wording"):
            del row[name]
    (folder / HEADLINE).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    run = ScoredRun(folder)
    assert (run.settings.bootstrap, run.settings.error_rate, run.compare_run) == (100, 0.05, "before")
    assert run.figures(Accuracy).families["ego"].majority is None and run.figures(Accuracy).closed_exact is None
    assert run.figures(ErrorBudget).errors == len(SAID) and run.figures(Calibration).n == 63
    assert run.problems == []


def test_parameters_that_cannot_be_are_named_and_the_usual_ones_taken(folder):
    config = read_json(folder / "config.json")
    config["04"]["BOOTSTRAP"] = 3
    write_json(folder / "config.json", config)
    run = ScoredRun(folder)
    assert run.settings.bootstrap == 1000
    assert len(run.problems) == 1 and run.problems[0].startswith("config.json: BOOTSTRAP")
    write_json(folder / "config.json", {"04": [1], "05": "x"})
    run = ScoredRun(folder)
    assert run.settings.bootstrap == 1000 and run.compare_run == "" and run.problems == []


def test_the_run_to_compare_with_is_that_of_the_newest_step_that_names_one(folder):
    config = read_json(folder / "config.json")
    for given, expected in (({"04": "old", "05": ""}, "old"), ({"04": "old", "05": "new"}, "new"), ({}, "")):
        steps = {step: config[step] | {"COMPARE_RUN": given.get(step, "")} for step in ("04", "05")}
        write_json(folder / "config.json", steps)
        assert ScoredRun(folder).compare_run == expected
    assert ScoredRun(folder, compare_run="mine").compare_run == "mine"


def test_a_gallery_is_drawn_or_as_an_earlier_report_left_it(folder):
    drawn = []
    run = ScoredRun(folder)
    (shown,) = run.gallery("score_x", "Caption.", lambda frames: drawn.append(frames) or message("x"), "Alt.")
    assert drawn == [run.frames] and (shown.name, shown.caption, shown.alt) == ("score_x", "Caption.", "Alt.")

    bare = scored_run([prediction()], folder)
    assert bare.gallery("score_x", "Caption.", drawn.append) == [] and bare.problems == []
    save(message("earlier"), folder / "figures" / "score_x.png")
    (shown,) = bare.gallery("score_x", "Caption.", drawn.append)
    assert shown.figure == (folder / "figures" / "score_x.png").read_bytes() and len(drawn) == 1
    assert bare.pictures() == ["score_x"]
    (folder / "figures" / "score_x.png").write_bytes(b"no picture")
    assert bare.gallery("score_x", "Caption.", drawn.append) == []
    assert len(bare.problems) == 1 and bare.problems[0].startswith("figures/score_x.png: not readable")


def test_the_notebook_s_run_takes_other_frames_only_where_they_are_named(folder, tmp_path):
    assert open_scored(ErrorConfig(run_dir=str(folder))).frames.root == ScoredRun(folder).frames.root
    other = make_frames(tmp_path / "other")
    write_answers(answers(other, "test"), tmp_path / "run-b" / HEADLINE)
    run = open_scored(ErrorConfig(run_dir=str(folder), frames_dir=str(other.root), compare_run=str(tmp_path / "run-b")))
    assert run.frames.root == other.root and run.compare_run == str(tmp_path / "run-b")


def test_what_the_notebook_names_must_be_there(folder, tmp_path):
    with pytest.raises(FramesError):
        open_scored(ErrorConfig(run_dir=str(folder), frames_dir=str(tmp_path / "nowhere")))
    with pytest.raises(ConfigError, match="COMPARE_RUN: .*nothing: no such run"):
        open_scored(ErrorConfig(run_dir=str(folder), compare_run=str(tmp_path / "nothing")))
