"""The log of a training, and other logs: named, installed, and refused before anything begins."""

from types import SimpleNamespace

import pytest

from stkvlm_lib import config
from stkvlm_lib.config import ConfigError, FinetuneConfig, check_reporters
from stkvlm_lib.files import read_json
from stkvlm_lib.pipeline import Request, check_request
from stkvlm_lib.vlm.diary import Diary, log_rows, read_log, tensorboard

HISTORY = [
    {"step": 1, "epoch": 0.5, "loss": 2.0, "learning_rate": 1e-3, "grad_norm": 0.7},
    {"step": 2, "epoch": 1.0, "eval_exact": 0.25},
    {"step": 2, "epoch": 1.0, "train_runtime": 3.0},
]


def state(history, first=True):
    return SimpleNamespace(log_history=history, is_world_process_zero=first, global_step=2, max_steps=4)


def test_rows_hold_loss_rate_and_gradient_or_the_valid_score():
    assert log_rows(HISTORY) == [HISTORY[0], {"step": 2, "epoch": 1.0, "valid_exact": 0.25}]


def test_of_several_processes_the_first_alone_writes_and_shows(tmp_path, capsys):
    shown = []
    for first in (False, True):
        diary = Diary(tmp_path, shown.append)
        diary.on_log(None, state(HISTORY, first), None)
        diary.on_save(None, state(HISTORY, first), None)
        assert len(shown) == int(first) and (tmp_path / "train_log.jsonl").exists() == first
    assert shown == [read_log(tmp_path)] == [log_rows(HISTORY)]
    assert "step     2 of 4  valid exact 0.250" in capsys.readouterr().out
    assert read_json(tmp_path / "training" / "clock.json")["seconds"] >= 0
    assert Diary(tmp_path, None).seconds >= read_json(tmp_path / "training" / "clock.json")["seconds"]


def test_a_log_that_is_unknown_or_not_installed_is_refused_before_a_run_begins(monkeypatch):
    with pytest.raises(ConfigError, match="REPORT_TO='tensorbord': must be empty or of tensorboard, wandb"):
        FinetuneConfig(report_to="tensorbord")
    assert FinetuneConfig(report_to="tensorboard, wandb").reporters == ["tensorboard", "wandb"]
    check_reporters(FinetuneConfig())
    monkeypatch.setattr(config, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'REPORT_TO=tensorboard: it is not installed; pip install -e "\.\[log\]"'):
        check_request(Request("cpu", {"REPORT_TO": "tensorboard"}))
    with pytest.raises(ConfigError, match="pip install wandb, or leave it out"):
        check_reporters(FinetuneConfig(report_to="wandb"))


def test_tensorboard_is_given_loss_rate_gradient_and_valid_score(tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra `log`")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from transformers import TrainerControl, TrainerState, TrainingArguments

    callback = tensorboard(tmp_path / "logs")
    arguments = TrainingArguments(output_dir=str(tmp_path / "training"), use_cpu=True, report_to=[])
    now = TrainerState(global_step=1)
    for row in HISTORY[:2]:
        callback.on_log(arguments, now, TrainerControl(), logs={k: v for k, v in row.items() if k != "step"})
    callback.on_train_end(arguments, now, TrainerControl())
    found = EventAccumulator(str(tmp_path / "logs"))
    found.Reload()
    assert {"train/loss", "train/learning_rate", "train/grad_norm", "eval/exact"} <= set(found.Tags()["scalars"])
    assert found.Scalars("eval/exact")[0].value == 0.25
