"""One training in several processes: the same draws and losses, one log, and ends that are told."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from tiny import copy_frames

from stkvlm_lib.config import ROOT, ConfigError, FinetuneConfig
from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.files import write_json
from stkvlm_lib.qa.generate import frames_by_split, write_qa_sets
from stkvlm_lib.qa.qa_sets import QaError
from stkvlm_lib.runs import recorded_parameters
from stkvlm_lib.vlm import launch
from stkvlm_lib.vlm.adapter import load_answerer
from stkvlm_lib.vlm.diary import read_log
from stkvlm_lib.vlm.train_process import recorded_config
from stkvlm_lib.vlm.train_run import train_run
from stkvlm_lib.vlm.trainer import TrainingDiverged
from stkvlm_lib.vlm.training_batches import IDLE, Shares


@pytest.fixture(scope="module")
def frames_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for split in ("train", "valid", "test"):
        copy_frames(folder, split, 1)
    return folder


@pytest.fixture(scope="module")
def qa(frames_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("qa")
    write_qa_sets(frames_by_split(read_frames(frames_dir), 0), folder)
    return folder


def config(run, frames_dir, base, **changes):
    settings = {"epochs": 2, "batch_size": 4, "evaluations": 2, "lora_rank": 4, "learning_rate": 3e-3, "valid_views": 3}
    settings |= {"frames_dir": str(frames_dir), "base_model": str(base), "run_dir": str(run)}
    return FinetuneConfig(**settings | changes)


def test_all_shares_together_are_the_batches_of_one_process():
    """Nine pictures in fours: the last batch has one, so that a process idles."""
    alone = Shares(9, 4, seed=3)
    parts = [Shares(9, 4, 3, process, 3) for process in range(3)]
    for epoch in (0, 1):
        for shares in (alone, *parts):
            shares.set_epoch(epoch)
        together = [sorted(i for part in step for i in part if i != IDLE) for step in zip(*parts, strict=True)]
        assert together == [sorted(batch) for batch in alone] and len(alone) == 3
        assert [part[-1] for part in map(list, parts)].count([IDLE]) == 2
    assert list(alone) != list(Shares(9, 4, seed=3)), "another epoch has another order"


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path, frames_dir, qa, base_folder, monkeypatch, capsys):
    """Ten pictures in batches of four: the last has two, one a process. The image tokens come from one folder."""
    monkeypatch.setenv("STKVLM_FEATURES", str(tmp_path / "features"))
    one = train_run(config(tmp_path / "one", frames_dir, base_folder), qa=qa)
    encoded = sorted(path.name for path in (tmp_path / "features").rglob("*.safetensors"))
    shown = []
    two = train_run(config(tmp_path / "two", frames_dir, base_folder, processes=2), qa=qa, show=shown.append)
    assert encoded and encoded == sorted(path.name for path in (tmp_path / "features").rglob("*.safetensors")), "once"
    first, second = read_log(tmp_path / "one"), read_log(tmp_path / "two")
    assert [row.keys() for row in first] == [row.keys() for row in second]
    for a, b in zip(first, second, strict=True):
        assert a == pytest.approx(b, rel=2e-3, abs=1e-6)
    assert (one.steps, one.questions, one.kept_step) == (two.steps, two.questions, two.kept_step)
    assert shown[-1] == second and "step     1 of" in capsys.readouterr().out
    assert load_answerer(tmp_path / "two" / "adapter", str(base_folder))


@pytest.mark.slow
def test_what_a_process_fails_with_is_raised_here(tmp_path, frames_dir, qa, base_folder):
    settings = config(tmp_path, frames_dir, base_folder, processes=2)
    write_json(tmp_path / "config.json", {"03": recorded_parameters(settings)})
    with pytest.raises(QaError, match="train_drawn.jsonl: not there; draw the training questions"):
        launch.launch(settings, 2, qa, resume=False)
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("error", [TrainingDiverged("at step 3"), ConfigError("A=1"), KeyError("odd")])
def test_the_first_failure_counts_and_keeps_its_kind(tmp_path, error):
    assert "left no reason" in str(launch._failure(tmp_path, 1))
    launch.record_failure(tmp_path, error)
    launch.record_failure(tmp_path, RuntimeError("because another has ended"))
    told = launch._failure(tmp_path, 1)
    assert type(told) is (launch.LaunchFailed if isinstance(error, KeyError) else type(error))
    assert str(told) == str(error)


@pytest.mark.slow
def test_an_interrupt_ends_all_processes(tmp_path, frames_dir, qa, base_folder):
    settings = config(tmp_path, frames_dir, base_folder, processes=2, epochs=500)
    script = (
        "from pathlib import Path\n"
        "from stkvlm_lib.config import FinetuneConfig\n"
        "from stkvlm_lib.vlm.train_run import train_run\n"
        f"train_run({settings!r}, qa=Path({str(qa)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        until = time.monotonic() + 240
        while not (tmp_path / "train_log.jsonl").exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.5)
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) >= 3
        process.send_signal(signal.SIGINT)
        assert process.wait(60) != 0
        gone, alive = psutil.wait_procs(started, 10)
        assert not alive
    finally:
        process.kill()


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(launch.torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="PROCESSES=3: there are 2 GPUs; give at most so many"):
        launch.process_count(FinetuneConfig(processes=3))
    assert launch.process_count(FinetuneConfig(processes=0)) == 2
    monkeypatch.setattr(launch.torch.cuda, "device_count", lambda: 0)
    assert [launch.process_count(FinetuneConfig(processes=n)) for n in (0, 1, 3)] == [1, 1, 3]


def test_a_process_takes_the_gpu_of_its_rank(monkeypatch):
    from stkvlm_lib.vlm import base_vlm

    monkeypatch.setattr(base_vlm.torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert str(base_vlm.pick_device()) == "cuda:1"
    monkeypatch.delenv("LOCAL_RANK")
    assert str(base_vlm.pick_device()) == "cuda"


def test_a_process_reads_the_parameters_that_the_run_has_recorded(tmp_path):
    with pytest.raises(FileNotFoundError, match="begin notebook 03"):
        recorded_config(tmp_path)
    write_json(tmp_path / "config.json", {"02": {}})
    with pytest.raises(ConfigError, match="step 03 was not begun"):
        recorded_config(tmp_path)
    write_json(tmp_path / "config.json", {"03": {"LORA_RANK": 4}})
    assert recorded_config(tmp_path) == FinetuneConfig(run_dir=str(tmp_path), lora_rank=4)
