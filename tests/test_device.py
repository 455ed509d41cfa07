"""What a model computes in: as PRECISION or the environment says, and the same answers in any of it."""

import pytest
import torch
from tiny import copy_frames

from stkvlm_lib import device
from stkvlm_lib.config import ConfigError, FinetuneConfig, ScoreConfig
from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.device import compute_dtype, device_name, precision_of
from stkvlm_lib.parameters import make_config
from stkvlm_lib.qa.generate import frames_by_split, write_qa_sets
from stkvlm_lib.qa.training_draw import read_questions
from stkvlm_lib.vlm import finetune
from stkvlm_lib.vlm.adapter import load_answerer
from stkvlm_lib.vlm.features import FeatureStore

CPU = torch.device("cpu")


@pytest.mark.parametrize(("native", "wanted"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_cpu_computes_in_bf16_only_where_it_multiplies_in_it(monkeypatch, native, wanted):
    monkeypatch.delenv("STKVLM_PRECISION")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert compute_dtype(CPU) is wanted
    assert compute_dtype(CPU, "fp32") is torch.float32
    assert precision_of(wanted) not in device_name()  # which does not know what a run has chosen


def test_the_environment_says_what_auto_means_and_a_parameter_goes_before_it(monkeypatch):
    monkeypatch.setenv("STKVLM_PRECISION", "bf16")
    assert compute_dtype(CPU) is torch.bfloat16
    assert compute_dtype(CPU, "fp32") is torch.float32
    monkeypatch.setenv("STKVLM_PRECISION", "half")
    with pytest.raises(ConfigError, match="STKVLM_PRECISION='half': must be fp32, bf16, fp16"):
        compute_dtype(CPU)


def test_what_a_device_does_not_train_in_is_refused():
    with pytest.raises(ConfigError, match="PRECISION=fp16: only a GPU trains in it"):
        compute_dtype(CPU, "fp16")
    with pytest.raises(ConfigError, match="PRECISION='int8': must be auto, fp32, bf16, fp16"):
        make_config({"PRECISION": "int8"}, ScoreConfig)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has floating points of its own")
def test_training_and_answering_in_bf16(tmp_path, base_folder):
    """The loss falls as in fp32, the adapter's weights stay in fp32, each floating point keeps tokens of its own."""
    frames = read_frames(copy_frames(copy_frames(tmp_path / "frames", "train", 2), "valid", 1))
    facts, losses, kept = {}, {}, tmp_path / "kept"
    for precision in ("fp32", "bf16"):
        config = FinetuneConfig(
            run_dir=str(tmp_path / precision), base_model=str(base_folder), precision=precision, epochs=4, batch_size=4
        )
        write_qa_sets(frames_by_split(frames, 0), config.run_path / "qa")
        train, valid = read_questions(config, frames)
        model = finetune.build_trainable(config)
        assert model.dtype is device._DTYPES[precision]
        store = FeatureStore(model, frames, 4, kept)
        facts[precision] = finetune.finetune(model, config, frames, train, valid, features=store)
        losses[precision] = [row["loss"] for row in finetune.read_log(config.run_path) if "loss" in row]
        lora = {p.dtype for name, p in model.model.named_parameters() if "lora_" in name}
        assert lora == {torch.float32}
        again = load_answerer(config.run_path / "adapter", str(base_folder), precision=precision)
        features = again.encode([frames.views("valid")[0].image()])
        assert features.dtype is model.dtype
        assert again.answer_encoded(features, [["What track is this?"]])[0][0].confidence > 0
    assert len(list(kept.iterdir())) == 2
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
    assert losses["bf16"][-1] < losses["bf16"][0]
