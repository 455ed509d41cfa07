"""Parameters: what is accepted, what is refused, and that notebooks and configurations say the same."""

import json
import os

import pytest

from stkvlm_lib.config import (
    ALONE,
    PROFILES,
    ROOT,
    STEPS,
    ConfigError,
    ExploreConfig,
    FinetuneConfig,
    ModelConfig,
    QaConfig,
    ScoreConfig,
    make_config,
    read_parameters,
    resolve,
    upper,
)
from stkvlm_lib.pipeline import step_configs


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("LEARNING_RATE", "1e-4", 1e-4),
        ("LORA_DROPOUT", 0, 0.0),
        ("MIRROR", "false", False),
        ("MIRROR", "True", True),
        ("EPOCHS", "3", 3),
        ("FRAMES_DIR", "007", "007"),
    ],
)
def test_values_as_papermill_and_yaml_deliver_them(name, given, expected):
    value = getattr(make_config({name: given}, FinetuneConfig), name.lower())
    assert (type(value), value) == (type(expected), expected)


@pytest.mark.parametrize(
    ("name", "given"),
    [("EPOCHS", "2.5"), ("EPOCHS", 2.5), ("EPOCHS", True), ("MIRROR", "yes"), ("LEARNING_RATE", "a"), ("SEED", None)],
)
def test_a_value_of_the_wrong_type_is_refused_by_name(name, given):
    with pytest.raises(ConfigError, match=name):
        make_config({name: given}, FinetuneConfig)


@pytest.mark.parametrize(
    ("kind", "name", "given"),
    [
        (ExploreConfig, "SEED", -1),
        (ModelConfig, "QUANTIZATION", "int8"),
        (ModelConfig, "EVAL_BATCH_SIZE", 0),
        (FinetuneConfig, "EPOCHS", 0),
        (FinetuneConfig, "TRAIN_RACES", -1),
        (FinetuneConfig, "TRAIN_VIEWS", -1),
        (FinetuneConfig, "LEARNING_RATE", 1.0),
        (FinetuneConfig, "LORA_DROPOUT", 1.0),
        (ScoreConfig, "BOOTSTRAP", 99),
    ],
)
def test_an_impossible_value_is_refused_by_name(kind, name, given):
    with pytest.raises(ConfigError, match=name):
        make_config({name: given}, kind)


def test_a_misspelt_parameter_is_refused_with_the_valid_ones():
    with pytest.raises(ConfigError, match="FRAME_DIR.*FRAMES_DIR"):
        make_config({"FRAME_DIR": "x"}, QaConfig)


def test_a_notebook_refuses_a_misspelt_parameter_whatever_its_case():
    for name in ("LERNING_RATE", "learning_rate"):
        with pytest.raises(ConfigError, match=name):
            read_parameters({"SEED": 1, name: 0.1}, FinetuneConfig)


def test_a_notebook_keeps_its_parameters_apart_from_what_python_and_jupyter_define():
    namespace = {"SEED": 3, "__name__": "__main__", "_ih": [], "In": [], "Out": {}, "json": json, "QaConfig": QaConfig}
    assert read_parameters(namespace, QaConfig) == QaConfig(seed=3)


def test_a_configuration_survives_the_way_through_a_notebook():
    config = FinetuneConfig(run_dir="outputs/x", seed=5, epochs=2)
    assert make_config(upper(config), FinetuneConfig) == config


def test_a_data_folder_may_have_a_colon_in_its_name(tmp_path):
    (tmp_path / "12:30").mkdir()
    assert QaConfig(frames_dir=str(tmp_path / "12:30")).frames_paths == (tmp_path / "12:30",)


def test_relative_paths_count_from_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert QaConfig(run_dir="outputs/x").run_path == ROOT / "outputs" / "x"
    assert QaConfig().run_path == ROOT / "outputs" / "by-hand"
    assert QaConfig().frames_paths == (ROOT / "frames",)
    assert QaConfig(frames_dir=f"frames{os.pathsep}{tmp_path}").frames_paths == (ROOT / "frames", tmp_path)
    assert resolve(tmp_path) == tmp_path


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_valid_and_reaches_the_steps(profile):
    configs = step_configs(profile, {})
    assert list(configs) == list(STEPS)
    for name, value in PROFILES[profile].items():
        assert value in [upper(config).get(name) for config in configs.values()]


@pytest.mark.parametrize("step", STEPS | ALONE)
def test_the_parameters_cell_of_each_notebook_is_its_configuration(step):
    name, kind = (STEPS | ALONE)[step]
    notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    assert len(cells) == 1
    namespace = {}
    exec("".join(cells[0]["source"]), {}, namespace)
    assert namespace == upper(kind())
    assert list(namespace) == list(upper(kind())), "the same order, so that a reader finds them"


def test_a_misspelt_parameter_is_told_what_it_may_have_meant():
    with pytest.raises(ConfigError, match=r"unknown parameter EPOCH \(did you mean EPOCHS\?\); valid ones are RUN_DIR"):
        make_config({"EPOCH": 2}, FinetuneConfig)
