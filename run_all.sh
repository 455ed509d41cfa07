#!/usr/bin/env bash
# Sets up what is missing, then runs the notebooks, the tests, or one of the library's commands.
set -euo pipefail

ROOT="$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
VENV="$ROOT/.venv"
ENV_NAME=stkvlm
UNFINISHED="$VENV/installing" # there while packages are being installed, so that an interrupted installation is seen

show_help() {
    cat <<'EOF'
Fine-tune a small vision-language model on questions about SuperTuxKart frames, and show how well it answers.

  ./run_all.sh [PROFILE] [-p NAME VALUE ...] [--from STEP] [--run-id ID]    run the notebooks
  ./run_all.sh batch FILE|PROFILE [-p NAME VALUE,VALUE ...] [--seeds N ...]   many settings and seeds, one page
  ./run_all.sh test [PYTEST ARGUMENTS]                                      run the tests
  ./run_all.sh ask IMAGE "QUESTION" [--adapter DIR]                         answer a question about a picture
  ./run_all.sh explore [RUN]                                                look at a run in the browser
  ./run_all.sh report [RUN]                                                 write the report of a run again
  ./run_all.sh compare RUN RUN [RUN ...]                                    two runs on the questions that both answered,
                                                                            more of them (or a batch) as a table
  ./run_all.sh push ADAPTER_DIR OWNER/NAME [--private]                      upload an adapter with its card to the hub
  ./run_all.sh render OUT [--images N] [--seed N] [--recipe FILE]           render frames from the game (assets: once before)
  ./run_all.sh fetch [ZIP OR URL]                                           download and unpack the course's data
  ./run_all.sh card DIR                                                     write the card of a data folder
  ./run_all.sh --help

PROFILE
  smoke   about 4 minutes: little data, one epoch; what the tests use
  cpu     the default without a GPU: embedded base, bundled frames, about 24 minutes on 2 slow cores
  gpu     the default with a CUDA device: SmolVLM-256M-Instruct, all frames that are there

  -p NAME VALUE   set a parameter in every notebook that has it, e.g. -p EPOCHS 4 -p SEED 1;
                  the first code cell of each notebook lists them; relative paths count from this folder
  --run-id ID     the run's name, a folder in outputs/; given again, the run goes on at the first step not done
  --from STEP     do 01, 02, 03 or 04 and what follows it again; needs --run-id
  --to STEP       stop after 01, 02 or 03
  FILE            a batch: profile, parameters, grid, settings, seeds; ready ones are in benchmarks/batches/. With flags,
                  values with commas are crossed: batch smoke -p LORA_RANK 8,16 --seeds 0 1 --name rank. One run at a
                  time, or one a GPU (--gpus 0,1, --at-once N, --cluster ADDRESS); the same command goes on
  --adapter DIR   the adapter that answers, instead of that of the newest run (outputs/latest/adapter)
  RUN             a name in outputs/ or a folder, instead of the newest run; the page is served on this machine alone, at
                  an address with a token that is printed; --port N and --frames DIR change where and of what,
                  --picture FILE and --question TEXT where it opens

The first call installs what is needed (into the conda environment `stkvlm` where conda or mamba is present and no other
environment is active, otherwise into .venv); an active environment that has everything is used as it is.
Exit status: 0 done, 1 a step, a test or the system failed, 2 a wrong argument, 130 interrupted, 143 ended by SIGTERM.
EOF
}

wrong_usage() {
    echo "error: $*; ./run_all.sh --help shows what there is" >&2
    exit 2
}

fail() {
    echo "error: $*" >&2
    exit 1
}

check_run() { [ -d "$1" ] || [ -d "$ROOT/outputs/$1" ] || wrong_usage "there is no run $1"; }

# stkvlm PYTHON ARGUMENTS...: the command line of the library; -P keeps a stkvlm_lib in the caller's folder out
stkvlm() {
    local python="$1"
    shift
    PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" "$python" -P -m stkvlm_lib "$@"
}

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# Prints a Python of at least 3.11, best the version that everything is tested with.
find_python() {
    local name
    for name in python3.11 python3 python python3.12 python3.13 python3.14; do
        if command -v "$name" >/dev/null && is_recent "$name"; then
            "$name" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    return 1
}

has_all() { [ -x "$1" ] && is_recent "$1" && stkvlm "$1" pins --unmet $EXTRA >/dev/null 2>&1; }

# torch first: pip then picks the build for this machine, and the others accept it.
install_into() {
    local python="$1" pins=()
    while IFS= read -r pin; do pins+=("$pin"); done < <(stkvlm "$python" pins --test)
    echo "installing packages for $python (the first time this takes minutes)" >&2
    "$python" -m pip install --disable-pip-version-check "${pins[0]}" >&2 &&
        "$python" -m pip install --disable-pip-version-check "${pins[@]}" >&2
}

no_other_environment_active() {
    [ -z "${VIRTUAL_ENV:-}" ] && { [ -z "${CONDA_DEFAULT_ENV:-}" ] || [ "$CONDA_DEFAULT_ENV" = base ]; }
}

conda_python() { "$1" run -n "$ENV_NAME" python -c 'import sys; print(sys.executable)' 2>/dev/null; }

# Prints a conda that works.
find_conda() {
    local tool
    for tool in mamba conda "${CONDA_EXE:-}"; do
        if [ -n "$tool" ] && "$tool" --version >/dev/null 2>&1; then
            echo "$tool"
            return
        fi
    done
    return 1
}

