"""Adapters and bases that are broken in many ways: each is refused in one line that names the file, nothing is run."""

import json
import os
import pickle
import shutil
import struct

import pytest

from stkvlm_lib.config import ROOT, ConfigError, FinetuneConfig
from stkvlm_lib.model_files import (
    LORA_TARGETS,
    AdapterFiles,
    LoraSettings,
    ModelError,
    check_base,
    check_start,
    hash_weights,
    read_adapter,
    read_shapes,
)

ADAPTER = ROOT / "models" / "course_adapter"
BASE = ROOT / "models" / "embedded"
NO_OBJECTS = ("", "{", "null", "[]", '"text"', "\0\1\2", "[" * 100_000)
CONFIG, RECORD, WEIGHTS = "adapter_config.json", "stkvlm.json", "adapter_model.safetensors"


class Trap:
    """What makes the file `sprung` when its pickle is read."""

    def __reduce__(self):
        return os.mkdir, ("sprung",)


@pytest.fixture
def adapter(tmp_path):
    return shutil.copytree(ADAPTER, tmp_path / "adapter")


@pytest.fixture
def base(tmp_path):
    """The embedded base, its weights linked."""
    folder = shutil.copytree(BASE, tmp_path / "base", ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "model.safetensors").symlink_to(BASE / "model.safetensors")
    return folder


def change(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def write_weights(path, tensors, data=None, **entries):
    """A safetensors file of (rows, columns) float32 zeros, with other header entries where they are given."""
    header, place = {}, 0
    for name, shape in tensors.items():
        size = 4 * shape[0] * shape[1]
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header | entries).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + (bytes(place) if data is None else data))


def test_what_ships_is_in_order():
    files = read_adapter(ADAPTER)
    assert files.lora == LoraSettings(16, 32, 0.0, LORA_TARGETS)
    assert files.record["base"]["sha256"] == hash_weights(BASE)
    layers = json.loads((BASE / "config.json").read_text())["text_config"]["num_hidden_layers"]
    assert len(files.shapes) == 2 * 7 * layers
    check_base(BASE)


@pytest.mark.parametrize("name", [CONFIG, RECORD])
@pytest.mark.parametrize("text", NO_OBJECTS, ids=range(len(NO_OBJECTS)))
def test_settings_of_an_adapter_that_are_no_object_are_named(adapter, name, text):
    (adapter / name).write_text(text)
    with pytest.raises(ModelError, match=f"{name}: (not readable|holds).*(again|restore)"):
        read_adapter(adapter)


@pytest.mark.parametrize("name", [CONFIG, RECORD, WEIGHTS])
def test_a_folder_in_place_of_a_file_and_a_missing_file_are_named(adapter, name):
    (adapter / name).unlink()
    with pytest.raises(ModelError, match=name):
        read_adapter(adapter)
    (adapter / name).mkdir()
    with pytest.raises(ModelError, match=name):
        read_adapter(adapter)


@pytest.mark.parametrize(
    "changes",
    [
        {"r": 8},
        {"r": 0},
        {"r": "16"},
        {"r": True},
        {"r": 10**9},
        {"r": None},
        {"lora_alpha": float("nan")},
        {"lora_alpha": 10**400},
        {"lora_alpha": -1},
        {"lora_alpha": "32"},
        {"lora_dropout": 1.0},
        {"lora_dropout": []},
        {"target_modules": "(.*)*(a+)+$"},
        {"target_modules": []},
        {"target_modules": [1]},
        {"peft_type": "IA3"},
        {"peft_type": None},
        {"use_dora": True},
        {"use_rslora": True},
        {"bias": "all"},
        {"modules_to_save": ["lm_head"]},
        {"init_lora_weights": "pissa"},
        {"auto_mapping": {"base_model_class": "X", "parent_library": "antigravity"}},
        {"megatron_config": {"a": 1}, "megatron_core": "antigravity"},
        {"of_the_future": 1},
    ],
    ids=str,
)
def test_settings_that_an_adapter_of_this_project_does_not_have_are_named(adapter, changes):
    change(adapter / CONFIG, **changes)
    with pytest.raises(ModelError, match="adapter_config.json"):
        read_adapter(adapter)


@pytest.mark.parametrize(
    "base",
    [None, [], {}, {"name": "x"}] + [{"name": n, "revision": "", "sha256": ""} for n in ("/etc", "../x", "a/b/c", "")],
)
def test_a_record_whose_base_is_no_name_is_refused(adapter, base):
    change(adapter / RECORD, base=base)
    with pytest.raises(ModelError, match=r"stkvlm.json: .*base.*make the adapter again"):
        read_adapter(adapter)


@pytest.mark.parametrize("temperature", [0, -1, float("nan"), 10**400, "1", None, True])
def test_a_temperature_that_divides_nothing_is_refused(adapter, temperature):
    change(adapter / RECORD, temperature=temperature)
    with pytest.raises(ModelError, match=r"stkvlm.json: temperature = .* is not a number above 0"):
        read_adapter(adapter)


PAIR = {"x.lora_A.weight": (16, 4), "x.lora_B.weight": (4, 16)}


