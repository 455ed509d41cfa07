"""Runs: the folder a step leaves, and the pipeline over small notebooks made here."""

import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import copy_frames

from stkvlm_lib import parallel, pipeline, runs
from stkvlm_lib.config import ROOT, STEPS, ConfigError, ExploreConfig, FinetuneConfig, QaConfig, ScoreConfig
from stkvlm_lib.files import read_json, write_json
from stkvlm_lib.parameters import make_config
from stkvlm_lib.pipeline import Request, StepFailed, run_pipeline, step_configs
from stkvlm_lib.preflight import EXPECTED_TIME, describe_base, preflight

METRICS = {"split": "test", "n": 9, "exact": 0.75, "exact_ci95": [0.7, 0.8], "majority": 0.3, "base_exact": 0.1}
START = """\
from stkvlm_lib import config, parameters, runs
from stkvlm_lib.files import write_json
runs.set_seeds = runs.set_up_torch = lambda *given: None  # torch takes seconds to load
runs.device_name = lambda: "none"
run = runs.start_run(parameters.make_config({"RUN_DIR": RUN_DIR, "SEED": SEED}, config.STEPS[STEP][1]), STEP)
print("in step", STEP)
"""
FINISH = f"""\
if STEP == "04":
    write_json(run.folder / "metrics.json", {METRICS})
run.finish()
"""


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Notebooks of a few lines and an empty outputs folder in place of the real ones."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "outputs").mkdir()
    monkeypatch.setattr(pipeline, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(runs, "OUTPUTS", tmp_path / "outputs")
    monkeypatch.setattr(pipeline, "preflight", lambda *arguments: None)
    monkeypatch.setattr(pipeline, "default_profile", lambda: "cpu")
    for step in STEPS:
        write_notebook(tmp_path / "notebooks", step)
    return tmp_path


def write_notebook(folder, step, code=""):
    cells = [nbformat.v4.new_code_cell(source) for source in (START, code, FINISH)]
    parameters = f'STEP = "{step}"\nRUN_DIR = ""\nSEED = 0'
    cells.insert(0, nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / f"{STEPS[step][0]}.ipynb")


@pytest.fixture
def steps(bench, monkeypatch):
    """The same without kernels, which are slow to start: `calls` lists the steps that ran, those in `broken` fail."""
    recorder = SimpleNamespace(outputs=bench / "outputs", calls=[], passed={}, broken=set(), interrupted={})

    def execute(source, target, parameters):
        step = source.name[:2]
        recorder.calls.append(step)
        recorder.passed[step] = parameters
        run = runs.start_run(make_config(parameters, STEPS[step][1]), step)
        recorder.interrupted[step] = run.interrupted
        if step in recorder.broken:
            return "RuntimeError: out of paper"
        write_json(run.folder / "metrics.json", METRICS)
        run.finish()
        return ""

    monkeypatch.setattr(pipeline, "execute", execute)
    return recorder


# One step


def test_a_step_leaves_its_parameters_manifest_and_stamp(tmp_path):
    run = runs.start_run(QaConfig(run_dir=str(tmp_path / "new" / "run"), seed=7), "02")
    assert not runs.is_done(run.folder, "02")
    (run.folder / "qa").mkdir()
    (run.folder / "qa" / "train.jsonl").write_text("{}\n")
    run.finish(inputs=[ROOT / "LICENSE"], artefacts=[run.folder / "qa"], questions=12)
    manifest = read_json(run.folder / "manifest.json")
    assert runs.is_done(run.folder, "02")
    assert (manifest["seed"], manifest["run_id"]) == (7, "run")
    assert set(manifest["versions"]) == {"python", "stkvlm", *runs.LIBRARIES}
    step = manifest["steps"]["02"]
    assert step["questions"] == 12
    assert step["wall_seconds"] >= 0 and step["peak_memory_mb"] > 10
    assert step["inputs"] == {"LICENSE": runs.hash_of(ROOT / "LICENSE")}
    assert step["artefacts"] == {"qa": runs.hash_of(run.folder / "qa" / "train.jsonl")}
    assert read_json(run.folder / "config.json")["02"]["SEED"] == 7


def test_the_stamp_is_written_after_everything_else(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(runs, "write_json", lambda path, value: (written.append(path.name), write_json(path, value)))
    runs.start_run(ExploreConfig(run_dir=str(tmp_path)), "01").finish()
    assert written == ["config.json", "manifest.json", "01.json"]


def test_a_fact_that_cannot_be_recorded_leaves_the_step_undone(tmp_path):
    run = runs.start_run(ExploreConfig(run_dir=str(tmp_path)), "01")
    with pytest.raises(TypeError):
        run.finish(thing=object())
    assert not runs.is_done(tmp_path, "01")


def test_beginning_a_step_again_undoes_it_and_the_later_ones(tmp_path):
    configs = {step: kind(run_dir=str(tmp_path)) for step, (_, kind) in STEPS.items()}
    for step, config in configs.items():
        runs.start_run(config, step).finish()
    runs.start_run(configs["02"], "02")
    assert [runs.is_done(tmp_path, step) for step in STEPS] == [True, False, False, False, False]


def test_only_an_unfinished_step_with_the_same_parameters_counts_as_interrupted(tmp_path):
    config = FinetuneConfig(run_dir=str(tmp_path))
    assert not runs.start_run(config, "03").interrupted
    assert runs.start_run(config, "03").interrupted
    assert not runs.start_run(FinetuneConfig(run_dir=str(tmp_path), epochs=3), "03").interrupted
    runs.start_run(config, "03").finish()
    assert not runs.start_run(config, "03").interrupted, "it was done: this is a new beginning"
    runs.start_run(QaConfig(run_dir=str(tmp_path)), "02")
    assert not runs.start_run(config, "03").interrupted, "its inputs may have changed"


def test_the_seed_reaches_python_numpy_and_torch(tmp_path):
    import numpy as np
    import torch

    def draw():
        runs.start_run(ExploreConfig(run_dir=str(tmp_path), seed=3), "01")
        return random.random(), float(np.random.rand()), torch.rand(1).item()

    assert draw() == draw()


def test_a_step_names_the_notebook_that_must_come_first(tmp_path):
    run = runs.start_run(FinetuneConfig(run_dir=str(tmp_path)), "03")
    with pytest.raises(runs.StepMissingError, match="02_generate_qa"):
        run.require("02", "qa/train.jsonl")
    write_json(runs.stamp_path(tmp_path, "02"), {})
    with pytest.raises(runs.StepMissingError, match="train.jsonl.*02_generate_qa"):
        run.require("02", "qa/train.jsonl")
    write_json(tmp_path / "qa" / "train.jsonl", {})
    assert run.require("02", "qa/train.jsonl") == [tmp_path / "qa" / "train.jsonl"]


def test_the_table_shows_versions_device_commit_and_seed(tmp_path):
    table = runs.start_run(ScoreConfig(run_dir=str(tmp_path), seed=4), "04").table()
    assert {"python", "torch", "transformers", "device", "commit", "seed"} <= set(table.index)
    assert table.loc["seed"].item() == "4"


@pytest.mark.parametrize(("base", "offline"), [("", "1"), ("embedded", "1"), ("org/name", None)])
def test_the_hub_is_left_alone_when_the_base_is_on_disk(monkeypatch, base, offline):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    runs.set_up_hub(base)
    assert os.environ.get("HF_HUB_OFFLINE") == offline
    assert bool(offline) is constants.HF_HUB_OFFLINE


def test_the_users_own_hub_setting_is_kept(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    runs.set_up_hub("embedded")
    assert os.environ["HF_HUB_OFFLINE"] == "0"


def test_a_run_id_tells_time_profile_seed_and_commit(monkeypatch):
    monkeypatch.setattr(runs, "commit", lambda: "abc1234, dirty")
    day, clock, rest = runs.run_id("cpu", 3).split("-", 2)
    assert (len(day), len(clock), rest) == (8, 6, "cpu-s3-abc1234")


# All steps


def test_all_notebooks_run_and_what_they_print_is_seen(bench, capfd):
    folder = run_pipeline(Request("smoke", {"SEED": "5"}, "a"))
    for name, _ in STEPS.values():
        assert (folder / "notebooks" / f"{name}.ipynb").is_file()
        assert "in step" in (folder / "notebooks" / f"{name}.html").read_text()
    assert {step: given["SEED"] for step, given in read_json(folder / "config.json").items()} == dict.fromkeys(STEPS, 5)
    shown = capfd.readouterr().out
    assert all(f"in step {step}" in shown for step in STEPS)
    assert "75.0%" in shown and "70.0% to 80.0%" in shown and str(folder / "report.html") in shown


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise RuntimeError('out of paper')", "RuntimeError: out of paper"),
        ("import os; os._exit(0)", "Kernel died"),
        ("import sys; sys.exit(0)", "without finishing"),
    ],
)
def test_an_error_a_killed_kernel_and_an_early_exit_are_failures(bench, code, said):
    write_notebook(bench / "notebooks", "01", code)
    with pytest.raises(StepFailed, match=f"01_explore_data.*{said}"):
        run_pipeline(Request("cpu", {}, "a"))
    assert not any(runs.is_done(bench / "outputs" / "a", step) for step in STEPS)


def test_only_declared_parameters_are_passed_and_cast(steps):
    run_pipeline(Request("smoke", {"EPOCHS": "2"}, "a"))
    assert steps.passed["02"] == {"RUN_DIR": str(steps.outputs / "a")}
    assert steps.passed["03"]["EPOCHS"] == 2 and "BOOTSTRAP" not in steps.passed["03"]
    assert steps.passed["04"]["BOOTSTRAP"] == 200 and "EPOCHS" not in steps.passed["04"]


def test_a_failing_step_stops_the_run_and_the_command_it_names_resumes(steps):
    steps.broken.add("03")
    with pytest.raises(StepFailed, match=r"03_finetune_qlora.*out of paper") as failure:
        run_pipeline(Request("cpu", {"SEED": "1"}, "a"))
    assert "./run_all.sh cpu -p SEED 1 --run-id a" in str(failure.value)
    assert not (steps.outputs / "latest").exists()
    steps.broken.clear()
    run_pipeline(Request("cpu", {"SEED": "1"}, "a"))
    assert steps.calls == ["01", "02", "03", "03", "04", "05"]


def test_from_does_a_step_and_the_later_ones_again(steps):
    run_pipeline(Request("cpu", {}, "a"))
    run_pipeline(Request("cpu", {}, "a", "03"))
    assert steps.calls == [*STEPS, "03", "04", "05"]
    run_pipeline(Request("cpu", {}, "a"))
    assert steps.calls == [*STEPS, "03", "04", "05"], "a complete run has nothing left to do"


def test_a_forced_step_starts_anew_and_a_failed_one_goes_on(steps):
    run_pipeline(Request("cpu", {}, "a"))
    run_pipeline(Request("cpu", {}, "a", "03"))
    assert steps.interrupted["03"] is False
    steps.broken.add("03")
    with pytest.raises(StepFailed):
        run_pipeline(Request("cpu", {}, "a", "03"))
    steps.broken.clear()
    run_pipeline(Request("cpu", {}, "a"))
    assert steps.interrupted["03"] is True


@pytest.mark.parametrize("text", ["[]", "{", '{"01": []}'])
def test_a_broken_record_of_a_run_is_named(steps, text):
    folder = run_pipeline(Request("cpu", {}, "a"))
    for name, written in (("config.json", text), ("manifest.json", text.replace('"01"', '"steps"'))):
        kept = (folder / name).read_text()
        (folder / name).write_text(written)
        with pytest.raises(ValueError, match=f"a/{name}: .*another --run-id"):
            run_pipeline(Request("cpu", {}, "a", "02"))
        (folder / name).write_text(kept)


@pytest.mark.parametrize("run_id", ["x" * 101, "x" * 300, "../x", ".x", "a b", "ä", "latest", ""])
def test_a_run_id_that_is_no_folder_name_is_refused(steps, run_id):
    with pytest.raises(ConfigError, match="--run-id .*folder name"):
        run_pipeline(Request("cpu", {}, run_id))
    assert list(steps.outputs.iterdir()) == []


@pytest.mark.parametrize(("name", "word"), [("RUN_DIR", "--run-id"), ("ADAPTER_DIR", "START_ADAPTER")])
def test_parameters_that_make_no_sense_for_a_whole_run_say_what_to_use(steps, name, word):
    with pytest.raises(ConfigError, match=word):
        run_pipeline(Request("cpu", {name: "x"}))


def test_a_recorded_step_stays_as_recorded_when_it_is_finished(tmp_path):
    run = runs.start_run(ExploreConfig(run_dir=str(tmp_path)), "01")
    run.record(note="early")
    assert not runs.is_done(run.folder, "01")
    run.finish()
    assert runs.is_done(run.folder, "01") and read_json(tmp_path / "manifest.json")["steps"]["01"]["note"] == "early"


def test_a_stale_stamp_does_not_hide_the_failure_of_a_forced_step(steps, monkeypatch):
    folder = run_pipeline(Request("cpu", {}, "a"))
    monkeypatch.setattr(pipeline, "execute", lambda *arguments: "")
    with pytest.raises(StepFailed, match="03_finetune_qlora"):
        run_pipeline(Request("cpu", {}, "a", "03"))
    assert [runs.is_done(folder, step) for step in STEPS] == [True, True, False, False, False]


def test_other_parameters_for_done_steps_are_refused_with_the_remedy(steps):
    folder = run_pipeline(Request("cpu", {}, "a"))
    with pytest.raises(ConfigError, match="step 01.*SEED=0, now 1.*--from 01"):
        run_pipeline(Request("cpu", {"SEED": "1"}, "a"))
    with pytest.raises(ConfigError, match="step 03.*EPOCHS=.*, now 7.*--from 03"):
        run_pipeline(Request("cpu", {"EPOCHS": "7"}, "a"))
    assert all(runs.is_done(folder, step) for step in STEPS), "a refusal changes nothing"
    run_pipeline(Request("cpu", {"EPOCHS": "7"}, "a", "03"))
    assert steps.passed["03"]["EPOCHS"] == 7


def test_latest_moves_to_the_newest_complete_run(steps):
    for name in ("a", "b"):
        run_pipeline(Request("cpu", {}, name))
        assert os.readlink(steps.outputs / "latest") == name


def test_a_refused_request_writes_nothing(steps):
    for request in (Request("fast"), Request("cpu", {"EPOCH": "1"}), Request(run_id="a", from_step="03")):
        with pytest.raises(ConfigError):
            run_pipeline(request)
    assert list(steps.outputs.iterdir()) == []


def test_an_interrupt_names_the_command_that_resumes(steps, monkeypatch, capsys):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "execute", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(Request("cpu", {}, "a", to_step="03"))
    assert "./run_all.sh cpu --run-id a --to 03\n" in capsys.readouterr().err


# Before a run


def test_the_preflight_shows_what_will_be_used(capsys):
    configs = pipeline.step_configs("cpu", {"BASE_MODEL": str(ROOT / "models" / "embedded")})
    preflight("cpu", "a", configs)
    shown = capsys.readouterr().out
    assert all(f"\n{label} " in "\n" + shown for label in ("run", "device", "memory", "disk", "frames", "base", "time"))
    assert EXPECTED_TIME["cpu"] in shown and "run     a (profile cpu" in shown


def test_a_run_is_found_by_name_or_folder(tmp_path, monkeypatch):
    outputs, run = tmp_path / "outputs", tmp_path / "outputs" / "a-run"
    run.mkdir(parents=True)
    monkeypatch.setattr(runs, "OUTPUTS", outputs)
    assert runs.find_run(None) == outputs / "latest"
    (run / "manifest.json").touch()
    assert runs.find_run("a-run") == runs.find_run("a-run/") == runs.find_run(str(run)) == run
    with pytest.raises(
        FileNotFoundError, match=r"b-run: no such run \(did you mean a-run\?\); there are a-run in outputs/"
    ):
        runs.find_run("b-run")


@pytest.mark.parametrize("folder", [ROOT, ROOT / "notebooks", Path("/")])
def test_a_path_of_a_run_means_the_same_wherever_a_command_is_started(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "OUTPUTS", tmp_path)
    monkeypatch.chdir(folder)
    assert runs.find_run("models/embedded") == ROOT / "models" / "embedded"
    for find, error in ((runs.find_run, FileNotFoundError), (runs.compared_run, ConfigError)):
        with pytest.raises(error, match=f"embedded: no such run; there are none yet .* counts from {ROOT}"):
            find("embedded")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FRAMES_DIR", "absent/frames"),
        ("QA_FILE", "absent.json"),
        ("MC_FILE", "absent.json"),
        ("OWN_WORDS_FILE", "absent.json"),
        ("COMPARE_RUN", "absent"),
        ("BASE_MODEL", "absent"),
        ("BASE_MODEL", "a/b/c"),
        ("BASE_MODEL", "owner/name"),
        ("START_ADAPTER", "absent"),
    ],
)
def test_the_preflight_refuses_what_is_not_there(name, value):
    with pytest.raises(ConfigError, match=name):
        preflight("cpu", "a", pipeline.step_configs("cpu", {name: value}))


