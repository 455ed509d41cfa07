"""What continuous integration calls, on a copy whose tests only say what they see."""

import os
import shutil
import subprocess

import pytest

from stkvlm_lib.config import ROOT

SEES = """#!/usr/bin/env bash
echo "$@: $(ls ~/.cache) $(ls /usr/share/games 2>/dev/null | wc -l) ${SUPERTUXKART_DATADIR:-}"
[[ ! -f failing || "$*:" != *"$(cat failing)"* ]]
"""


def call(folder, unshare, *arguments):
    """.ci/run with stand-ins for what it calls. unshare: the text of a program of that name, None for the real one."""
    programs = {"bin/apt-get": "#!/bin/sh\n", "run_all.sh": SEES} | ({"bin/unshare": unshare} if unshare else {})
    for name, text in programs.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", folder / ".ci")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "kept").touch()
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"HOME": str(folder), "PATH": path, "SUPERTUXKART_DATADIR": "/mine"}
    done = subprocess.run([folder / ".ci" / "run", *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def may_hide() -> bool:
    return os.getuid() == 0 and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not may_hide(), reason="hiding folders needs root and unshare")
def test_tests_run_without_the_data_and_caches_of_the_machine_and_render_ones_with_them(tmp_path):
    (_, render, all_tests), _ = call(tmp_path, None)
    assert render.startswith("test -m render: kept ") and render.endswith(" /mine")
    assert all_tests == "test:  0 "


def test_where_nothing_can_be_hidden_a_line_says_so(tmp_path):
    (_, seen), said = call(tmp_path, "#!/bin/sh\nexit 1\n", "tests/test_files.py")
    assert seen.startswith("test tests/test_files.py: kept ") and "cannot be hidden here" in said
    assert "/mine" not in seen


@pytest.mark.parametrize("fails", ["--version", "-m render", "test:"])
def test_whatever_fails_fails_all(tmp_path, fails):
    (tmp_path / "failing").write_text(fails)
    with pytest.raises(AssertionError):
        call(tmp_path, None)
