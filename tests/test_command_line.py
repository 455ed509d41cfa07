"""What the command line refuses and how it fails: one line that says what, where and what to do; never a traceback."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stkvlm_lib import __main__ as cli
from stkvlm_lib import runs
from stkvlm_lib.config import ROOT
from stkvlm_lib.files import write_json

PICTURE = str(ROOT / "frames" / "test" / "800000_00_im.jpg")


def refused(capsys, *words, status=2):
    """What is said of a command that must fail in one line."""
    try:
        found = cli.main(list(map(str, words)))
    except SystemExit as stopped:
        found = stopped.code
    said = capsys.readouterr().err
    assert found == status, said
    assert said.startswith("error: ") and said.count("\n") == 1 and "Traceback" not in said, said
    return said


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    """An outputs folder with one run that was scored."""
    monkeypatch.setattr(cli, "OUTPUTS", tmp_path / "outputs")
    monkeypatch.setattr(runs, "OUTPUTS", tmp_path / "outputs")
    write_json(tmp_path / "outputs" / "a" / "metrics.json", {})
    return tmp_path / "outputs"


@pytest.mark.parametrize("port", ["99999", "-5", "0", "65536", "8866.5", "http", "", "1e3", "٣"])
def test_a_port_that_there_is_not_is_refused(capsys, port):
    assert "--port" in refused(capsys, "explore", "--port", port)


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        (("compare", "a", "b"), "--bootstrap", "0"),
        (("compare", "a", "b"), "--seed", "-1"),
        (("render", "out"), "--images", "0"),
        (("render", "out"), "--seed", "-1"),
        (("render", "out"), "--workers", "-3"),
        (("render", "out"), "--images", "9" * 5000),
    ],
)
def test_numbers_out_of_their_range_are_refused(capsys, command, option, value):
    assert option in refused(capsys, *command, option, value)


@pytest.mark.parametrize("run_id", ["x" * 300, "../x", ""])
def test_a_run_id_that_is_no_name_is_refused(capsys, run_id):
    assert "--run-id" in refused(capsys, "run", "cpu", "--run-id", run_id)


def test_values_longer_than_a_path_may_be_are_refused(capsys):
    for name in ("QA_FILE", "FRAMES_DIR", "START_ADAPTER"):
        with_value = ["check", "cpu", "-p", name, "x" * 5000]
        assert cli.main(with_value) in (1, 2)
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1 and len(said) < 6000


def test_a_report_that_cannot_be_written_says_where_and_why(capsys, outputs, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    said = refused(capsys, "report", "a", status=1)
    assert f"{outputs / 'a'}: writing report.md: No space left on device; make room" in said


def test_outputs_that_cannot_be_written_are_named(capsys, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(runs, "OUTPUTS", tmp_path / "file" / "outputs")
    assert f"{tmp_path / 'file'}" in refused(capsys, "run", "cpu", "--run-id", "a", status=1)
    monkeypatch.setattr(runs, "OUTPUTS", Path("/proc/nothing/outputs"))  # where the superuser cannot write either
    assert "/proc/nothing" in refused(capsys, "run", "cpu", "--run-id", "a")


def test_fetching_into_a_file_is_refused(capsys, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "data.zip").write_bytes(b"PK\5\6" + bytes(18))
    said = refused_in_any_way(capsys, "fetch", tmp_path / "data.zip", "--to", tmp_path / "file")
    assert str(tmp_path) in said


def refused_in_any_way(capsys, *words):
    assert cli.main(list(map(str, words))) in (1, 2)
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "Traceback" not in said
    return said


@pytest.mark.parametrize("file", ["adapter_config.json", "stkvlm.json", "adapter_model.safetensors"])
def test_asking_a_broken_adapter_names_its_file(capsys, tmp_path, file):
    adapter = shutil.copytree(ROOT / "models" / "course_adapter", tmp_path / "adapter")
    (adapter / file).write_text("[]")
    assert file in refused(capsys, "ask", PICTURE, "What track is this?", "--adapter", adapter)


def test_a_reader_that_leaves_is_no_error():
    command = f"{sys.executable} -m stkvlm_lib pins --test | head -n 0"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_ends_in_order_and_is_told_by_the_status(monkeypatch, number):
    tidied = []

    def wait(request):
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            tidied.append(True)

    monkeypatch.setattr(cli, "run_pipeline", wait)
    before = signal.getsignal(number)
    assert cli.main(["run", "cpu"]) == 128 + number
    assert tidied and signal.getsignal(number) is before


def test_nohup_is_respected(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        monkeypatch.setattr(cli, "run_pipeline", lambda request: os.kill(os.getpid(), signal.SIGHUP))
        assert cli.main(["run", "cpu"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
