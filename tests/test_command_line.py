"""The commands: what is meant by the words, what is refused and how they fail: in one line, never with a traceback."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stkvlm_lib import __main__ as cli
from stkvlm_lib import parameters, runs
from stkvlm_lib.commands import command_line, run, test
from stkvlm_lib.config import ROOT, ConfigError, ExploreConfig
from stkvlm_lib.files import write_json
from stkvlm_lib.installation import lead_to_this_library
from stkvlm_lib.parameters import read_parameters

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
    monkeypatch.setattr(runs, "OUTPUTS", tmp_path / "outputs")
    write_json(tmp_path / "outputs" / "a" / "metrics.json", {})
    return tmp_path / "outputs"


@pytest.mark.parametrize("port", ["99999", "-5", "0", "65536", "8866.5", "http", "", "1e3", "٣"])
def test_a_port_that_there_is_not_is_refused(capsys, port):
    assert "--port" in refused(capsys, "explore", "--port", port)


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        (("compare", "docs", "tests"), "--bootstrap", "0"),
        (("compare", "docs", "tests"), "--seed", "-1"),
        (("batch", "smoke"), "--at-once", "-3"),
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


def test_an_export_that_cannot_be_written_is_refused_before_anything_is_loaded(capsys, tmp_path, monkeypatch):
    adapter = ROOT / "models" / "course_adapter"
    (tmp_path / "file").touch()
    said = refused(capsys, "check", "export", adapter, tmp_path / "file" / "a" / "made", status=1)
    assert f"{tmp_path / 'file'}: Not a directory" in said
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as of a folder of somebody else's
    said = refused(capsys, "check", "export", adapter, tmp_path / "a" / "made", status=1)
    assert f"{tmp_path}: Permission denied; change its owner" in said
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


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

    monkeypatch.setattr(run, "run_pipeline", wait)
    before = signal.getsignal(number)
    assert cli.main(["run", "cpu"]) == 128 + number
    assert tidied and signal.getsignal(number) is before


def test_nohup_is_respected(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        monkeypatch.setattr(run, "run_pipeline", lambda request: os.kill(os.getpid(), signal.SIGHUP))
        assert cli.main(["run", "cpu"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("words", "profile"),
    [
        ([], None),
        (["cpu"], "cpu"),
        (["run", "cpu"], "cpu"),
        (["-p", "SEED", "1"], None),
        (["-p", "SEED", "1", "cpu"], "cpu"),
    ],
)
def test_the_notebooks_are_run_where_no_command_is_named(monkeypatch, words, profile):
    requests = []
    monkeypatch.setattr(run, "run_pipeline", requests.append)
    assert cli.main(words) == 0
    assert [request.profile for request in requests] == [profile]
    assert requests[0].parameters == ({"SEED": "1"} if "SEED" in words else {})


def test_a_check_says_of_every_command_whether_to_go_on_and_does_nothing(capsys, outputs, monkeypatch):
    for command in command_line.COMMANDS.values():
        monkeypatch.setattr(command, "call", lambda options: pytest.fail("called"))
    for words in ([], ["cpu"], ["test", "-m", "render"], ["report", "a"], ["explore", "a"], ["fetch"]):
        assert cli.main(["check", *words]) == command_line.GO_ON
    assert capsys.readouterr() == ("", "")
    for words in (["report", "b"], ["cpu", "-p", "SEED", "x"], ["compare", "a", "a"], ["none"]):
        refused(capsys, "check", *words)


def test_the_words_after_test_are_pytests_whatever_they_look_like(monkeypatch):
    called = []
    monkeypatch.setattr(test, "_status", lambda *words: called.append(words) or 0)
    for words in (
        ["-m", "render"],
        ["-q", "tests/test_files.py", "-k", "a or b"],
        ["--version"],
        [],
        ["--from", "--", "x"],
    ):
        assert cli.main(["test", *words]) == 0
        assert called[-2:] == [("ruff", "check", "."), ("pytest", *words)]


@pytest.mark.parametrize(("linted", "tested", "status"), [(0, 0, 0), (1, 0, 1), (0, 5, 5), (1, 2, 2)])
def test_the_status_of_test_tells_of_both_linter_and_tests(monkeypatch, linted, tested, status):
    monkeypatch.setattr(test, "_status", lambda module, *words: {"ruff": linted, "pytest": tested}[module])
    assert cli.main(["test"]) == status


def test_an_ended_test_run_is_ended_in_order(tmp_path):
    """SIGTERM to the command alone: pytest's own fixtures tidy up before it ends."""
    (tmp_path / "test_slow.py").write_text(
        "import pathlib, pytest, time\nhere = pathlib.Path(__file__).parent\n\n\n"
        "@pytest.fixture\ndef tidy():\n    yield\n    (here / 'tidied').touch()\n\n\n"
        "def test_slow(tidy):\n    (here / 'begun').touch()\n    time.sleep(60)\n"
    )
    words = [sys.executable, "-m", "stkvlm_lib", "test", "-p", "no:cacheprovider", str(tmp_path)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        for _ in range(600):
            if (tmp_path / "begun").exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        process.terminate()
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 143, said
    assert (tmp_path / "tidied").exists()


def test_every_command_is_a_module_with_what_is_asked_of_one():
    folder = Path(command_line.__file__).parent
    helpers = {"__init__", "arguments", "command_line", "endings"}
    listed = command_line.COMMANDS.values()
    assert {file.stem for file in folder.glob("*.py")} - helpers == set(command_line.COMMANDS)
    assert all(callable(command.add_arguments) and callable(command.call) and command.__doc__ for command in listed)


def test_processes_find_this_library_and_this_environment_first_and_once(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/other", str(ROOT)]))
    monkeypatch.setenv("PATH", "/usr/bin")
    for _ in range(2):
        lead_to_this_library()
    assert os.environ["PYTHONPATH"] == os.pathsep.join([str(ROOT), "/other"])
    assert os.environ["PATH"] == os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin"])


@pytest.fixture
def other_checkout(tmp_path):
    for name in ("pyproject.toml", "stkvlm_lib/config.py", "notebooks/01_explore_data.ipynb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_the_program_of_an_environment_does_not_serve_another_checkout(capsys, other_checkout, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["stkvlm", "check"])
    monkeypatch.chdir(other_checkout / "notebooks")
    assert command_line.script() == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(other_checkout) in said and str(ROOT) in said and "pip install -e" in said
    assert cli.main(["check"]) == command_line.GO_ON, (
        "run_all.sh is called by its path, which says whose library is meant"
    )


@pytest.mark.parametrize("folder", [ROOT, ROOT / "notebooks", Path("/")])
def test_it_serves_its_own_checkout_and_folders_of_none(folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["stkvlm", "check"])
    monkeypatch.chdir(folder)
    assert command_line.script() == command_line.GO_ON


def test_a_notebook_opened_in_another_checkout_is_told(other_checkout, monkeypatch):
    monkeypatch.chdir(other_checkout)
    with pytest.raises(ConfigError, match=f"{other_checkout}.*stkvlm_lib of this environment is that of {ROOT}"):
        read_parameters({"SEED": 0}, ExploreConfig)


def test_ask_without_an_adapter_says_what_to_do(capsys, outputs):
    assert "./run_all.sh" in refused(capsys, "ask", PICTURE, "Which track is this?")


def test_help_is_that_of_how_it_was_called(capsys, monkeypatch):
    for prog, call in (("./run_all.sh", cli.main), ("stkvlm", command_line.script)):
        monkeypatch.setattr(sys, "argv", [prog, "ask", "--help"])
        with pytest.raises(SystemExit):
            call()
        assert capsys.readouterr().out.startswith(f"usage: {prog} ask ")


def test_a_library_without_its_checkout_says_how_to_install_it(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["stkvlm", "cpu"])
    monkeypatch.setattr(parameters, "ROOT", tmp_path)
    assert command_line.script() == 2
    assert f"{tmp_path} is a copy" in (said := capsys.readouterr().err) and "pip install -e" in said


def test_a_python_without_packages_is_told_in_one_line():
    """-S leaves out the folder that packages are installed in."""
    words = [sys.executable, "-S", "-m", "stkvlm_lib", "ask", PICTURE, "Which?", "--adapter", "models/course_adapter"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "has no package" in done.stderr and "./run_all.sh" in done.stderr
