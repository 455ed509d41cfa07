"""benchmarks/finetuning.py: what its tables are made of, and that nothing is done twice."""

import importlib.util
import statistics
import sys

import pytest
from tiny import copy_frames, prediction

from stkvlm_lib.analysis.accuracy import score
from stkvlm_lib.analysis.intervals import Bootstrap
from stkvlm_lib.config import ROOT, ConfigError
from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.evaluation.predictions import write_answers
from stkvlm_lib.files import read_json, write_json
from stkvlm_lib.vlm import finetune, train_run

RACES = "abcdefgh"


@pytest.fixture
def benchmark(monkeypatch):
    spec = importlib.util.spec_from_file_location("finetuning", ROOT / "benchmarks" / "finetuning.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "finetuning", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def study(benchmark, bundled, tmp_path):
    return benchmark.Study(tmp_path, bundled, "cpu", {"BOOTSTRAP": "200"})


def answered(study, setting, right, pictures=0):
    """Leave the answers of a setting that has the question about each race in `right` right."""
    folder = study.folder / str(setting)
    rows = [prediction(race, "tux", "tux" if race in right else "gnu", "ego", blind_correct=None) for race in RACES]
    write_answers(rows, folder / "predictions.jsonl")
    write_json(folder / "metrics.json", score(rows, Bootstrap(rows, 100, 0)).as_json())
    write_json(folder / "training.json", {"pictures": pictures, "steps": pictures // 10})
    return setting


def test_seeds_are_told_with_mean_and_standard_deviation(benchmark, study):
    settings = [answered(study, benchmark.Setting(seed), RACES[: 4 + seed]) for seed in range(3)]
    figures, rows = benchmark.seed_table(study, settings)
    assert [row["strict exact match"] for row in rows] == ["all", "macro average", "ego"]
    assert figures["all"] == {
        "seed 0": 0.5, "seed 1": 0.625, "seed 2": 0.75, "mean": 0.625, "standard_deviation": 0.125
    }  # fmt: skip
    assert figures["all"]["standard_deviation"] == statistics.stdev([0.5, 0.625, 0.75])
    assert (rows[0]["mean"], rows[0]["standard deviation, points"]) == ("62.5%", "12.50")
    assert benchmark.seed_table(study, settings[:1])[0]["all"]["standard_deviation"] is None


def test_bits_are_paired_by_seed_and_pooled_by_race(benchmark, study):
    """One race of eight is lost by one seed of two."""
    four_bit = [answered(study, benchmark.Setting(seed), "abcd"[seed:]) for seed in (0, 1)]
    plain = [answered(study, benchmark.Setting(seed, "none"), "abcd") for seed in (0, 1)]
    figures, rows = benchmark.bits_table(study, four_bit, plain)
    assert (figures["pooled"]["n"], figures["pooled"]["n_clusters"]) == (16, 8)
    assert (figures["pooled"]["won"], figures["pooled"]["lost"]) == (0, 1)
    low, high = figures["pooled"]["difference_ci95"]
    assert figures["pooled"]["difference"] == -1 / 16 and -0.2 < low < -0.05 and high == 0
    assert figures["all, seed 0"]["difference"] == 0 and figures["all, seed 1"]["difference"] == -1 / 8
    assert [row["family"] for row in rows] == ["all", "ego", "all, seed 0", "all, seed 1"]


def test_the_curve_goes_up_to_all_races(benchmark, study):
    curve = {n: [answered(study, benchmark.Setting(0, races=n), right, 10 * (n or 8))] for n, right in
             ((0, RACES[:6]), (2, "a"), (4, RACES[:4]))}  # fmt: skip
    figures, rows = benchmark.race_table(study, curve, 8)
    assert [(row["train races"], row["steps"]) for row in rows] == [("2", "2"), ("4", "4"), ("8", "8")]
    assert [row["against all races, points"] for row in rows] == ["-62.5", "-25.0", "–"]
    assert figures["8"]["exact"] == 0.75 and figures["2"]["against_all"]["lost"] == 5


def start(benchmark, monkeypatch, frames, base, out, *more):
    small = {"EPOCHS": 2, "EVALUATIONS": 2, "BATCH_SIZE": 8, "MIRROR": False, "QUESTIONS_PER_VIEW": 3}
    small |= {"EXTENDED_PER_VIEW": 0, "LORA_RANK": 4, "FRAMES_DIR": frames, "BASE_MODEL": base}
    given = [word for name, value in small.items() for word in ("-p", name, str(value))]
    monkeypatch.setattr(sys, "argv", ["finetuning.py", "--out", str(out), *given, *more])
    benchmark.main()


def test_an_interrupted_study_goes_on_and_a_finished_one_does_nothing(
    benchmark, monkeypatch, base_folder, tmp_path, capsys
):
    frames, out = tmp_path / "frames", tmp_path / "out"
    for split, n in (("train", 5), ("valid", 1), ("test", 1)):
        copy_frames(frames, split, n)
    assert len(read_frames(frames).races("train")) == 2
    arguments = monkeypatch, frames, base_folder, out, "--only", "races", "--races", "0.5"
    monkeypatch.setenv("STKVLM_FEATURES", str(tmp_path / "features"))
    whole, trained, kept = finetune.finetune, [], lambda: len(list((tmp_path / "features").rglob("*.safetensors")))

    class Killed(Exception):
        pass

    def kill(rows):
        if "valid_exact" not in rows[-1] and rows[-1]["step"] > 4:
            raise Killed

    def watched(*args, resume, show, features):
        trained.append((len(args[3]), resume, kept()))
        return whole(*args, resume=resume, features=features, show=None if len(trained) > 1 else kill)

    monkeypatch.setattr(train_run, "finetune", watched)
    with pytest.raises(Killed):
        start(benchmark, *arguments)
    start(benchmark, *arguments)
    assert trained[:2] == [(25, False, 0), (25, True, 2)], "gone on with, the pictures not encoded again"
    assert len(trained) == 3 and trained[2][0] < 25 and trained[2][2] == 3, "train, valid and test of the first"
    (folder,) = out.iterdir()
    assert kept() == 3
    figures, text = read_json(folder / "races.json"), (folder / "races.md").read_text()
    assert figures["2"]["training"]["steps"] > figures["1"]["training"]["steps"]
    shown = capsys.readouterr().out
    assert "[2 of 2] seed0-nf4-1-races: " in shown and text in shown

    start(benchmark, *arguments)
    assert len(trained) == 3 and capsys.readouterr().out.count("(done before)") == 2
    with pytest.raises(ConfigError, match="EPOCHS=2, now 3: .* another --out"):
        start(benchmark, *arguments, "-p", "EPOCHS", "3")


def test_what_the_settings_differ_in_is_not_set_by_hand(benchmark, monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="QUANTIZATION"):
        start(benchmark, monkeypatch, "frames", "embedded", tmp_path, "-p", "QUANTIZATION", "none")
    with pytest.raises(SystemExit):
        start(benchmark, monkeypatch, "frames", "embedded", tmp_path, "--races", "8")