@pytest.mark.parametrize(
    ("tensors", "entries", "data"),
    [
        ({}, {}, None),
        ({"x.lora_A.weight": (16, 4)}, {}, None),
        (PAIR | {"lm_head.weight": (2, 2)}, {}, None),
        ({"x.lora_A.weight": (8, 4), "x.lora_B.weight": (4, 8)}, {}, None),
        (PAIR, {}, b""),
        (PAIR, {}, bytes(1000)),
        (PAIR, {"y": 3}, None),
        (PAIR, {"x.lora_B.weight": {"dtype": "F32", "shape": [4, 16], "data_offsets": [0, 256]}}, None),
        (PAIR, {"x.lora_B.weight": {"dtype": "F32", "shape": [4, 99], "data_offsets": [256, 512]}}, None),
        (PAIR, {"x.lora_B.weight": {"dtype": "F99", "shape": [4, 16], "data_offsets": [256, 512]}}, None),
        (PAIR, {"x.lora_B.weight": {"dtype": "F32", "shape": [-4, -16], "data_offsets": [256, 512]}}, None),
        (PAIR, {"x.lora_B.weight": {"dtype": "F32", "shape": [4, 16], "data_offsets": [256, 10**12]}}, None),
        (PAIR, {"x.lora_B.weight": {"dtype": "F32", "shape": [4, 16]}}, None),
    ],
)
def test_weights_that_are_not_whole_or_not_those_of_an_adapter_are_named(adapter, tensors, entries, data):
    write_weights(adapter / WEIGHTS, tensors, data, **entries)
    with pytest.raises(ModelError, match=WEIGHTS):
        read_adapter(adapter)


@pytest.mark.parametrize("data", [b"", b"123", b"\xff" * 100, bytes(100), struct.pack("<Q", 2) + b"[]" + bytes(4)])
def test_what_is_no_weights_file_is_refused(tmp_path, data):
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match="weights cannot be read .x.safetensors.*do this"):
        read_shapes(tmp_path / "x.safetensors", "do this")


@pytest.mark.parametrize("kept", [0, 7, 8, 500, 20_000, -1])
def test_weights_cut_anywhere_are_refused(adapter, kept):
    (adapter / WEIGHTS).write_bytes((ADAPTER / WEIGHTS).read_bytes()[:kept])
    with pytest.raises(ModelError, match=WEIGHTS):
        read_adapter(adapter)


def test_a_pickle_is_named_and_never_read(adapter, base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trap = pickle.dumps(Trap())
    (adapter / "adapter_model.bin").write_bytes(trap)
    read_adapter(adapter)
    (adapter / WEIGHTS).write_bytes(trap)
    with pytest.raises(ModelError, match=WEIGHTS):
        read_adapter(adapter)
    (adapter / WEIGHTS).unlink()
    with pytest.raises(ModelError, match=r"adapter_model.bin is a pickle, which is never read"):
        read_adapter(adapter)
    (base / "model.safetensors").unlink()
    (base / "pytorch_model.bin").write_bytes(trap)
    with pytest.raises(ModelError, match=r"no \*\.safetensors there \(pytorch_model.bin is a pickle"):
        check_base(base)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "name",
    ["config.json", "generation_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json"],
)
def test_settings_of_a_base_that_are_no_object_are_named(base, name):
    for text in NO_OBJECTS:
        (base / name).write_text(text)
        with pytest.raises(ModelError, match=f"base/{name}: (not readable|holds)"):
            check_base(base)


@pytest.mark.parametrize(
    "changes", [{"model_type": "llava"}, {"model_type": None}, {"quantization_config": {"bits": 4}}]
)
def test_a_base_of_another_kind_is_refused(base, changes):
    change(base / "config.json", **changes)
    with pytest.raises(ModelError, match="config.json: .*BASE_MODEL"):
        check_base(base)


def test_a_base_cut_short_or_without_configuration_is_named(base):
    weights = base / "model.safetensors"
    weights.unlink()
    weights.write_bytes((BASE / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(ModelError, match="base: weights cannot be read .model.safetensors"):
        check_base(base)
    (base / "config.json").unlink()
    with pytest.raises(ModelError, match="config.json: not there"):
        check_base(base)


@pytest.mark.parametrize(
    "index", [{}, {"weight_map": []}, {"weight_map": {"a": "../x"}}, {"weight_map": {"a": "absent"}}]
)
def test_an_index_names_files_of_the_folder_alone(base, index):
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="model.safetensors.index.json"):
        check_base(base)


def test_the_form_is_that_of_the_start_adapter(tmp_path):
    lora = AdapterFiles(tmp_path, {"image_side": 96}, LoraSettings(4, 8, 0.0, LORA_TARGETS), {})
    check_start(FinetuneConfig(start_adapter="a"), lora)
    check_start(FinetuneConfig(start_adapter="a", lora_rank=4, lora_alpha=8, image_side=96), lora)
    with pytest.raises(ConfigError, match="LORA_RANK=2: START_ADAPTER a has 4.*leave LORA_RANK out"):
        check_start(FinetuneConfig(start_adapter="a", lora_rank=2), lora)
    with pytest.raises(ConfigError, match="LORA_ALPHA=4: START_ADAPTER a has 8"):
        check_start(FinetuneConfig(start_adapter="a", lora_alpha=4), lora)
    with pytest.raises(ConfigError, match="LORA_TARGETS=text.connector: START_ADAPTER a has text,"):
        check_start(FinetuneConfig(start_adapter="a", lora_targets="text+connector"), lora)
    with pytest.raises(ConfigError, match="IMAGE_SIDE=192: START_ADAPTER a has 96"):
        check_start(FinetuneConfig(start_adapter="a", image_side=192), lora)
