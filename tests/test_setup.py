"""What sets up and starts the project: one list of versions, arguments refused before anything is installed."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml
from checkout import copy_checkout

from stkvlm_lib import installation
from stkvlm_lib.commands import command_line
from stkvlm_lib.config import PROFILES, ROOT, STEPS
from stkvlm_lib.preflight import EXPECTED_TIME

SCRIPT = ROOT / "run_all.sh"


def run_all(*arguments, cwd, path=None):
    """Call the script with a HOME and a folder of its own, so that an installation by mistake is seen and harmless."""
    copy = cwd / "copy" if (cwd / "copy").exists() else copy_checkout(cwd / "copy")
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"PATH": path} if path else {}
    done = subprocess.run(
        [copy / "run_all.sh", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )
    assert not (copy / ".venv").exists(), "nothing may be installed for this"
    return done


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_environment_yml_installs_the_project_itself_and_names_no_version_but_pythons():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert dependencies == ["python=3.11", "pip", {"pip": ["-e .[test]"]}]
    assert project()["requires-python"] == ">=3.11"


def test_every_version_is_pinned_once_and_torch_comes_first():
    lines = [*project()["dependencies"], *itertools.chain(*project()["optional-dependencies"].values())]
    names = [line.partition("==")[0] for line in lines]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines if line != "stkvlm[cluster]")
    assert names[0] == next(iter(installation.pins())) == "torch"


def test_the_tests_need_what_the_library_needs_and_their_own_and_what_other_extras_bring():
    plain, tested = installation.pins(), installation.pins("test")
    assert plain.items() < tested.items()
    assert {"pytest", "ruff", "distributed"} <= set(tested) - set(plain)
    assert len(plain) == len(project()["dependencies"])


def test_a_local_build_satisfies_a_pin_and_another_version_does_not(monkeypatch):
    installed = {"torch": "2.13.0+cpu", "numpy": "2.4.5"}

    def distribution(name):
        if name not in installed:
            raise installation.PackageNotFoundError(name)
        return type("Distribution", (), {"version": installed[name]})

    monkeypatch.setattr(installation, "distribution", distribution)
    wanted = {"torch": "2.13.0", "numpy": "2.4.6", "peft": "0.21.2"}
    assert installation.unmet(wanted) == {"numpy": "2.4.6", "peft": "0.21.2"}


@pytest.mark.parametrize(
    ("origin", "linked"),
    [
        ({"url": ROOT.as_uri(), "dir_info": {"editable": True}}, True),
        ({"url": f"{ROOT.as_uri()}-copy", "dir_info": {"editable": True}}, False),
        ({"url": ROOT.as_uri(), "dir_info": {}}, False),
        ({"url": "https://example.org/stkvlm.whl", "archive_info": {}}, False),
        (None, False),
    ],
)
def test_a_library_counts_as_installed_where_it_is_this_checkouts_and_editable(tmp_path, monkeypatch, origin, linked):
    folder = tmp_path / "stkvlm-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: stkvlm\nVersion: 0.1.0\n")
    if origin:
        (folder / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.setattr(installation.sysconfig, "get_path", lambda name: str(tmp_path))
    assert installation.is_linked() is linked


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_names_every_command_profile_and_duration_and_installs_nothing(tmp_path, word):
    done = run_all(word, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert all(f"\n  {name:<9} " in done.stdout for name in command_line.LISTED)
    assert all(f"\n  {profile:<9} {EXPECTED_TIME[profile]}: " in done.stdout for profile in PROFILES)
    assert "./run_all.sh [PROFILE]" in done.stdout and "130 interrupted" in done.stdout


def test_every_command_has_a_help_of_its_own_that_installs_nothing(tmp_path, capsys):
    for name, command in command_line.COMMANDS.items():
        with pytest.raises(SystemExit, match="0"):
            command_line.parse([name, "--help"])
        assert command.__doc__.splitlines()[0] in capsys.readouterr().out
    shown = run_all("explore", "--help", cwd=tmp_path)
    assert shown.returncode == 0 and command_line.COMMANDS["explore"].__doc__.splitlines()[0] in shown.stdout
    asked = run_all("cpu", "-p", "SEED", "1", "-h", cwd=tmp_path)
    assert asked.returncode == 0 and all(step in asked.stdout for step in STEPS)


WRONG = [
    (["fast"], ["fast", *PROFILES]),
    (["smoke", "-p", "LERNING_RATE", "1"], ["LERNING_RATE", "LEARNING_RATE", "first code cell"]),
    (["-p", "EPOCHS", "many"], ["EPOCHS", "many"]),
    (["-p", "EPOCHS"], ["EPOCHS", "VALUE"]),
    (["-p", "RUN_DIR", "x"], ["RUN_DIR", "--run-id"]),
    (["--from", "09", "--run-id", "x"], ["09", *STEPS]),
    (["--from", "03"], ["--from", "--run-id"]),
    (["--from", "03", "--run-id", "absent"], ["absent"]),
    (["--run-id", "../x"], ["../x"]),
    (["--frm", "03"], ["--frm", "--help"]),
    (["report", "absent"], ["absent"]),
    (["tset"], ["tset", "test", "ask", "did you mean"]),
    (["repot"], ["repot", "did you mean report or"]),
    (["smoek"], ["smoek", "did you mean smoke?"]),
    (["compare"], ["RUN", "compare --help"]),
    (["compare", "one"], ["one: no such run"]),
    (["compare", "absent", "absent"], ["absent"]),
    (["push", "absent", "owner/name"], ["absent"]),
    (["push", str(ROOT / "tests")], ["OWNER/NAME", "--help"]),
    (["ask", "picture.jpg"], ["QUESTION", "ask --help"]),
    (["explore", "absent"], ["absent"]),
    (["explore", "--port", "http"], ["--port", "http"]),
    (["card", "absent"], ["absent"]),
    (["render", "x", "--images", "0"], ["--images"]),
    (["render", "x", "--seed", "1", "--recipe", "y"], ["--seed", "leave out"]),
    (["ask", "absent.jpg", "Which track is this?"], ["absent.jpg"]),
    (["export", "absent", "new"], ["absent: no such run"]),
    (["export", str(ROOT / "tests"), "new"], ["tests: no adapter there"]),
    (["export", str(ROOT / "models" / "course_adapter"), str(ROOT / "tests")], ["tests: is there already"]),
]
"""Words -> what is said of them."""
CHECK = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from stkvlm_lib.commands.command_line import main
told = []
for words in json.loads(sys.argv[1]):
    with redirect_stdout(io.StringIO()) as shown, redirect_stderr(io.StringIO()) as said:
        try:
            status = main(["check", *words])
        except SystemExit as stopped:
            status = stopped.code
    told.append((status, shown.getvalue(), said.getvalue()))
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What is told of all of them by a Python without packages, as before any installation (-S leaves them out)."""
    words = [sys.executable, "-S", "-c", CHECK, json.dumps([words for words, _ in WRONG])]
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    done = subprocess.run(words, cwd=tmp_path_factory.mktemp("here"), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("n", range(len(WRONG)), ids=[" ".join(words) for words, _ in WRONG])
def test_a_wrong_argument_is_one_line_and_status_2_before_any_installation(told, n):
    status, shown, said = told[n]
    assert (status, shown) == (2, "") and said.count("\n") == 1
    assert all(word in said for word in WRONG[n][1])


def test_what_cannot_be_checked_without_packages_is_left_to_the_check_with_them():
    words = [sys.executable, "-S", "-m", "stkvlm_lib", "check", "cpu", "-p", "START_ADAPTER", "models/course_adapter"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (command_line.GO_ON, "", "")


def test_the_script_hands_on_what_the_check_says_and_installs_nothing(tmp_path):
    done = run_all("fast", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1 and "fast" in done.stderr


def test_without_a_recent_python_the_remedy_is_named(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "env", "cat", "flock"):
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    old = tools / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = run_all("cpu", cwd=tmp_path, path=str(tools))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "3.11" in done.stderr
    assert "apt install" in done.stderr
