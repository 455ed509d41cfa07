#!/usr/bin/env bash
# What is to be shown whenever a GPU is at hand, in under 15 minutes and without internet, each part by itself:
#
#     benchmarks/gpu_proof.sh [--dry] [--out DIR] [--cpu-run DIR] [PART...]
#
# tests      pytest -m gpu
# run        the profile `cpu` on CUDA: the embedded base through notebooks 01 to 05
# again      its training and scoring a second time with the same seed, and how far the two differ
# base256    SmolVLM-256M's architecture, random weights: memory, questions a second, adapter, share of the matmul peak
# base500    the same of 500M
# heart      the loss on 64 pictures learnt by heart by the 256M
# straight   the straightforward loop beside ours on the embedded base
# straight256  the same on the 256M
# notebooks  01 to 06 through papermill in the profile `gpu`, with the 256M as its base
# batch      two settings x two seeds, and notebook 07 about them
#
# A part that fails or takes too long is noted and the next begins; parts not begun when time is up are said. Ctrl-C
# ends it with a summary of what is done. The same command again does what is not done yet, and with the names of parts
# those; results of another commit are not kept. Logs, summary.json and summary.md lie in DIR, by default
# outputs/gpu-proof (`results.py proof DIR` takes them into RESULTS.md); runs in outputs/ (`latest` then is one of them).
# The score must be within a point of a CPU's: that of benchmarks/results/cpu-seed0.json, or of the run folder given with
# --cpu-run. --dry: everything tiny, on whatever device there is, to see that this script is not broken.
# PYTHON names the interpreter (default .venv/bin/python, else python3), LIMIT the seconds in all (default 870).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROOT="$PWD"
PARTS=(tests run again base256 base500 heart straight straight256 notebooks batch)
DRY= CPU_RUN= OUT="$ROOT/outputs/gpu-proof" CHOSEN=() LIMIT="${LIMIT:-}"

wrong() {
    echo "error: $*" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case "$1" in
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" && exit ;;
    --dry) DRY=1 ;;
    --out | --cpu-run)
        [ $# -ge 2 ] || wrong "$1 takes a folder"
        if [ "$1" = --out ]; then OUT="$(realpath -m "$2")"; else CPU_RUN="$(realpath -m "$2")"; fi
        shift
        ;;
    -*) wrong "there is no option $1; --help shows what there is" ;;
    *) [[ " ${PARTS[*]} " == *" $1 "* ]] || wrong "there is no part $1; there are ${PARTS[*]}" && CHOSEN+=("$1") ;;
    esac
    shift
done
[ -n "$LIMIT" ] || LIMIT=$([ -n "$DRY" ] && echo 14400 || echo 870)
[ -z "$CPU_RUN" ] || [ -f "$CPU_RUN/metrics.json" ] || wrong "$CPU_RUN: no metrics.json there; name a run that was scored"

PYTHON="${PYTHON:-$ROOT/.venv/bin/python}"
[ -x "$PYTHON" ] || PYTHON="$(command -v python3)" || wrong "no Python; set PYTHON"
export PYTHONPATH="$ROOT" HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false
export JUPYTER_PREFER_ENV_PATH=1 PATH="$(dirname "$PYTHON"):$PATH"
[ -n "$DRY" ] || "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
    wrong "no CUDA device; --dry tries the script without one"
