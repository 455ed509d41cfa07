"""Runs that are killed, stopped, refused and starved: what is said, what is left, and that the same command goes on.

The pipeline runs in a process of its own over a notebook of a few lines.
"""

import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest

from stkvlm_lib.config import ROOT, STEPS
from stkvlm_lib.files import write_json
from stkvlm_lib.notebook_kernel import Kernel
from stkvlm_lib.runs import is_done, stamp_path

PIPELINE = """
import sys
from pathlib import Path
from stkvlm_lib import __main__ as cli, pipeline, runs
place = Path(sys.argv[1])
pipeline.NOTEBOOKS, runs.OUTPUTS = place / "notebooks", place / "outputs"
pipeline.preflight = lambda *given: None
sys.exit(cli.main(["run", "cpu", "--run-id", "a"]))
"""
CELL = """
import os, time
from pathlib import Path
from stkvlm_lib import run_lock, runs
from stkvlm_lib.files import whole_file, write_json
folder = Path(RUN_DIR)
run_lock.hold_step(folder)
with whole_file(folder / "half.json") as part:
    part.write_text("half")
    if (folder.parent.parent / "wait").exists():
        with whole_file(folder.parent.parent / "ready") as ready:
            ready.write_text(str(os.getpid()))
        time.sleep(120)
write_json(runs.stamp_path(folder, "01"), {})
"""
METRICS = {"split": "test", "n": 9, "exact": 0.75, "exact_ci95": [0.7, 0.8], "majority": 0.3, "base_exact": 0.1}
RESUME = "resume ./run_all.sh cpu --run-id a"


@pytest.fixture
def place(tmp_path):
    """Notebook 01, and a run `a` whose other steps are done already."""
    (tmp_path / "notebooks").mkdir()
    cells = [
        nbformat.v4.new_code_cell('RUN_DIR = ""\nSEED = 0', metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(CELL),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "notebooks" / f"{STEPS['01'][0]}.ipynb")
    run = tmp_path / "outputs" / "a"
    write_json(run / "metrics.json", METRICS)
    for step in ("02", "03", "04", "05"):
        write_json(stamp_path(run, step), {})
    return tmp_path


def begin(place, **environment):
    command = [sys.executable, "-c", PIPELINE, str(place)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment, **pipes)


def begin_and_wait(place):
    """The pipeline with its kernel amidst a cell -> (process, pid of the kernel)."""
    (place / "wait").touch()
    process = begin(place)
    until = time.monotonic() + 120
    while not (place / "ready").exists():
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.1)
    return process, int((place / "ready").read_text())


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


def litter(place):
    return [path.name for path in (place / "outputs" / "a").rglob(".*")]


def assert_the_same_command_goes_on(place):
    (place / "wait").unlink()
    process = begin(place)
    _, said = process.communicate(timeout=180)
    assert process.returncode == 0, said
    assert is_done(place / "outputs" / "a", "01") and litter(place) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_is_stopped_leaves_no_kernel_and_no_litter_and_says_how_to_resume(place, number, status):
    process, kernel = begin_and_wait(place)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status
    assert RESUME in said and "Traceback" not in said
    assert not is_alive(kernel) and litter(place) == []
    assert not is_done(place / "outputs" / "a", "01")


def test_a_kernel_that_is_killed_is_said_to_have_lacked_memory(place):
    process, kernel = begin_and_wait(place)
    os.kill(kernel, signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Kernel died: it was killed (signal 9), most likely because memory ran out" in said
    assert RESUME in said and "BATCH_SIZE" in said and litter(place) == []


@pytest.mark.slow
@pytest.mark.parametrize("both", [False, True], ids=["the pipeline", "the pipeline and its kernel"])
def test_the_same_command_goes_on_after_a_kill(place, both):
    process, kernel = begin_and_wait(place)
    process.kill()
    process.wait()
    if both:
        os.kill(kernel, signal.SIGKILL)
    assert_the_same_command_goes_on(place)
    assert not is_alive(kernel)


@pytest.mark.slow
def test_a_second_run_of_one_name_is_sent_away_and_the_first_goes_on(place):
    process, kernel = begin_and_wait(place)
    second = begin(place)
    _, said = second.communicate(timeout=60)
    assert second.returncode == 2 and f"process {process.pid} is working in it" in said
    assert said.count("\n") == 1 and is_alive(kernel)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert_the_same_command_goes_on(place)


def test_a_home_and_caches_that_cannot_be_written_stop_no_run(place):
    homes = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "HF_HOME", "MPLCONFIGDIR")
    process = begin(place, **dict.fromkeys(homes, "/proc/nothing"))  # where the superuser cannot write either
    _, said = process.communicate(timeout=180)
    assert process.returncode == 0, said
    assert is_done(place / "outputs" / "a", "01") and litter(place) == []


@pytest.mark.parametrize(
    ("status", "words"), [(-9, "memory ran out"), (-11, "by SIGSEGV"), (3, "exit status 3"), (None, "exit status None")]
)
def test_the_end_of_a_kernel_is_told_in_words(tmp_path, status, words):
    kernel = Kernel(tmp_path / "kernel.json")
    if status is not None:
        code = f"import os, sys; os.kill(os.getpid(), {-status})" if status < 0 else f"import sys; sys.exit({status})"
        kernel.process = subprocess.Popen([sys.executable, "-c", code])
        kernel.process.wait()
    assert words in kernel.ended()
