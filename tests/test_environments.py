"""Which environment run_all.sh takes, completes or makes: on a copy of it, with stand-ins for Python, pip and conda."""

import fcntl
import os
import shutil
import subprocess
import sys

import pytest
from checkout import copy_checkout

from stkvlm_lib.installation import pins

PYTHON = """#!/usr/bin/env bash
# Without packages until pip has installed the project; `complete` then names the place it was installed in.
here="$(cd "$(dirname "$0")" && pwd)"
case "$*" in
*" pins --unmet"*" --library") [ "$(cat "$here/complete" 2>/dev/null)" = "$here" ] ;;
*" pins --unmet"*) [ -e "$here/complete" ] ;;
*"print(sys.executable)"*) echo "$0" ;;
*"import ensurepip"* | *"pip --version") ;;
"-m venv "*)
    echo "venv" >>LOG
    mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo "#!$3/bin/python" >"$3/bin/pip"
    ;;
"-m pip install "*)
    printf '%s\\n' "${*:5}" >>LOG
    case "$*" in *" -e .[test]") [ ! -e FAIL ] && pwd -P >"$here/from" && echo "$here" >"$here/complete" ;; esac
    ;;
*) exec REAL "$@" ;;
esac
"""
CONDA = """#!/usr/bin/env bash
case "$1 ${2:-}" in
"--version ") ;;
"run -n") [ -e ENV/bin/python ] && echo ENV/bin/python ;;
env*)
    echo "conda ${@:1:4}" >>LOG
    [ ! -e FAIL ] && mkdir -p ENV/bin && cp PYTHON3 ENV/bin/python && echo ENV/bin >ENV/bin/complete
    ;;
esac
"""
INSTALLED = [f"torch=={pins()['torch']}", "-e .[test]"]


class Machine:
    """A machine with a copy of the project and nothing else but Python 3.11, in a folder of its own."""

    def __init__(self, folder):
        self.folder, self.root, self.log = folder, copy_checkout(folder / "copy"), folder / "log"
        self.python = self.program("bin/python3.11", PYTHON)
        for name in ("python3", "python"):
            (folder / "bin" / name).symlink_to(self.python)

    def program(self, name, text):
        places = {"LOG": "log", "FAIL": "fail", "ENV": "conda", "PYTHON3": "bin/python3.11"}
        for word, place in places.items():
            text = text.replace(word, str(self.folder / place))
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("REAL", sys.executable))
        path.chmod(0o755)
        return path

    def environment(self, name):
        """Somebody's own, with all packages but another checkout's library -> its folder."""
        self.program(f"{name}/bin/python", PYTHON)
        (self.folder / name / "bin" / "complete").write_text("elsewhere")
        return self.folder / name

    def start(self, **variables):
        environment = {"PATH": f"{self.folder / 'bin'}:/usr/bin:/bin", "HOME": str(self.folder)} | variables
        command = [self.root / "run_all.sh", "pins"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=self.folder, env=environment, text=True, **pipes)

    def call(self, status=0, **variables):
        """What is said, and what was installed meanwhile, in order."""
        self.log.write_text("")
        process = self.start(**variables)
        shown, said = process.communicate(timeout=60)
        assert process.returncode == status, said
        assert ("torch==" in shown) == (status == 0)
        return said, self.log.read_text().splitlines()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_a_new_machine_gets_an_environment_with_torch_first_and_the_library_in_place_and_keeps_it(machine):
    assert machine.call()[1] == ["venv", *INSTALLED]
    assert (machine.root / ".venv/bin/from").read_text().strip() == str(machine.root.resolve())
    assert not (machine.root / ".venv/installing").exists()
    assert machine.call() == ("", [])


def test_an_interrupted_installation_begins_anew(machine):
    machine.call()
    (machine.root / ".venv/installing").touch()
    assert machine.call()[1] == ["venv", *INSTALLED]


def test_a_failed_installation_is_told_and_begins_anew(machine):
    (machine.folder / "fail").touch()
    said, _ = machine.call(status=1)
    assert "error: pip could not install" in said.splitlines()[-1]
    (machine.folder / "fail").unlink()
    assert machine.call()[1] == ["venv", *INSTALLED]