mkdir -p "$OUT" || exit 1
OF="$(git rev-parse HEAD 2>/dev/null) ${DRY:+dry}"
[ "$(cat "$OUT/of" 2>/dev/null || echo "$OF")" = "$OF" ] || rm -f "$OUT"/*.tsv
echo "$OF" >"$OUT/of"
if [ ${#CHOSEN[@]} -eq 0 ]; then
    for part in "${PARTS[@]}"; do cut -f 2 "$OUT/$part.tsv" 2>/dev/null | grep -qx done || CHOSEN+=("$part"); done
fi
NAME="gpu-proof-$(basename "$OUT")"
STARTED=$SECONDS
read -r LOAD _ </proc/loadavg

stkvlm() { "$PYTHON" -P -m stkvlm_lib "$@"; }
notebook() { "$PYTHON" -m papermill -k python3 --cwd . "notebooks/$1.ipynb" "$OUT/$1.ipynb" -p "${@:2}"; }

# frames_of DIR EVERY: every so manieth frame of each bundled split, with its pictures
frames_of() {
    "$PYTHON" - "$1" "$2" <<'EOF'
import shutil, sys
from pathlib import Path
target, every = Path(sys.argv[1]), int(sys.argv[2])
for split in ("train", "valid", "test"):
    (target / split).mkdir(parents=True, exist_ok=True)
    for info in sorted(Path("frames", split).glob("*_info.json"))[::every]:
        for file in info.parent.glob(info.name.removesuffix("_info.json") + "_*"):
            shutil.copy(file, target / split)
EOF
}

do_tests() { "$PYTHON" -m pytest -m gpu -q -p no:cacheprovider; }

do_run() {
    rm -rf "outputs/$NAME-a"
    local given=(cpu)
    [ -z "$DRY" ] || { frames_of "$OUT/frames" 60 && given=(smoke -p TRAIN_VIEWS 8 VALID_VIEWS 4 FRAMES_DIR "$OUT/frames"); }
    stkvlm run "${given[@]}" --run-id "$NAME-a" && cp "outputs/$NAME-a/metrics.json" "$OUT/run.json"
}

do_again() {
    [ -f "outputs/$NAME-a/metrics.json" ] || { echo "the part run is not done"; return 1; }
    rm -rf "outputs/$NAME-b"
    cp -r "outputs/$NAME-a" "outputs/$NAME-b"
    local given=(cpu)
    [ -z "$DRY" ] || given=(smoke -p TRAIN_VIEWS 8 VALID_VIEWS 4 FRAMES_DIR "$OUT/frames")
    stkvlm run "${given[@]}" --run-id "$NAME-b" --from 03 && cp "outputs/$NAME-b/metrics.json" "$OUT/again.json" &&
        stkvlm compare "$NAME-a" "$NAME-b"
}

large() { "$PYTHON" benchmarks/large_base.py --out "$OUT/large-$1" "${@:2}"; }

# sized SIZE ARGUMENTS...: what large_base takes, tiny where it is dry
sized() { if [ -n "$DRY" ]; then echo --size tiny --pictures 2 --batch-size 1; else echo --size "$@"; fi; }

do_base256() { large 256 $(sized 256M) && cp "$OUT/large-256/large_base.json" "$OUT/base256.json"; }
do_base500() { large 500 $(sized 500M --pictures 256) && cp "$OUT/large-500/large_base.json" "$OUT/base500.json"; }

do_heart() {
    local passes=30
    [ -z "$DRY" ] || passes=20
    large heart $(sized 256M --pictures 64 --batch-size 8) --by-heart $passes
    local got=$?
    cp "$OUT/large-heart/by_heart.json" "$OUT/heart.json" && return $got
}

straight() {
    local size=()
    [ -z "$DRY" ] || size=(--views 1 --batch-size 1 --rounds 1)
    "$PYTHON" benchmarks/straight_loop.py --out "$OUT/$1.json" "${@:2}" "${size[@]}"
}
do_straight() { straight straight; }
do_straight256() { # its answers are noise that seldom stops, so few are asked for
    local base
    base="$(stand_in)" && straight straight256 --views 32 --answer-views 4 --base "$base"
}

# stand_in: prints the folder of the random base that large_base has made, or makes
stand_in() {
    local folder size=256M
    [ -z "$DRY" ] || size=tiny
    folder="$OUT/large-256/base-$size"
    [ -f "$folder/config.json" ] || PYTHONPATH="$ROOT:$ROOT/benchmarks" "$PYTHON" -c '
import sys
from pathlib import Path
from large_base import random_base
random_base(Path(sys.argv[1]), sys.argv[2])' "$folder" "$size" >&2 || return 1
    echo "$folder"
}

do_notebooks() {
    local base given views=256
    base="$(stand_in)" || return 1
    [ -z "$DRY" ] || views=4
    rm -rf "outputs/$NAME-gpu"
    frames_of "$OUT/frames-gpu" "$([ -n "$DRY" ] && echo 100 || echo 8)" || return 1
    given=(BASE_MODEL "$base" FRAMES_DIR "$OUT/frames-gpu" TRAIN_VIEWS $views VALID_VIEWS 4 EPOCHS 1 OWN_WORDS_PICTURES 1)
    given+=(EXTENDED_SCORED 5 CALIBRATION_VIEWS 4 BOOTSTRAP 200)
    stkvlm run gpu -p "${given[@]}" --run-id "$NAME-gpu" || return 1
    cp "outputs/$NAME-gpu/metrics.json" "$OUT/notebooks.json"
    notebook 06_explore RUN_DIR "outputs/$NAME-gpu"
}

do_batch() {
    rm -rf "outputs/$NAME-batch"
    local parameters=
    [ -z "$DRY" ] || { frames_of "$OUT/frames" 60 && parameters="TRAIN_VIEWS: 8, VALID_VIEWS: 4, FRAMES_DIR: '$OUT/frames'"; }
    printf '%s\n' "name: $NAME-batch" "profile: smoke" "parameters: {$parameters}" "grid: {LORA_RANK: [8, 16]}" \
        "seeds: [0, 1]" >"$OUT/batch.yml"
    stkvlm batch "$OUT/batch.yml" && notebook 07_batch BATCH_FILE "$OUT/batch.yml"
}

declare -A MOST=([tests]=150 [run]=330 [again]=240 [base256]=120 [base500]=120 [heart]=90 [straight]=120 [straight256]=120
    [notebooks]=240 [batch]=240) # seconds

for part in "${CHOSEN[@]}"; do
    left=$((LIMIT - (SECONDS - STARTED)))
    rm -f "$OUT/$part.json"
    if [ $left -lt 10 ]; then
        printf '%s\tnot begun, time was up\t0\n' "$part" >"$OUT/$part.tsv"
        echo "$part: not begun, time was up"
        continue
    fi
    most=${MOST[$part]}
    [ -z "$DRY" ] || most=1800
    [ "$most" -lt "$left" ] || most=$left
    echo "$part: begun, at most $most s; log in $OUT/$part.log"
    begun=$SECONDS
    (
        set -m # a process group of its own, so that all it has started can be ended
        "do_$part" >"$OUT/$part.log" 2>&1 &
        job=$!
        set +m # what waits stays in ours, which Ctrl-C reaches
        trap 'kill -TERM -$job 2>/dev/null; wait $job; exit 130' TERM INT
        for ((waited = 0; waited < most; waited++)); do kill -0 $job 2>/dev/null || break; sleep 1; done
        if kill -0 $job 2>/dev/null; then
            kill -TERM -$job
            sleep 10
            kill -KILL -$job 2>/dev/null
            exit 124
        fi
        wait $job
    )
    case $? in
    0) status="done" ;;
    130) status="interrupted" ;;
    124) status="stopped after $most s" ;;
    *) status="FAILED: $(grep -v '^ *$' "$OUT/$part.log" | tail -n 1 | tr '\t' ' ' | cut -c 1-200)" ;;
    esac
    printf '%s\t%s\t%s\n' "$part" "$status" "$((SECONDS - begun))" >"$OUT/$part.tsv"
    echo "$part: $status ($((SECONDS - begun)) s)"
    [ "$status" != interrupted ] || break
done

"$PYTHON" - "$OUT" "$CPU_RUN" "$DRY" "$LOAD" "${PARTS[@]}" <<'EOF'
import datetime, json, sys
from pathlib import Path
from stkvlm_lib import markdown
from stkvlm_lib.files import write_json, write_text
from stkvlm_lib.runs import commit, device_name, versions

out, cpu_run, dry, load, *parts = Path(sys.argv[1]), *sys.argv[2:]
SCORES = ("exact", "macro_exact", "n", "majority", "blind", "base_exact", "train_seconds", "qa_per_second_train", "peak_memory_mb", "adapter_mb")
read = lambda path: json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
rows, found = [], {}
for part in parts:
    if not (out / f"{part}.tsv").is_file():
        continue
    _, status, seconds = (out / f"{part}.tsv").read_text(encoding="utf-8").rstrip("\n").split("\t")
    rows.append({"part": part, "result": status, "s": seconds})
    figures = read(out / f"{part}.json")
    if part in ("run", "again", "notebooks"):
        figures = {name: figures[name] for name in SCORES if name in figures}
    found[part] = {"result": status, "seconds": int(seconds), "figures": figures}
metrics = read(Path(cpu_run, "metrics.json")) if cpu_run else {} if dry else read(Path("benchmarks/results/cpu-seed0.json")).get("metrics")
if metrics:
    found["cpu"] = {"result": "given", "seconds": 0, "figures": {name: metrics[name] for name in SCORES if name in metrics}}
facts = {"device": device_name(), "date": datetime.date.today().isoformat(), "commit": commit(), "dry": bool(dry), "load": round(float(load), 1), "versions": versions()}
write_json(out / "summary.json", facts | {"parts": found})
said = ", a dry one of tiny sizes, which proves nothing" if dry else ""
text = [f"GPU proof: {facts['device']}, {facts['date']}, commit {facts['commit']}{said}.", markdown.table(rows)]
for part, entry in found.items():
    if entry["figures"]:
        shown = [{"": name, part: f"{value:.4g}" if isinstance(value, float) else str(value)} for name, value in entry["figures"].items()]
        text += [f"### {part}", markdown.table(shown, right=True)]
scores = {name: entry["figures"]["exact"] for name, entry in found.items() if name in ("cpu", "again") and "exact" in entry["figures"]}
ours, apart = found.get("run", {}).get("figures", {}).get("exact"), False
for name, other in scores.items() if ours is not None else ():
    far = abs(ours - other) > 0.01
    apart |= far and not dry
    text.append(f"Exact match of run minus {name}: {100 * (ours - other):+.2f} points{': MORE THAN A POINT APART' if far else ''}.")
write_text(out / "summary.md", "\n\n".join(text) + "\n")
print((out / "summary.md").read_text(encoding="utf-8"))
if not dry:
    print(f"for RESULTS.md: {sys.executable} benchmarks/results.py proof {out} && {sys.executable} benchmarks/results.py")
sys.exit(apart or any(row["result"] != "done" for row in rows))
EOF
