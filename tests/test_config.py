"""Parameters: what is accepted, what is refused, and that notebooks and configurations say the same."""

import json
import os
from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient

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
    resolve,
)
from stkvlm_lib.parameters import make_config, read_parameters, upper
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
        (ExploreConfig, "SEED", 2**32),
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


def test_a_misspelt_parameter_is_refused_with_the_nearest_ones():
    with pytest.raises(ConfigError, match="FRAME_DIR.*FRAMES_DIR"):
        make_config({"FRAME_DIR": "x"}, QaConfig)


def test_a_notebook_refuses_a_misspelt_parameter_whatever_its_case():
    for name in ("LERNING_RATE", "learning_rate"):
        with pytest.raises(ConfigError, match=name):
            read_parameters({"SEED": 1, name: 0.1}, FinetuneConfig)


def test_a_notebook_keeps_its_parameters_apart_from_what_python_and_jupyter_define():
    namespace = {"SEED": 3, "__name__": "__main__", "_ih": [], "In": [], "Out": {}, "json": json, "QaConfig": QaConfig}
    assert read_parameters(namespace, QaConfig) == QaConfig(seed=3)


def shell(**before):
    """What IPython puts into a notebook's names: its shell, which remembers what start-up files have defined."""
    return {"get_ipython": lambda: SimpleNamespace(user_ns_hidden=before), "In": ["", "SEED = 3"], **before}


def test_a_notebook_run_to_its_end_can_be_configured_again():
    own = {"card": "text", "comparisons": [], "split": "test", "_": 3, "rate": 0.5, "counts": {}, "nothing": None}
    assert read_parameters(shell() | own | {"SEED": 3, "balance": object()}, QaConfig) == QaConfig(seed=3)


def test_names_of_a_persons_start_up_files_are_no_parameters():
    names = shell(me="ann", HOME_PAGE="x", workers=4, TOKENS=None) | {"SEED": 3}
    assert read_parameters(names, QaConfig) == QaConfig(seed=3)
    with pytest.raises(ConfigError, match="HOME_PAGE"):
        read_parameters(names | {"HOME_PAGE": "set in the notebook"}, QaConfig)


@pytest.mark.parametrize("name", ["lerning_rate", "_x", "FOO", "epochs"])
def test_whatever_papermill_was_given_counts(name):
    names = shell() | {name: 1}
    names["In"] = ["", "SEED = 0", f"# Parameters\nSEED = 1\n{name} = 1\n"]
    with pytest.raises(ConfigError, match=f"unknown parameter {name}"):
        read_parameters(names, FinetuneConfig)


def test_a_parameter_of_another_type_is_refused_and_not_passed_over():
    with pytest.raises(ConfigError, match="FRAMES_DIR=.*PosixPath"):
        read_parameters({"FRAMES_DIR": ROOT}, QaConfig)


TYPED = ["2024_11_26", "007", "7e23997", "1e5", "1_0", "True", "None", "nan"]


@pytest.mark.parametrize("typed", TYPED)
@pytest.mark.parametrize(("name", "kind"), [("RUN_DIR", QaConfig), ("BASE_REVISION", ScoreConfig)])
def test_what_papermill_has_made_of_a_text_is_refused_with_its_other_option(typed, name, kind):
    from papermill.cli import _resolve_type

    with pytest.raises(ConfigError, match=f"{name}=.* is not text.*-r {name} VALUE"):
        make_config({name: _resolve_type(typed)}, kind)
    assert getattr(make_config({name: typed}, kind), name.lower()) == typed, "as papermill's -r gives it"


@pytest.mark.parametrize("typed", TYPED)
def test_texts_on_the_command_line_stay_as_typed(typed):
    assert step_configs("cpu", {"BASE_REVISION": typed})["03"].base_revision == typed


@pytest.mark.parametrize(
    "value", [float("inf"), float("nan"), "inf", "nan", "1e999", 10**400, "9" * 5000], ids=range(7)
)
def test_numbers_that_json_cannot_hold_are_refused(value):
    for name, kind in (("BALANCE", QaConfig), ("SEED", QaConfig)):
        with pytest.raises(ConfigError, match=name):
            make_config({name: value}, kind)


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
    with pytest.raises(ConfigError, match=r"unknown parameter EPOCH \(did you mean EPOCHS\?\); the first code cell"):
        make_config({"EPOCH": 2}, FinetuneConfig)
    with pytest.raises(ConfigError, match=r"\(did you mean LORA_RANK, LORA_TARGETS or LORA_ALPHA\?\)") as refused:
        make_config({"LORA_RANKS": 2}, FinetuneConfig)
    assert len(str(refused.value)) < 160, "three and not all"


def test_in_a_real_kernel_start_up_files_and_later_cells_are_no_parameters(tmp_path, monkeypatch):
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text('me = "ann"\nHOME_PAGE = "x"\nworkers = 7\n')
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    configure = (
        "from stkvlm_lib.config import QaConfig\nfrom stkvlm_lib.parameters import read_parameters\n"
        "config = read_parameters(globals(), QaConfig)"
    )
    cells = ["SEED = 3\nWORKERS = 2", configure, 'card = "text"\nsplits = []', f"{configure}\nprint(me, config)"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, kernel_name="python3").execute()
    assert notebook.cells[-1].outputs[0].text == f"ann {QaConfig(seed=3, workers=2)}\n"
