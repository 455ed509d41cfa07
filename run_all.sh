#!/usr/bin/env bash
# Finds or makes an environment that has what pyproject.toml asks for, and hands over to the command line in
# stkvlm_lib/commands, which knows every command, checks their arguments and has the help.
set -euo pipefail

ROOT="$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
VENV="$ROOT/.venv"
ENV_NAME=stkvlm
UNFINISHED="$VENV/installing" # there while packages are being installed, so that an interrupted installation is seen
GO_ON=10                      # the status of `check` where all is well; after --help it is 0
PACKAGES=                     # what is needed besides: --test for the tests

fail() { echo "error: $*" >&2; exit 1; }

# stkvlm PYTHON ARGUMENTS...: this checkout's command line, whatever lies in the caller's folder (-P) or is installed
stkvlm() { PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" "$1" -P -m stkvlm_lib "${@:2}"; }

# Prints the path of a Python where it is of at least 3.11.
recent() { "$1" -c 'import sys; print(sys.executable); sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# Prints a Python of at least 3.11, best the version that everything is tested with.
find_python() {
    local name found
    for name in python3.11 python3 python python3.12 python3.13 python3.14; do
        if found="$(recent "$name")"; then echo "$found" && return; fi
    done
    return 1
}

# has_all PYTHON [--library]: whether it has the pinned packages, and this checkout's library as pip install -e leaves it
has_all() { stkvlm "$1" pins --unmet $PACKAGES ${2:-} >/dev/null 2>&1; }

# torch first: pip then picks the build for this machine, and the others accept it.
install_into() {
    local python="$1" torch
    read -r torch < <(stkvlm "$python" pins)
    echo "installing packages for $python (the first time this takes minutes)" >&2
    "$python" -m pip install --disable-pip-version-check "$torch" >&2 &&
        (cd "$ROOT" && "$python" -m pip install --disable-pip-version-check -e ".[test]" >&2)
}

# Prints a conda that works.
find_conda() {
    local tool
    for tool in mamba conda "${CONDA_EXE:-}"; do
        if [ -n "$tool" ] && "$tool" --version >/dev/null 2>&1; then echo "$tool" && return; fi
    done
    return 1
}

conda_python() { "$1" run -n "$ENV_NAME" python -c 'import sys; print(sys.executable)' 2>/dev/null; }

use_conda() {
    local tool="$1" action=create
    if PYTHON="$(conda_python "$tool")"; then
        if has_all "$PYTHON" --library; then return; fi
        action=update
    fi
    echo "environment $ENV_NAME: $tool env $action from environment.yml" >&2
    "$tool" env "$action" -n "$ENV_NAME" -f "$ROOT/environment.yml" >&2 || true # what it leaves undone, pip completes
    PYTHON="$(conda_python "$tool")" || return 1
    has_all "$PYTHON" --library || { install_into "$PYTHON" && has_all "$PYTHON" --library; }
}

# A .venv that is a link is somebody else's: used where it has the packages, and never installed into.
venv_is_ready() { [ ! -e "$UNFINISHED" ] && if [ -L "$VENV" ]; then has_all "$PYTHON"; else has_all "$PYTHON" --library; fi; }

# Whether pip can complete what lies in .venv. One that was moved or copied cannot be: its programs call the old place's.
venv_can_be_completed() {
    [ ! -e "$UNFINISHED" ] && recent "$PYTHON" >/dev/null && "$PYTHON" -m pip --version >/dev/null 2>&1 &&
        grep -qF "$PYTHON" "$VENV/bin/pip"
}

make_venv() {
    local base
    base="$(find_python)" ||
        fail "no Python of at least 3.11 was found; install one (on Debian and Ubuntu: apt install python3.11 python3.11-venv) or conda"
    "$base" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$base cannot make environments; install its venv module (on Debian and Ubuntu: apt install python3-venv)"
    mkdir -p "$VENV" && touch "$UNFINISHED"
    find "$VENV" -mindepth 1 -maxdepth 1 ! -name "$(basename "$UNFINISHED")" -exec rm -rf {} +
    "$base" -m venv "$VENV" >&2 || fail "no environment could be made in $VENV; its message is above"
}

use_venv() {
    PYTHON="$VENV/bin/python"
    if venv_is_ready; then return; fi
    [ ! -L "$VENV" ] || fail "$VENV is a link to an environment that lacks packages of pyproject.toml; add them there, or remove the link"
    venv_can_be_completed || make_venv
    touch "$UNFINISHED"
    install_into "$PYTHON" || fail "pip could not install the packages (its messages are above); call again to retry"
    has_all "$PYTHON" --library || fail "packages differ from pyproject.toml after the installation; remove $VENV and call again"
    rm -f "$UNFINISHED"
}

# Sets PYTHON to an interpreter that has every pinned package, which it installs where needed.
set_up() {
    local name tool
    for name in python3 python; do
        case "$(command -v "$name")" in "$VENV"/*) continue ;; esac # looked at next, as it may be half installed
        if has_all "$name"; then PYTHON="$(recent "$name")" && return; fi
    done
    PYTHON="$VENV/bin/python"
    if venv_is_ready; then return; fi

    if command -v flock >/dev/null; then # two calls at once must not install into the same folder
        exec 9<"$ROOT"
        flock -n 9 || { echo "waiting for another installation to end" >&2 && flock 9; }
    fi
    if [ -n "${VIRTUAL_ENV:-}" ] || [ "${CONDA_DEFAULT_ENV:-base}" != base ] || ! tool="$(find_conda)"; then
        use_venv
    elif ! use_conda "$tool"; then
        echo "$tool could not complete the environment (to start afresh: $tool env remove -n $ENV_NAME); using .venv" >&2
        use_venv
    fi
    exec 9<&-
}

# --help and wrong arguments end here, before anything is installed, where any Python is at hand.
if bare="$(find_python)"; then
    status=0
    stkvlm "$bare" check "$@" || status=$?
    [ "$status" = "$GO_ON" ] || exit "$status"
fi
[ "${1:-}" != test ] || PACKAGES=--test
set_up
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
exec "$PYTHON" -P -m stkvlm_lib "$@"
