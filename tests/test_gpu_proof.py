"""benchmarks/gpu_proof.sh: what it refuses, and that a failing part is noted and the next begins."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from stkvlm_lib.config import ROOT


def proof(*words, **variables):
    command = ["bash", str(ROOT / "benchmarks" / "gpu_proof.sh"), *map(str, words)]
    environment = os.environ | {"PYTHON": sys.executable} | variables
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dri"], "there is no option --dri"),
        (["--dry", "tets"], "there is no part tets; there are tests run"),
        (["--out"], "--out takes a folder"),
        (["--dry", "--cpu-run", "/nowhere"], "/nowhere: no metrics.json there"),
    ],
)
def test_what_it_cannot_do_is_refused_in_one_line(words, said):
    done = proof(*words)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_proves_nothing():
    assert "no CUDA device; --dry tries" in proof("tests").stderr


def test_help_lists_the_parts():
    said = proof("--help").stdout
    assert "--dry" in said and all(f"\n{part} " in said for part in ("tests", "again", "straight256", "batch"))
    assert "set -" not in said


def test_a_part_that_fails_is_noted_and_the_summary_is_written(tmp_path):
    """`again` without `run` fails; called later with time run out, `heart` is not begun and `again` still told."""
    cpu_run = tmp_path / "cpu"
    cpu_run.mkdir()
    (cpu_run / "metrics.json").write_text('{"exact": 0.5, "n": 10}')
    out = tmp_path / f"out-{os.getpid()}"  # its name is that of the runs
    done = proof("--dry", "--out", out, "--cpu-run", cpu_run, "again")
    assert done.returncode == 1 and "again: FAILED: the part run is not done" in done.stdout
    assert proof("--dry", "--out", out, "--cpu-run", cpu_run, "heart", LIMIT="5").returncode == 1
    summary = json.loads((out / "summary.json").read_text())
    assert summary["dry"] is True and summary["date"] and summary["device"]
    assert summary["parts"]["again"]["result"].startswith("FAILED")
    assert summary["parts"]["heart"]["result"] == "not begun, time was up"
    assert summary["parts"]["cpu"]["figures"] == {"exact": 0.5, "n": 10}
    text = (out / "summary.md").read_text()
    assert "tiny sizes, which proves nothing" in text and "| again | FAILED" in text


@pytest.fixture
def with_a_gpu(tmp_path):
    """A Python that says that there is a GPU, and whose tests never end."""
    path = tmp_path / "python"
    cases = '*is_available*) exit 0 ;; "-m pytest"*) sleep 60 ;;'
    path.write_text(f'#!/bin/bash\ncase "$*" in {cases} *) exec {sys.executable} "$@" ;; esac\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(("score", "is_near"), [(0.905, True), (0.88, False)])
def test_a_score_must_be_within_a_point_of_the_cpus_that_is_kept(with_a_gpu, tmp_path, score, is_near):
    (tmp_path / "run.json").write_text(json.dumps({"exact": score}))
    (tmp_path / "run.tsv").write_text("run\tdone\t9\n")
    kept = json.loads((ROOT / "benchmarks" / "results" / "cpu-seed0.json").read_text())["metrics"]["exact"]
    done = proof("--out", tmp_path, "heart", LIMIT="5", PYTHON=with_a_gpu)
    assert f"Exact match of run minus cpu: {100 * (score - kept):+.2f} points" in done.stdout
    assert ("MORE THAN A POINT APART" in done.stdout) is not is_near and "results.py proof" in done.stdout


def test_ctrl_c_ends_it_with_a_summary_of_what_is_done(with_a_gpu, tmp_path):
    command = ["bash", str(ROOT / "benchmarks" / "gpu_proof.sh"), "--dry", "--out", str(tmp_path), "tests", "again"]
    settings = {"env": os.environ | {"PYTHON": with_a_gpu}, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **settings) as process:
        while not (tmp_path / "tests.log").exists():
            time.sleep(0.1)
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate()[0]
    assert process.returncode == 1 and "tests: interrupted" in said and "again: " not in said
    assert "| tests | interrupted" in (tmp_path / "summary.md").read_text()