use_conda() {
    local tool="$1" action=create
    if PYTHON="$(conda_python "$tool")"; then
        if has_all "$PYTHON"; then return; fi
        action=update
    fi
    echo "environment $ENV_NAME: $tool env $action from environment.yml" >&2
    "$tool" env "$action" -n "$ENV_NAME" -f "$ROOT/environment.yml" >&2 || true # what it leaves undone, pip completes
    PYTHON="$(conda_python "$tool")" || return 1
    has_all "$PYTHON" || { install_into "$PYTHON" && has_all "$PYTHON"; }
}

use_venv() {
    PYTHON="$VENV/bin/python"
    if [ ! -e "$UNFINISHED" ] && has_all "$PYTHON"; then return; fi
    if [ -e "$UNFINISHED" ] || ! "$PYTHON" -m pip --version >/dev/null 2>&1 || ! is_recent "$PYTHON"; then
        local base
        base="$(find_python)" || fail "$NO_PYTHON"
        "$base" -c 'import ensurepip, venv' 2>/dev/null ||
            fail "$base cannot make environments; install its venv module (on Debian and Ubuntu: apt install python3-venv)"
        mkdir -p "$VENV" && touch "$UNFINISHED"
        find "$VENV" -mindepth 1 -maxdepth 1 ! -name "$(basename "$UNFINISHED")" -exec rm -rf {} +
        "$base" -m venv "$VENV" >&2 || fail "no environment could be made in $VENV; its message is above"
    fi
    touch "$UNFINISHED"
    install_into "$PYTHON" || fail "pip could not install the packages (its messages are above); call again to retry"
    has_all "$PYTHON" || fail "packages differ from pyproject.toml after the installation; remove $VENV and call again"
    rm -f "$UNFINISHED"
}

# Sets PYTHON to an interpreter that has every pinned package, which it installs where needed.
set_up() {
    local candidate tool
    for candidate in python3 python; do
        candidate="$(command -v "$candidate")" || continue
        case "$candidate" in "$VENV"/*) continue ;; esac # looked at next, as it may be half installed
        if has_all "$candidate"; then
            PYTHON="$("$candidate" -c 'import sys; print(sys.executable)')"
            return
        fi
    done
    PYTHON="$VENV/bin/python"
    if [ ! -e "$UNFINISHED" ] && has_all "$PYTHON"; then return; fi

    if command -v flock >/dev/null; then # two calls at once must not install into the same folder
        exec 9<"$ROOT"
        flock -n 9 || { echo "waiting for another installation to end" >&2 && flock 9; }
    fi
    if no_other_environment_active && tool="$(find_conda)"; then
        use_conda "$tool" || {
            echo "$tool could not complete the environment (to start afresh: $tool env remove -n $ENV_NAME); using .venv" >&2
            use_venv
        }
    else
        use_venv
    fi
    exec 9<&-
}

# Notebooks opened by hand find stkvlm_lib through a line in the environment, whatever folder they are started in.
link_library() {
    "$PYTHON" - "$ROOT" <<'EOF'
import pathlib, sys, sysconfig
link = pathlib.Path(sysconfig.get_path("purelib"), "stkvlm.pth")
try:
    if not link.exists() or link.read_text() != sys.argv[1] + "\n":
        link.write_text(sys.argv[1] + "\n")
except OSError:
    pass
EOF
}

NO_PYTHON="no Python of at least 3.11 was found; install one (on Debian and Ubuntu: apt install python3.11 python3.11-venv) or conda"
EXTRA=

help_if_asked() {
    case "${1:-}" in -h | --help) show_help && exit ;; esac
}

case "${1:-}" in
-h | --help | help)
    show_help
    exit
    ;;
test)
    COMMAND=test EXTRA=--test
    shift
    ;;
ask)
    COMMAND=ask
    shift
    help_if_asked "$@"
    [ $# -ge 2 ] || wrong_usage 'ask takes IMAGE "QUESTION" [--adapter DIR]'
    case "$1" in -*) ;; *) [ -f "$1" ] || wrong_usage "there is no picture $1" ;; esac
    ;;
batch | render | assets | fetch | card)
    COMMAND="$1"
    shift
    ;;
explore | report)
    COMMAND="$1"
    shift
    case "${1:--}" in -*) ;; *) check_run "$1" ;; esac
    ;;
compare)
    COMMAND=compare
    shift
    help_if_asked "$@"
    [ $# -ge 1 ] || wrong_usage "compare takes two or more runs, or a batch"
    for run in "$@"; do
        case "$run" in -*) break ;; *) check_run "$run" ;; esac
    done
    ;;
push)
    COMMAND=push
    shift
    help_if_asked "$@"
    [ $# -ge 2 ] || wrong_usage "push takes ADAPTER_DIR OWNER/NAME [--private]"
    case "$1" in -*) ;; *) [ -d "$1" ] || wrong_usage "there is no folder $1" ;; esac
    ;;
*)
    COMMAND=run
    for argument in "$@"; do
        help_if_asked "$argument"
    done
    # before anything is installed, where any Python is at hand
    if BARE="$(find_python)"; then stkvlm "$BARE" check "$@" || exit; fi
    ;;
esac

set_up
link_library
export PATH="${PYTHON%/*}:$PATH"
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
export TOKENIZERS_PARALLELISM="${TOKENIZERS_PARALLELISM:-false}" HF_HUB_DISABLE_TELEMETRY="${HF_HUB_DISABLE_TELEMETRY:-1}"
export JUPYTER_PREFER_ENV_PATH="${JUPYTER_PREFER_ENV_PATH:-1}" # the kernel python3 is that of this environment

if [ "$COMMAND" = test ]; then
    cd "$ROOT"
    status=0
    "$PYTHON" -m ruff check . || status=1
    "$PYTHON" -m pytest "$@" || status=$?
    exit "$status"
fi
exec "$PYTHON" -P -m stkvlm_lib "$COMMAND" "$@"
