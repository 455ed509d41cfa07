"""The runs of a batch: shared steps, failures, kills, full disks and interrupts, on runs that take no time."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from pathlib import Path

import pytest
import tiny_run

from stkvlm_lib import runs
from stkvlm_lib.batch import machines
from stkvlm_lib.batch.handing_on import hand_on
from stkvlm_lib.batch.machines import Machines, choose_machines
from stkvlm_lib.batch.plan import make_batch
from stkvlm_lib.batch.progress import headline, seconds_left
from stkvlm_lib.batch.run_batch import run_batch
from stkvlm_lib.batch.states import (
    ALIVE,
    BEGUN,
    DONE,
    FAILED,
    RUNNING,
    WAITING,
    Pulse,
    State,
    complaint,
    doing,
    heartbeat,
    log_path,
)
from stkvlm_lib.config import ROOT, ConfigError
from stkvlm_lib.files import read_json
from stkvlm_lib.run_lock import RunBusy

TINY_BATCH = Path(__file__).with_name("tiny_batch.py")
WORDS = ("batch", "smoke", "-p", "LORA_RANK", "4,8", "--seeds", "0", "1", "--name", "rank")


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    folder = tmp_path / "outputs"
    folder.mkdir()
    monkeypatch.setattr(runs, "OUTPUTS", folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return folder


def sweep(**changes):
    given = {"name": "rank", "profile": "smoke", "grid": {"LORA_RANK": [4, 8]}, "seeds": [0, 1]}
    return make_batch(given | changes, "here")


def do(batch, where=None):
    return run_batch(batch, where or Machines(), resume="again", command=tiny_run.command)


def steps_done(outputs):
    return (outputs / "rank" / "steps.log").read_text().splitlines()


@pytest.mark.parametrize("at_once", [1, 3])
def test_shared_steps_are_made_once_and_all_runs_get_to_their_end(outputs, at_once):
    states = do(sweep(), Machines(at_once))
    assert {state.state for state in states.values()} == {DONE} and len(states) == 4
    counts = Counter(line.split()[1] for line in steps_done(outputs))
    assert counts == {"01": 2, "02": 2, "03": 4, "04": 4, "05": 4}, "one run a seed makes the questions"
    first, second = (outputs / "rank" / f"lora_rank-{rank}-s0" for rank in (4, 8))
    assert (first / "qa" / "train.jsonl").samefile(second / "qa" / "train.jsonl")
    assert not (first / "notebooks" / "02_generate_qa.ipynb").samefile(second / "notebooks" / "02_generate_qa.ipynb")
    manifest = read_json(second / "manifest.json")
    assert manifest["steps"]["02"]["made_by"] == "rank/lora_rank-4-s0" and manifest["run_id"] == second.name
    assert list(read_json(second / "config.json")) == ["01", "02", "03", "04", "05"]
    assert not [path.name for path in (outputs / "rank").rglob(".*")], "no lock and no sign of life is left"


def test_a_finished_batch_does_nothing_again_and_a_larger_one_does_the_rest(outputs):
    do(sweep())
    done = steps_done(outputs)
    assert {state.state for state in do(sweep()).values()} == {DONE} and steps_done(outputs) == done
    do(sweep(grid={"LORA_RANK": [4, 8, 16]}))
    more = steps_done(outputs)[len(done) :]
    assert sorted(more) == sorted(f"lora_rank-16-s{seed} {step}" for seed in (0, 1) for step in ("03", "04", "05"))


def test_a_run_that_fails_is_named_the_others_go_on_and_the_same_command_tries_it_again(outputs, capsys):
    (outputs / "fail-lora_rank-8-s0").touch()
    states = do(sweep())
    assert Counter(state.state for state in states.values()) == {DONE: 3, FAILED: 1}
    assert states["lora_rank-8-s0"].reason == "03_finetune_qlora failed: RuntimeError: out of paper"
    assert "failed  lora_rank-8-s0" in capsys.readouterr().out
    (outputs / "fail-lora_rank-8-s0").unlink()
    assert do(sweep())["lora_rank-8-s0"].state == DONE
    assert Counter(steps_done(outputs))["lora_rank-8-s0 02"] == 0, "nothing that was there is made again"


def test_a_run_whose_shared_steps_fail_does_not_hold_up_those_that_wait_for_them(outputs, monkeypatch):
    def command(run, to_step):
        words = tiny_run.command(run, to_step)
        return [sys.executable, "-c", "import sys; sys.exit(3)"] if run.name == "lora_rank-4-s0" else words

    states = run_batch(sweep(), Machines(), resume="again", command=command)
    assert states["lora_rank-4-s0"].state == FAILED and "ended with status 3" in states["lora_rank-4-s0"].reason
    assert states["lora_rank-8-s0"].state == DONE
    assert "lora_rank-8-s0 02" in steps_done(outputs), "it makes them itself"


def test_artefacts_that_are_not_as_recorded_are_not_handed_on(outputs):
    first, second = sweep(seeds=[0]).runs
    do(sweep(seeds=[0]))
    shutil.rmtree(second.folder)
    (first.folder / "qa" / "train.jsonl").write_text("{}")
    assert hand_on(first, second) == ["01"]
    other = sweep(seeds=[0], parameters={"BALANCE": 2.0}).runs[1]
    shutil.rmtree(second.folder)
    assert hand_on(first, other) == ["01"], "another BALANCE makes other questions"


def test_a_full_disk_is_named_nothing_is_lost_and_the_rest_follows_when_there_is_room(outputs, monkeypatch):
    usage, calls = shutil.disk_usage, []

    def filling(path):
        calls.append(path)
        return usage(path)._replace(free=10_000_000) if len(calls) > 4 else usage(path)

    monkeypatch.setattr(shutil, "disk_usage", filling)
    states = do(sweep())
    kinds = Counter(state.state for state in states.values())
    assert kinds[DONE] >= 1 and kinds[FAILED] >= 1 and kinds[DONE] + kinds[FAILED] == 4
    assert all("10 MB left; make room" in state.reason for state in states.values() if state.state == FAILED)
    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert {state.state for state in do(sweep()).values()} == {DONE}
    assert max(Counter(steps_done(outputs)).values()) == 1, "no step was done twice"


# Killed, stopped, interrupted: the command line in a process of its own


def begin(outputs, *words):
    command = [sys.executable, str(TINY_BATCH), str(outputs), "--no-page", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes)


def wait_for(condition, process, seconds=90):
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.05)


def begin_and_wait(outputs, *more):
    """The batch while a run of it is amidst step 03 -> (process, pid of that run)."""
    (outputs / "wait").touch()
    process = begin(outputs, *WORDS, *more)
    wait_for(lambda: list(outputs.glob("waiting-*")), process)
    run = outputs / "rank" / next(outputs.glob("waiting-*")).name.removeprefix("waiting-")
    return process, int((run / ".lock").read_text())


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def assert_goes_on(outputs):
    """The same batch gets to its end, and no step is done twice."""
    (outputs / "wait").unlink(missing_ok=True)
    process = begin(outputs, *WORDS)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "4 of 4 runs done" in said
    assert max(Counter(steps_done(outputs)).values()) == 1


@pytest.mark.parametrize(("number", "status", "at_once"), [(signal.SIGTERM, 143, "1"), (signal.SIGINT, 130, "2")])
def test_an_interrupt_ends_all_runs_and_names_the_command_that_goes_on(outputs, number, status, at_once):
    process, run = begin_and_wait(outputs, "--at-once", at_once)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert f"resume ./run_all.sh {' '.join(WORDS)} --at-once {at_once}" in errors and "Traceback" not in errors
    assert not is_alive(run) and not (outputs / "rank" / ALIVE).exists()
    if at_once == "2":
        assert_goes_on(outputs)


def test_after_a_kill_of_the_batch_its_runs_end_by_themselves_and_the_same_command_waits_for_that(outputs):
    process, run = begin_and_wait(outputs)
    process.kill()
    process.wait()
    assert_goes_on(outputs)
    assert not is_alive(run)


def test_a_run_that_is_killed_is_named_and_the_others_go_on(outputs):
    process, run = begin_and_wait(outputs)
    (outputs / "wait").unlink()
    os.kill(run, signal.SIGKILL)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "failed  lora_rank-4-s0: killed (signal 9: SIGKILL)" in errors and "resume ./run_all.sh batch" in errors
    assert "3 of 4 runs done, 1 failed" in said
    assert_goes_on(outputs)


def test_what_a_run_says_is_of_its_latest_attempt(outputs):
    run = sweep().runs[0].folder
    log_path(run).parent.mkdir(parents=True)
    earlier = f"{BEGUN}yesterday\nstep 7 of 9\nerror: no space left\n"
    log_path(run).write_text(f"{earlier}{BEGUN}today\n")
    assert (doing(run), complaint(run)) == ("01_explore_data", "")
    log_path(run).write_text(f"{BEGUN}today\nstep 1 of 9\n{earlier}")
    assert (doing(run), complaint(run)) == ("01_explore_data: error: no space left", "no space left")


def test_two_batches_do_not_work_in_one_folder(outputs):
    lock = hold_run_of(outputs / "rank")
    try:
        with pytest.raises(RunBusy, match="is working in it"):
            do(sweep())
    finally:
        lock.kill()
        lock.wait()


def hold_run_of(folder):
    folder.mkdir()
    code = "import sys, time; from pathlib import Path; from stkvlm_lib.run_lock import hold_run"
    code += "; hold_run(Path(sys.argv[1])); print(flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    return process


# Machines


def test_gpus_that_are_not_there_are_refused(monkeypatch):
    monkeypatch.setattr(machines, "gpus_here", lambda: ())
    with pytest.raises(ConfigError, match="--gpus 0: there is no GPU '0'; this machine has none"):
        choose_machines(gpus="0")
    assert choose_machines() == Machines(1, ())
    monkeypatch.setattr(machines, "gpus_here", lambda: ("0", "1"))
    with pytest.raises(ConfigError, match="there is no GPU '7'; there are 0, 1"):
        choose_machines(gpus="0,7")
    with pytest.raises(ConfigError, match="--cluster leaves"):
        choose_machines(at_once=2, cluster="tcp://x:1")
    assert choose_machines() == Machines(2, ("0", "1")) and choose_machines(gpus="1") == Machines(1, ("1",))
    assert choose_machines(at_once=4).at_once == 4
    assert choose_machines(gpus="1,1") == Machines(2, ("1", "1")), "two runs on one GPU"


def test_gpus_are_named_as_the_environment_names_them(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert machines.gpus_here() == ("3", "5")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert machines.gpus_here() == ("0", "1")


def test_each_run_has_a_gpu_of_its_own_as_long_as_there_are_enough():
    assert Machines(2, ("4", "6")).places() == ["4", "6"] and Machines(1, ("4", "6")).places() == ["4"]
    assert Machines(3, ("4", "6")).places() == ["4", "6", "4"]
    assert Machines(2).places() == []


def test_runs_see_their_gpu_and_share_the_cores(outputs, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    seen = outputs / "seen"

    def command(run, to_step):
        code = f"import os; open({str(seen)!r}, 'a').write(os.environ.get('CUDA_VISIBLE_DEVICES', '-') + chr(10))"
        return [sys.executable, "-c", f"{code}; import runpy, sys; sys.argv = sys.argv[1:]; "
                "runpy.run_path(sys.argv[0], run_name='__main__')", *tiny_run.command(run, to_step)[1:]]  # fmt: skip

    states = run_batch(sweep(), Machines(2, ("4", "6")), resume="again", command=command)
    assert {state.state for state in states.values()} == {DONE}
    assert set(seen.read_text().split()) == {"4", "6"} and {s.where[-5:] for s in states.values()} <= {"GPU 4", "GPU 6"}
    assert Machines(2).environment("")["OMP_NUM_THREADS"].isdigit() and Machines(1).environment("") == {}


def test_a_cluster_that_does_not_answer_and_one_without_gpus_are_named(outputs, monkeypatch):
    distributed = pytest.importorskip("distributed", reason="needs the extra `cluster`")
    monkeypatch.setattr("stkvlm_lib.parallel.REACHED_WITHIN", 1)
    with pytest.raises(ConfigError, match="--cluster: no Dask scheduler at tcp://nowhere:1"):
        do(sweep(), Machines(cluster="tcp://nowhere:1"))
    with (
        distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None, protocol="tcp://") as local,
        pytest.raises(ConfigError, match='no worker offers the resource GPU; .* --resources "GPU=1"'),
    ):
        do(sweep(), Machines(cluster=local.scheduler_address))
    assert not (outputs / "rank").exists()


@pytest.fixture(scope="module")
def cluster():
    """The address of a cluster of two workers with a GPU each."""
    distributed = pytest.importorskip("distributed", reason="needs the extra `cluster`")
    settings = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "resources": {"GPU": 1}}
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(TINY_BATCH.parent)]))
        warnings.simplefilter("ignore")
        with distributed.LocalCluster(**settings) as local:
            yield local.scheduler_address


def test_a_cluster_of_two_workers_does_the_runs(outputs, cluster):
    (outputs / "fail-lora_rank-8-s1").touch()
    states = do(sweep(), Machines(cluster=cluster))
    assert Counter(state.state for state in states.values()) == {DONE: 3, FAILED: 1}
    assert states["lora_rank-8-s1"].reason.endswith("out of paper")
    assert Counter(line.split()[1] for line in steps_done(outputs))["02"] == 2


def test_an_interrupt_reaches_the_runs_on_a_cluster(outputs, cluster):
    """Its workers live on; what they run ends, as the batch gives no sign of life any more."""
    process, run = begin_and_wait(outputs, "--cluster", cluster)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "resume ./run_all.sh batch" in errors
    until = time.monotonic() + 20
    while is_alive(run) and time.monotonic() < until:
        time.sleep(0.1)
    assert not is_alive(run)


# Progress


def test_the_time_left_follows_from_what_runs_took():
    took, running_since = State(DONE, seconds=100), State(RUNNING, since=1000)
    assert seconds_left([running_since, State(WAITING)], 1, 1000) is None
    assert seconds_left([took, running_since, State(WAITING)], 1, 1040) == 60 + 100
    assert seconds_left([took, running_since, State(WAITING)], 2, 1040) == 100, "one run cannot be split"
    assert seconds_left([took, State(FAILED)], 1, 0) == 0
    said = headline([took, running_since, State(FAILED), State(WAITING)], 1, 1040)
    assert said == "1 of 4 runs done, 1 failed, 1 running, about 3 min left"


def test_a_batch_gives_signs_of_life_until_it_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("stkvlm_lib.batch.states.BEAT", 0.01)
    with heartbeat(tmp_path):
        pulse = Pulse(tmp_path, patience=0.5)
        until = time.monotonic() + 1
        while time.monotonic() < until:
            assert pulse.is_there()
            time.sleep(0.05)
    assert not pulse.is_there()
    (tmp_path / ALIVE).write_text("as it was left by a batch that was killed")
    pulse = Pulse(tmp_path, patience=0.2)
    assert pulse.is_there()
    time.sleep(0.3)
    assert not pulse.is_there()


def test_progress_in_a_notebook_is_a_table_and_a_log_has_lines(outputs, monkeypatch, capsys):
    from stkvlm_lib.batch import progress

    shown = []
    monkeypatch.setattr(progress, "_in_notebook", lambda: True)
    monkeypatch.setattr(progress, "_table_shower", lambda: shown.append)
    do(sweep(seeds=[0]))
    said, rows = shown[-1]
    assert said == "2 of 2 runs done" and [row["what"] for row in rows] == ["exact match 50.0%", "exact match 66.7%"]
    assert capsys.readouterr().out == ""


def test_a_run_is_ended_in_a_thread_too(outputs):
    """What a notebook's interrupt does, where the runs are threads."""
    (outputs / "wait").touch()
    threading.Timer(3.0, lambda: signal.raise_signal(signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        do(sweep(), Machines(2))
    (outputs / "wait").unlink()
    assert {state.state for state in do(sweep()).values()} == {DONE}, "the next call is not stopped by the last"
    assert log_path(sweep().runs[0].folder).is_file()