def test_a_base_that_cannot_be_loaded_is_seen_before_the_run(tmp_path):
    write_json(tmp_path / "config.json", {})
    with pytest.raises(ConfigError, match=r"BASE_MODEL: .*no \*.safetensors there"):
        describe_base(ScoreConfig(base_model=str(tmp_path)))


@pytest.mark.parametrize(("exact", "warned"), [(0.75, False), (0.3, True), (0.0, True)])
def test_a_score_no_better_than_guessing_is_warned_of(tmp_path, capsys, exact, warned):
    write_json(tmp_path / "metrics.json", METRICS | {"exact": exact})
    pipeline.print_headline(tmp_path)
    assert ("no better than the most frequent answers" in capsys.readouterr().out) is warned


def test_a_hub_that_does_not_give_the_base_is_seen_before_the_run(monkeypatch):
    import huggingface_hub

    def refuse(self, name, **options):
        raise OSError("no route to the hub\nmore")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    config = ScoreConfig(base_model="owner/name")
    with pytest.raises(
        ConfigError, match=r"BASE_MODEL: owner/name .*OSError: no route to the hub\).*connect to the hub"
    ):
        describe_base(config)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, name, **options: None)
    assert describe_base(config) == "owner/name (will be downloaded from the hub)"


def test_questions_about_pictures_that_are_not_there_are_seen_before_the_run(tmp_path):
    asked = {"question": "What track is this?", "answer": "abyss", "image_file": "test/absent_00_im.jpg"}
    chosen = {"image_file": "test/absent_00_im.jpg", "candidates": ["a", "b", "c", "d", "e"], "correct_index": 0}
    frames = copy_frames(tmp_path / "frames", "test", 1)
    for name, item in (("QA_FILE", asked), ("MC_FILE", chosen)):
        write_json(tmp_path / "file.json", [item])
        given = {name: str(tmp_path / "file.json"), "FRAMES_DIR": str(frames)}
        with pytest.raises(ConfigError, match=f"{name}: .*item 0: no picture 'test/absent_00_im.jpg'"):
            preflight("cpu", "a", pipeline.step_configs("cpu", given))


