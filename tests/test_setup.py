"""What sets up and starts the project: one list of versions, arguments refused before anything is installed."""

import os
import shutil
import subprocess
import tomllib

import pytest
import yaml

from stkvlm_lib import __main__ as cli
from stkvlm_lib.config import PROFILES, ROOT, STEPS

SCRIPT = ROOT / "run_all.sh"


def run_all(*arguments, cwd, path=None):
    """Call the script with a HOME and a folder of its own, so that an installation by mistake is seen and harmless."""
    copy = cwd / "copy"
    copy.mkdir(exist_ok=True)
    for name in ("run_all.sh", "pyproject.toml", "environment.yml"):
        shutil.copy(ROOT / name, copy)
    if not (copy / "stkvlm_lib").exists():
        shutil.copytree(ROOT / "stkvlm_lib", copy / "stkvlm_lib", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"PATH": path} if path else {}
    done = subprocess.run(
        [copy / "run_all.sh", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )
    assert not (copy / ".venv").exists(), "nothing may be installed for this"
    return done


def test_environment_yml_pins_what_pyproject_pins():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
    assert pip == [f"{name}=={version}" for name, version in cli.pins().items()]
    assert pip[0].startswith("torch=="), "pip must see torch first"


def test_the_python_of_environment_yml_is_one_that_pyproject_allows():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "python=3.11" in environment["dependencies"]
    assert project["requires-python"] == ">=3.11"


def test_a_local_build_satisfies_a_pin_and_another_version_does_not(monkeypatch):
    installed = {"torch": "2.13.0+cpu", "numpy": "2.4.5"}

    def distribution(name):
        if name not in installed:
            raise cli.PackageNotFoundError(name)
        return type("Distribution", (), {"version": installed[name]})

    monkeypatch.setattr(cli, "distribution", distribution)
    assert cli.unmet({"torch": "2.13.0", "numpy": "2.4.6", "peft": "0.21.2"}) == {"numpy": "2.4.6", "peft": "0.21.2"}


def test_help_names_every_profile_and_installs_nothing(tmp_path):
    for words in (["--help"], ["-h"], ["ask", "--help"], ["compare", "-h"], ["push", "--help"]):
        done = run_all(*words, cwd=tmp_path)
        assert done.returncode == 0
        assert all(f"\n  {profile} " in done.stdout for profile in PROFILES)
        assert all(step in done.stdout for step in STEPS)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["fast"], ["fast", *PROFILES]),
        (["smoke", "-p", "LERNING_RATE", "1"], ["LERNING_RATE", "LEARNING_RATE", "QA_FILE"]),
        (["-p", "EPOCHS", "many"], ["EPOCHS", "many"]),
        (["-p", "EPOCHS"], ["EPOCHS", "VALUE"]),
        (["-p", "RUN_DIR", "x"], ["RUN_DIR", "--run-id"]),
        (["--from", "09", "--run-id", "x"], ["09", *STEPS]),
        (["--from", "03"], ["--from", "--run-id"]),
        (["--from", "03", "--run-id", "absent"], ["absent"]),
        (["--run-id", "../x"], ["../x"]),
        (["--frm", "03"], ["--frm", "--help"]),
        (["report", "absent"], ["absent"]),
        (["compare"], ["two or more runs", "--help"]),
        (["compare", "one"], ["no run one", "--help"]),
        (["compare", "absent", "absent"], ["absent"]),
        (["push", "absent", "owner/name"], ["absent"]),
        (["push", "tests"], ["OWNER/NAME", "--help"]),
        (["ask", "picture.jpg"], ["IMAGE", "--help"]),
        (["ask", "absent.jpg", "Which track is this?"], ["absent.jpg"]),
    ],
)
def test_a_wrong_argument_is_one_line_and_status_2_before_any_installation(tmp_path, arguments, named):
    done = run_all(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert all(word in done.stderr for word in named)


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


def test_ask_without_an_adapter_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "OUTPUTS", tmp_path)
    assert cli.main(["ask", "picture.jpg", "Which track is this?"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "./run_all.sh" in message
