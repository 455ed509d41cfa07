"""Image tokens on disk: found by key, whole or not at all, shared by processes, in memory only as keys and places."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from stkvlm_lib.config import ROOT
from stkvlm_lib.vlm import feature_files
from stkvlm_lib.vlm.feature_files import KEY_BYTES, FeatureFiles


def keys(*numbers):
    return np.array([number.to_bytes(KEY_BYTES, "big") for number in numbers], f"S{KEY_BYTES}")


def tokens(*numbers, dtype=torch.float32):
    return torch.stack([torch.full((2, 3), float(number), dtype=dtype) for number in numbers])


def filled(folder, *numbers, **kind):
    files = FeatureFiles(folder)
    files.add(keys(*numbers), tokens(*numbers, **kind))
    files.flush()
    return files


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_was_added_is_read_again_by_its_key(tmp_path, dtype):
    filled(tmp_path, 256, 0, 3, dtype=dtype)  # keys that end in zeros
    files = FeatureFiles(tmp_path)
    places = files.find(keys(3, 7, 256, 0))
    assert [place >= 0 for place in places] == [True, False, True, True]
    assert [files.read(place)[0, 0].item() for place in places[[0, 2, 3]]] == [3, 256, 0]
    assert files.read(places[0]).dtype == dtype and files.count() == 3


def test_nothing_is_found_in_a_folder_that_is_not_there(tmp_path):
    assert FeatureFiles(tmp_path / "none").find(keys(1, 2)).tolist() == [-1, -1]


def test_files_are_written_by_size_and_by_time_and_none_is_changed(tmp_path, monkeypatch):
    files = FeatureFiles(tmp_path)
    monkeypatch.setattr(feature_files, "FILE_BYTES", 2 * tokens(0)[0].nbytes)
    files.add(keys(1), tokens(1))
    assert not list(tmp_path.iterdir())
    files.add(keys(2), tokens(2))
    (first,) = tmp_path.iterdir()
    before = first.read_bytes()
    monkeypatch.setattr(feature_files, "FILE_SECONDS", 0.0)
    files.add(keys(3), tokens(3))
    assert len(list(tmp_path.iterdir())) == 2 and first.read_bytes() == before


def test_two_processes_fill_one_folder_at_once(tmp_path):
    """Half of what they write is the same."""
    script = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from test_feature_files import *\n"
        "from pathlib import Path\n"
        "feature_files.FILE_SECONDS = 0.0\n"
        "files, first = FeatureFiles(Path(sys.argv[1])), int(sys.argv[2])\n"
        "for number in range(first, first + 40): files.add(keys(number), tokens(number))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path), first], cwd=ROOT, env=environment)
        for first in ("0", "20")
    ]
    assert [process.wait(120) for process in both] == [0, 0]
    files = FeatureFiles(tmp_path)
    assert files.count() == 60 and len(list(tmp_path.iterdir())) == 80
    assert [files.read(place)[0, 0].item() for place in files.find(keys(*range(60)))] == list(range(60))


@pytest.mark.parametrize("keep", [4, 60, -3])
def test_a_file_that_is_cut_is_named_with_what_to_do(tmp_path, keep):
    filled(tmp_path, 1, 2)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=f"{path.name}: no image tokens .*; remove the folder"):
        FeatureFiles(tmp_path)


def test_what_a_killed_process_was_writing_counts_for_nothing(tmp_path):
    filled(tmp_path, 1)
    (tmp_path / ".2-1-0.safetensors.1.part").write_bytes(b"half")
    assert FeatureFiles(tmp_path).count() == 1


def test_a_full_disk_is_told_with_the_place(tmp_path):
    files = FeatureFiles(tmp_path / "file" / "below")
    (tmp_path / "file").write_text("in the way")
    files.add(keys(1), tokens(1))
    with pytest.raises(OSError, match="file"):
        files.flush()