def test_the_form_of_a_start_adapter_is_recorded(tmp_path):
    """A rank that is left out is the adapter's, and a run is gone on with whether it was given or not."""
    adapter = shutil.copytree(ROOT / "models" / "course_adapter", tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    cut = {name: (part[:4] if "lora_A" in name else part[:, :4]).clone() for name, part in weights.items()}
    save_file(cut, adapter / "adapter_model.safetensors")
    write_json(adapter / "adapter_config.json", read_json(adapter / "adapter_config.json") | {"r": 4, "lora_alpha": 8})
    config = FinetuneConfig(run_dir=str(tmp_path), start_adapter=str(adapter))
    recorded = runs.recorded_parameters(config)
    assert (recorded["LORA_RANK"], recorded["LORA_ALPHA"]) == (4, 8) != (config.lora_rank, config.lora_alpha)
    assert runs.recorded_parameters(replace(config, lora_rank=4, lora_alpha=8)) == recorded
    assert runs.recorded_parameters(replace(config, start_adapter=""))["LORA_RANK"] == config.lora_rank


def test_a_cluster_that_is_not_there_is_refused_before_the_first_step(monkeypatch):
    pytest.importorskip("distributed", reason="needs the extra `cluster`")
    monkeypatch.setattr(parallel, "REACHED_WITHIN", 1)
    with pytest.raises(ConfigError, match="CLUSTER: no Dask scheduler at tcp://127.0.0.1:1"):
        preflight("smoke", "a-run", step_configs("smoke", {"CLUSTER": "tcp://127.0.0.1:1"}))


def test_a_start_adapter_is_checked_before_anything_is_installed_or_made(tmp_path):
    adapter = shutil.copytree(ROOT / "models" / "course_adapter", tmp_path / "adapter")

    def check(**changes):
        parameters = {"START_ADAPTER": str(adapter), **changes}
        return pipeline.check_request(Request("cpu", parameters))

    check()
    with pytest.raises(ConfigError, match="LORA_RANK=4: START_ADAPTER .* has 16"):
        check(LORA_RANK="4")
    with pytest.raises(ConfigError, match="made on base embedded .*BASE_MODEL is owner/name"):
        check(BASE_MODEL="owner/name")
    (adapter / "adapter_model.safetensors").write_bytes(b"cut")
    with pytest.raises(ConfigError, match="START_ADAPTER: .*weights cannot be read"):
        check()


def test_a_folder_without_frames_is_refused_before_anything_is_made(tmp_path):
    for folder in (tmp_path / "absent", tmp_path):
        with pytest.raises(ConfigError, match=f"FRAMES_DIR: no .*{folder.name}"):
            pipeline.check_request(pipeline.Request("cpu", {"FRAMES_DIR": str(folder)}))
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "00000_info.json").touch()
    pipeline.check_request(pipeline.Request("cpu", {"FRAMES_DIR": str(tmp_path)}))


def test_checking_arguments_needs_only_the_standard_library():
    code = "import sys, stkvlm_lib.__main__ as cli; cli.main(['check', 'cpu']); print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", f"import json; {code}"], cwd=ROOT, capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & {"torch", "numpy", "pandas", "papermill", "transformers", "yaml", "psutil", "pydantic"}


@pytest.mark.parametrize(("wanted", "threads"), [("1", 1), ("3", 3), ("", None), ("two", None)])
def test_threads_are_those_asked_for_or_all_cores(wanted, threads, monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    runs.set_up_torch()
    found = torch.get_num_threads()
    torch.set_num_threads(before)
    assert found == (threads or len(os.sched_getaffinity(0)))
