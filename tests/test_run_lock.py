"""One process at a time in a run folder, whatever becomes of it."""

import os
import signal
import subprocess
import sys

import pytest

from stkvlm_lib import run_lock, runs
from stkvlm_lib.config import ROOT
from stkvlm_lib.run_lock import KERNEL_LOCK, RUN_LOCK, RunBusy, hold_run, hold_step

HOLD = """
import sys, time
from pathlib import Path
from stkvlm_lib import run_lock
getattr(run_lock, sys.argv[2])(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""
PARENT = """
import subprocess, sys, time
from pathlib import Path
from stkvlm_lib import run_lock
run_lock.hold_run(Path(sys.argv[1]))
command = [sys.executable, "-c", sys.argv[2], sys.argv[1], "hold_step"]
child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
print(child.stdout.readline().strip(), child.pid, flush=True)
time.sleep(60)
"""
COUNT = """
import sys
from pathlib import Path
from stkvlm_lib import run_lock
for _ in range(30):
    while True:
        try:
            lock = run_lock.hold_run(Path(sys.argv[1]))
            break
        except run_lock.RunBusy:
            pass
    count = Path(sys.argv[1]) / "count"
    count.write_text(str(int(count.read_text()) + 1))
    lock.release()
"""


@pytest.fixture(autouse=True)
def nothing_stays_held():
    yield
    run_lock.release_all()


@pytest.fixture
def start():
    """Starts Python processes that hold locks; they end with the test."""
    started = []

    def run(code, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        process.said = process.stdout.readline().split()
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("mine", [hold_run, hold_step])
@pytest.mark.parametrize("theirs", ["hold_run", "hold_step"])
def test_the_second_is_told_who_is_there_and_comes_in_when_that_one_is_killed(tmp_path, start, mine, theirs):
    other = start(HOLD, tmp_path, theirs)
    with pytest.raises(
        RunBusy, match=rf"{tmp_path}: process {other.pid} is working.*kill {other.pid}.*--run-id, --name or RUN_DIR"
    ):
        mine(tmp_path)
    other.kill()
    other.wait()
    assert (tmp_path / RUN_LOCK).is_file(), "it could not take it away"
    mine(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_a_kernel_works_in_the_run_of_the_pipeline_that_started_it(tmp_path, start):
    said, kernel = start(PARENT, tmp_path, HOLD).said
    try:
        assert said == "held" and (tmp_path / KERNEL_LOCK).read_text().strip() == kernel
    finally:
        os.kill(int(kernel), signal.SIGKILL)


def test_a_kernel_that_outlives_its_pipeline_keeps_the_next_one_out_until_it_ends(tmp_path, start, monkeypatch):
    pipeline = start(PARENT, tmp_path, HOLD)
    kernel = int(pipeline.said[1])
    try:
        pipeline.kill()
        pipeline.wait()
        monkeypatch.setattr(run_lock, "KERNEL_ENDS_WITHIN", 0.3)
        with pytest.raises(RunBusy, match=f"process {kernel} "):
            hold_run(tmp_path)
        assert not (tmp_path / RUN_LOCK).exists(), "what was refused holds nothing"
    finally:
        os.kill(kernel, signal.SIGKILL)
    monkeypatch.setattr(run_lock, "KERNEL_ENDS_WITHIN", 30)
    hold_run(tmp_path)


def test_a_cell_that_is_run_again_keeps_its_lock_and_another_folder_ends_it(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    assert hold_step(one) is hold_step(one)
    hold_step(two)
    assert not (one / RUN_LOCK).exists() and (two / RUN_LOCK).exists()


def test_a_step_in_the_process_of_the_pipeline_needs_no_lock(tmp_path):
    hold_run(tmp_path)
    assert hold_step(tmp_path) is None and hold_step(tmp_path / ".") is None


def test_a_run_folder_in_which_nothing_came_to_be_goes_with_its_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "OUTPUTS", tmp_path)
    with runs.open_run(None, "cpu", 0), runs.open_run("b", "cpu", 0) as second:
        (second / "kept").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_what_a_killed_run_left_goes_when_it_is_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "OUTPUTS", tmp_path)
    left = [tmp_path / "a" / name for name in (RUN_LOCK, KERNEL_LOCK, "qa/.x.json.7.part", "notebooks/.kernel-7.json")]
    for path in [*left, tmp_path / "a" / "config.json"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    with runs.open_run("a", "cpu", 0) as folder:
        assert sorted(p.name for p in folder.rglob("*") if p.is_file()) == [RUN_LOCK, "config.json"]
    assert [p.name for p in (tmp_path / "a").rglob("*") if p.is_file()] == ["config.json"]


def test_two_that_begin_at_once_do_not_both_come_in(tmp_path):
    """Three processes count in one file, each holding the lock for no longer than it takes."""
    (tmp_path / "count").write_text("0")
    counting = [subprocess.Popen([sys.executable, "-c", COUNT, str(tmp_path)], cwd=ROOT) for _ in range(3)]
    assert [process.wait(60) for process in counting] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "90"
