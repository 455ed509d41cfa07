"""Batch files and flags: what they plan, and what is refused in one line before anything is started."""

import pytest

from stkvlm_lib import pipeline, runs
from stkvlm_lib.batch import plan
from stkvlm_lib.batch.plan import Batch, check_same, make_batch, read_batch
from stkvlm_lib.config import ROOT, ConfigError
from stkvlm_lib.files import write_json

READY = sorted((ROOT / "benchmarks" / "batches").glob("*.yml"))


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "OUTPUTS", tmp_path / "outputs")
    monkeypatch.setattr(pipeline, "default_profile", lambda: "cpu")
    return tmp_path / "outputs"


@pytest.fixture
def written(tmp_path):
    """A function that writes a batch file."""

    def write(text, name="sweep.yml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_a_grid_is_crossed_and_named_settings_stand_beside_it(written, outputs):
    batch = read_batch(
        written("""
profile: smoke
parameters: {TRAIN_VIEWS: 64, LEARNING_RATE: 1e-4}
grid:
  LORA_RANK: [8, 16]
  EPOCHS: [1, 2]
settings:
  full: {QUANTIZATION: none}
seeds: [0, 3]
compare_to: full
""")
    )
    assert list(batch.settings) == [
        "lora_rank-8_epochs-1", "lora_rank-8_epochs-2", "lora_rank-16_epochs-1", "lora_rank-16_epochs-2", "full"
    ]  # fmt: skip
    assert (batch.name, batch.compare_to, len(batch.runs)) == ("sweep", "full", 10)
    assert [run.seed for run in batch.runs] == [0] * 5 + [3] * 5, "seed by seed"
    last = batch.runs[-1]
    assert last.folder == outputs / "sweep" / "full-s3" and last.run_id == "sweep/full-s3"
    assert last.recorded["03"]["LEARNING_RATE"] == 1e-4 and last.recorded["03"]["QUANTIZATION"] == "none"
    assert {last.recorded[step]["SEED"] for step in last.recorded} == {3}
    pipeline.check_request(last.request)


def test_without_grid_and_settings_there_is_one_setting(written):
    batch = read_batch(written("profile: smoke\nseeds: [0, 1]"))
    assert list(batch.settings) == ["base"] and [run.name for run in batch.runs] == ["base-s0", "base-s1"]


def test_flags_add_to_a_file(written):
    file = written("profile: smoke\nparameters: {EPOCHS: 2, TRAIN_VIEWS: 8}\nseeds: [0]")
    batch = read_batch(file, {"parameters": {"EPOCHS": "3"}, "grid": {"LORA_RANK": ["4", "8"]}, "name": "other"})
    assert batch.parameters == {"EPOCHS": "3", "TRAIN_VIEWS": 8} and len(batch.runs) == 2 and batch.name == "other"


@pytest.mark.parametrize("file", READY, ids=lambda file: file.stem)
def test_every_ready_batch_can_be_run(file):
    assert len(read_batch(file).runs) >= 3


BAD = {
    "a: [": "line 1: expected",
    "a: 1\na: 2": "line 2: the key 'a' stands twice",
    "settings:\n  a: {EPOCHS: 2}\n  a: {EPOCHS: 3}": "line 3: the key 'a' stands twice",
    "a: &x [1, 2]\nb: *x": r"line 2: \*x repeats",
    "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]": r"\*a repeats",
    "- x": "holds no mapping",
    "": "holds no mapping",
    "[" * 1_000: "nested too deep",
    "? [1, 2]\n: 3": "a key must be a name",
    "x: 2024-99-99": "a value cannot be read",
    'a: !!python/object/apply:os.system ["true"]': "could not determine a constructor",
    "seedss: [1]": r"unknown key seedss \(did you mean seeds\?\)",
    "1: 2": "unknown key 1",
    "profile: smok": "profile 'smok'.*smoke, cpu, gpu",
    "name: latest": "'latest' is the link",
    "name: a/b": "name 'a/b'",
    "seeds: 3": "seeds 3: must be a list",
    "seeds: []": "must be a list",
    "seeds: [true]": "must be a list",
    "seeds: [0, 0]": "a seed stands twice",
    "parameters: {SEED: 1}": "parameters sets SEED",
    "parameters: {EPOCHS: nope}": "EPOCHS='nope' is not a whole number",
    "parameters: {EPOCHS: [1, 2]}": "EPOCHS=.* is not a whole number",
    "parameters: {RUN_DIR: x}": "RUN_DIR",
    "parameters: {FRAMES_DIR: /nowhere}": "FRAMES_DIR: no folder /nowhere",
    "parameters: 7": "parameters must be a mapping",
    "grid: {LORA_RANKS: [8, 16]}": r"setting lora_ranks-8: unknown parameter LORA_RANKS \(did you mean LORA_RANK, ",
    "grid: {LORA_RANK: 8}": "grid: LORA_RANK must have a list",
    "grid: {LORA_RANK: [8, 8]}": "two settings are named lora_rank-8",
    "grid: {LORA_RANK: [8]}\nsettings: {lora_rank-8: {EPOCHS: 2}}": "two settings are named lora_rank-8",
    "settings: {a: {EPOCHS: 2}, b: {EPOCHS: 2}}": "the settings a and b are the same",
    "settings: [1]": "settings must be a mapping",
    "settings: {a/b: {EPOCHS: 2}}": "settings: 'a/b'",
    "settings: {a: {LEARNING_RATE: 5}}": "setting a: LEARNING_RATE=5.0: must be",
    "compare_to: nix": "compare_to 'nix' is no setting; there are base",
}


@pytest.mark.parametrize(("text", "said"), BAD.items(), ids=[text[:40] for text in BAD])
def test_bad_files_are_refused_in_one_line_that_names_the_file(written, outputs, text, said):
    with pytest.raises(ConfigError, match=said) as refused:
        read_batch(written(text))
    assert "sweep.yml" in str(refused.value) and "\n" not in str(refused.value)
    assert not outputs.exists()


def test_grids_that_explode_are_refused_before_they_do():
    grid = {name: list(range(1, 11)) for name in ("EPOCHS", "LORA_RANK", "LORA_ALPHA", "BATCH_SIZE", "EVALUATIONS")}
    with pytest.raises(ConfigError, match="100,000 settings"):
        make_batch({"name": "a", "profile": "smoke", "grid": grid}, "flags")
    with pytest.raises(ConfigError, match="1,001 runs"):
        make_batch({"name": "a", "profile": "smoke", "seeds": list(range(1001))}, "flags")


def test_a_missing_and_a_binary_file_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent.yml: no such batch file"):
        read_batch(tmp_path / "absent.yml")
    (tmp_path / "binary.yml").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(ConfigError, match="binary.yml"):
        read_batch(tmp_path / "binary.yml")


def sweep(**changes) -> Batch:
    given = {"name": "sweep", "profile": "smoke", "grid": {"LORA_RANK": [8, 16]}}
    return make_batch(given | changes, "here")


def test_the_same_batch_with_more_settings_goes_on_and_a_changed_one_is_refused():
    before = sweep()
    check_same(before)
    write_json(before.folder / plan.BATCH_FILE, before.record())
    check_same(sweep())
    check_same(sweep(grid={"LORA_RANK": [8, 16, 32]}, seeds=[0, 1]))
    with pytest.raises(ConfigError, match="sweep/lora_rank-8-s0 was planned with EPOCHS 1, now 2: take another --name"):
        check_same(sweep(parameters={"EPOCHS": 2}))


def test_the_folder_of_a_run_is_no_batch():
    batch = sweep()
    write_json(batch.folder / "config.json", {})
    with pytest.raises(ConfigError, match="is a run, no batch"):
        check_same(batch)


@pytest.mark.parametrize("run_id", ["a/b", "a", "a+b/c-s0"])
def test_the_pipeline_takes_the_run_of_a_batch_by_its_name(run_id):
    pipeline.check_request(pipeline.Request("smoke", {}, run_id))


@pytest.mark.parametrize("run_id", ["a/b/c", "../b", "a/../b", "latest/a", "a/", "/a"])
def test_and_no_other_place(run_id):
    with pytest.raises(ConfigError, match="--run-id"):
        pipeline.check_request(pipeline.Request("smoke", {}, run_id))
