"""benchmarks/gpu_proof.sh: what it refuses, and that a failing part is noted and the next begins."""

import json
import os
import subprocess
import sys

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
    done = proof("--dry", "--out", tmp_path / "out", "--cpu-run", cpu_run, "again")
    assert done.returncode == 1 and "again: FAILED: the part run is not done" in done.stdout
    assert proof("--dry", "--out", tmp_path / "out", "--cpu-run", cpu_run, "heart", LIMIT="5").returncode == 1
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["dry"] is True and summary["date"] and summary["device"]
    assert summary["parts"]["again"]["result"].startswith("FAILED")
    assert summary["parts"]["heart"]["result"] == "not begun, time was up"
    assert summary["parts"]["cpu"]["figures"] == {"exact": 0.5, "n": 10}
    text = (tmp_path / "out" / "summary.md").read_text()
    assert "dry: tiny sizes, proves nothing" in text and "| again | FAILED" in text