def test_an_environment_that_lacks_something_is_completed(machine):
    machine.call()
    (machine.root / ".venv/bin/complete").unlink()
    assert machine.call()[1] == INSTALLED


def test_one_without_the_librarys_place_is_completed(machine):
    machine.call()
    (machine.root / ".venv/bin/complete").write_text("elsewhere")
    assert machine.call()[1] == INSTALLED


def test_a_moved_checkout_gets_a_new_environment(machine):
    machine.call()
    machine.root = machine.root.rename(machine.folder / "moved")
    assert machine.call()[1] == ["venv", *INSTALLED]


def test_a_linked_environment_is_used_and_never_installed_into(machine):
    other = machine.environment("other")
    (machine.root / ".venv").symlink_to(other)
    assert machine.call() == ("", [])
    (other / "bin/complete").unlink()
    said, installed = machine.call(status=1)
    assert ".venv is a link" in said and said.count("\n") == 1 and installed == []


def test_an_active_environment_that_has_all_packages_is_used_as_it_is(machine):
    own = machine.environment("own")
    (own / "bin/python3").symlink_to(own / "bin/python")
    assert machine.call(PATH=f"{own}/bin:/usr/bin:/bin", VIRTUAL_ENV=str(own)) == ("", [])
    assert not (machine.root / ".venv").exists()


def test_conda_makes_an_environment_from_the_projects_file_and_is_asked_once(machine):
    machine.program("bin/conda", CONDA)
    assert machine.call()[1] == ["conda env create -n stkvlm"]
    assert machine.call() == ("", [])
    assert not (machine.root / ".venv").exists()


def test_an_incomplete_conda_environment_is_updated_and_then_completed_by_pip(machine):
    machine.program("bin/conda", CONDA.replace("echo ENV/bin >", "echo elsewhere >"))
    assert machine.call()[1] == ["conda env create -n stkvlm", *INSTALLED]
    (machine.folder / "conda/bin/complete").unlink()
    assert machine.call()[1] == ["conda env update -n stkvlm", *INSTALLED]


def test_without_a_working_conda_or_beside_an_active_environment_venv_serves(machine):
    machine.program("bin/conda", CONDA.replace("[ ! -e FAIL ]", "false"))
    said, installed = machine.call()
    assert "conda could not complete the environment" in said and ".venv" in said
    assert installed == ["conda env create -n stkvlm", "venv", *INSTALLED]
    shutil.rmtree(machine.root / ".venv")
    assert machine.call(CONDA_DEFAULT_ENV="mine")[1] == ["venv", *INSTALLED]


def test_the_library_that_runs_is_that_of_the_script_whatever_lies_around(machine):
    machine.call()
    pinned = machine.root / "pyproject.toml"
    pinned.write_text(pinned.read_text().replace(INSTALLED[0], "torch==9.9"))
    other = copy_checkout(machine.folder / "other")
    (machine.folder / "stkvlm_lib").mkdir()
    (machine.folder / "stkvlm_lib" / "__init__.py").write_text("raise SystemExit('the one of the caller')")
    shown, said = machine.start(PYTHONPATH=str(other)).communicate(timeout=60)
    assert shown.startswith("torch==9.9\n") and said == ""


def test_without_venv_its_package_is_named(machine):
    machine.program("bin/python3.11", PYTHON.replace('*"import ensurepip"* |', '*"import ensurepip"*) exit 1 ;;\n'))
    said, installed = machine.call(status=1)
    assert "apt install python3-venv" in said and said.count("\n") == 1 and installed == []


@pytest.mark.skipif(not shutil.which("flock"), reason="needs flock")
def test_a_second_installation_waits_for_the_first(machine):
    lock = os.open(machine.root, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    process = machine.start()
    assert process.stderr.readline() == "waiting for another installation to end\n"
    assert not (machine.root / ".venv").exists()
    os.close(lock)
    process.communicate(timeout=60)
    assert process.returncode == 0 and (machine.root / ".venv/bin/complete").exists()
