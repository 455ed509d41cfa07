"""RESULTS.md: every figure that the project states, from files that commands wrote.

    python benchmarks/results.py keep RUN NAME [--note TEXT]       # keep the figures of a run in benchmarks/results/
    python benchmarks/results.py record NAME TITLE -- COMMAND ...  # run a benchmark, and keep what it prints
    python benchmarks/results.py proof DIR                        # keep what benchmarks/gpu_proof.sh has found
    python benchmarks/results.py                                  # write RESULTS.md and the README's table of these

`keep` takes metrics.json of a run with what it was made with; `record` the last lines that a command prints, with the
load of the machine before it.
"""

import argparse
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from stkvlm_lib import runs
from stkvlm_lib.analysis import accuracy, ceiling, error_budget
from stkvlm_lib.analysis.accuracy import Accuracy
from stkvlm_lib.analysis.calibration import Calibration
from stkvlm_lib.analysis.ceiling import Ceiling
from stkvlm_lib.analysis.consistency import Consistency
from stkvlm_lib.analysis.entailed import Entailed
from stkvlm_lib.analysis.error_budget import ErrorBudget
from stkvlm_lib.analysis.further_sets import Extended, MultipleChoice, UnseenLineUps
from stkvlm_lib.analysis.run_words import command
from stkvlm_lib.analysis.scored_run import Analysis, ScoredRun
from stkvlm_lib.analysis.wordings import HeldOutWordings, OwnWords
from stkvlm_lib.config import ROOT
from stkvlm_lib.files import read_object, write_json, write_text
from stkvlm_lib.markdown import folded, table
from stkvlm_lib.number_text import NOTHING, interval, percent

KEPT = ROOT / "benchmarks" / "results"
PAGE, README = ROOT / "RESULTS.md", ROOT / "README.md"
TABLE = re.compile(r"(<!-- results -->\n).*?(<!-- end -->)", re.DOTALL)
"""What of the README is written here."""
MOST_LINES = 60
"""Of what a benchmark prints."""
MAIN = "cpu-seed"
"""How the names of the runs begin that differ by their seed alone; the first is shown by family."""
HEAD = """\
# Results

Every figure below comes from a file in `benchmarks/results/` that a command has written; this page is written by
`.venv/bin/python benchmarks/results.py`. Scores are strict exact match on races that neither the base nor the adapter
has seen; intervals are 95 % and resample whole races (where all races agree: Wilson's, over their number).
"""
DETAILS: dict[str, type[Analysis]] = {
    "Why answers are wrong": ErrorBudget,
    "What can be reached": Ceiling,
    "Confidence": Calibration,
    "Extended families": Extended,
    "Held-out wordings": HeldOutWordings,
    "Own words": OwnWords,
    "Contrast pairs": Consistency,
    "Answers that must agree": Entailed,
    "Multiple choice": MultipleChoice,
}
QUESTIONS = {
    "the course's ten forms, on races never seen": "",
    "a kind that the base has never met: at which o'clock does a kart stand?": "extended.families.clock",
    "families beside them (colours, nearest, comparisons ...)": "extended",
    "all families, asked in words that no training has seen": "own_words",
    "the ten forms, on karts that never drove that track in training": "other_splits.test_unseen",
    "multiple choice, of five sentences": "mc",
}
"""The rows of the README: what was asked, and where its figures lie in metrics.json."""
FIGURES = {
    "ten forms": "exact",
    "ten forms, mean over families": "macro_exact",
    "majority": "majority",
    "blind": "blind",
    "base alone": "base_exact",
    "own words": "own_words.exact",
    "the same in their template": "own_words.trained_exact",
    "base alone, own words": "own_words.base_exact",
    "unanswerable, answered unknown": "own_words.unanswerable.unknown",
    "answerable, answered unknown": "own_words.unknown",
    "held-out wordings": "held_out_wordings.exact",
    "extended families, mean over them": "extended.macro_exact",
    "of these, at which o'clock": "extended.families.clock.exact",
    "the same, base alone": "extended.families.clock.base",
    "mirrored pairs both right": "consistency.mirror.both",
    "left and right agree with the total": "entailed.left_and_right.agree",
    "line-ups never seen": "other_splits.test_unseen.exact",
    "multiple choice": "mc.exact",
    "calibration error": "calibration.ece",
    "calibration error, own words": "own_words.ece",
}
"""The figures that stand for a run: what they are, and their paths in metrics.json."""
NOTES = " ".join(f"{name}: {text}." for name, text in accuracy.NOTES.items())
LEGENDS = {
    "Why answers are wrong": error_budget.NOTE,
    "What can be reached": ceiling.NOTE,
    "Own words": "Only what the strict rules ask is asked, so that the template scores higher than its family above.",
}
LINE_UPS = (
    "These races have fewer karts than those above: compare with the majority beside them, not with the headline."
)


def keep(name: str, to: str, note: str) -> Path:
    """Keep a run's figures under a name. Raises FileNotFoundError without the run, ValueError without a score."""
    run = ScoredRun(runs.find_run(name))
    if "exact" not in run.metrics:
        raise ValueError(f"{run.folder}: it has no metrics.json with a score; run notebook 04_evaluate")
    steps = run.manifest.get("steps", {})
    made = {
        "command": command(run, lambda value: Path(str(value)).name),
        "note": note,
        "date": time.strftime("%Y-%m-%d"),
        "device": ", ".join(filter(None, (run.manifest.get("device"), run.metrics.get("precision")))),
        "commit": run.manifest.get("commit"),
        "versions": run.manifest.get("versions"),
        "seconds": {step: entry.get("wall_seconds") for step, entry in steps.items()},
    }
    path = KEPT / f"{to}.json"
    write_json(path, {"made": made, "metrics": run.metrics})
    return path


def record(name: str, title: str, words: Sequence[str]) -> Path:
    """Run a command and keep what it prints. Raises ValueError where it fails."""
    load = os.getloadavg()[0]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "STKVLM_HEADLESS": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise ValueError(f"{shlex.join(words)}: ended with status {done.returncode}, so nothing is kept")
    shown = ["python" if Path(word).name.startswith("python") else word for word in words]
    made = {"command": shlex.join(shown), "date": time.strftime("%Y-%m-%d"), "device": runs.device_name()}
    made |= {"commit": runs.commit(), "load": round(load, 1)}
    path = KEPT / f"{name}.json"
    lines = done.stdout.rstrip().splitlines()
    table_begins = next((i for i, line in enumerate(lines) if line.startswith("|")), 0)  # before it stands progress
    write_json(path, {"title": title, "made": made, "printed": lines[table_begins:][-MOST_LINES:]})
    return path


def keep_proof(folder: Path) -> Path:
    """Keep what `gpu_proof.sh` has found. Raises FileNotFoundError without it, ValueError where it was dry."""
    proof = read_object(folder / "summary.json", "run benchmarks/gpu_proof.sh")
    if proof["dry"]:
        raise ValueError(f"{folder}: was made with --dry, which proves nothing; run it on a GPU")
    made = {"command": "benchmarks/gpu_proof.sh"} | {name: proof[name] for name in ("date", "device", "commit", "load")}
    printed = (folder / "summary.md").read_text("utf-8").splitlines()
    path = KEPT / "gpu-proof.json"
    write_json(path, {"title": "On a GPU", "made": made, "printed": printed[printed.index("") + 1 :]})
    return path


def write_page() -> Path:
    found = {path.stem: read_object(path) for path in sorted(KEPT.glob("*.json"))}
    scored = {name: kept for name, kept in found.items() if "metrics" in kept}
    parts = [HEAD, *_seeds({name: kept for name, kept in scored.items() if name.startswith(MAIN)})]
    for name, kept in scored.items():
        parts += _run(name, kept)
    for kept in found.values():
        if "printed" in kept:
            parts.append(_benchmark(kept))
    write_text(PAGE, "\n\n".join(part.strip() for part in parts) + "\n")
    if seeds := [kept["metrics"] for name, kept in scored.items() if name.startswith(MAIN)]:
        shown = table(_headlines(seeds), right=True)
        write_text(README, TABLE.sub(lambda found: f"{found[1]}{shown}\n{found[2]}", README.read_text("utf-8")))
    return PAGE


def _at(metrics: dict, path: str) -> Any:
    """What lies at a dotted path, None where nothing does; at an empty one all."""
    names = filter(None, path.split("."))
    return reduce(lambda part, name: part.get(name) if isinstance(part, dict) else None, names, metrics)


def _headlines(seeds: Sequence[dict]) -> list[dict[str, str]]:
    """The README's rows, from metrics that differ by their seed alone."""
    tuned = f"fine-tuned, mean of {len(seeds)} seeds" if len(seeds) > 1 else "fine-tuned"
    rows = []
    for name, path in QUESTIONS.items():
        if figures := [found for metrics in seeds if (found := _at(metrics, path))]:
            base = [each.get("base_exact", each.get("base")) for each in figures]
            majority = [each.get("majority") for each in figures]
            told = {tuned: [each["exact"] for each in figures], "base alone": base, "most frequent answer": majority}
            rows.append({"questions": name, **{what: percent(_mean(values)) for what, values in told.items()}})
    return rows


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def _seeds(kept: dict[str, dict]) -> Iterator[str]:
    """The headline figures of runs that differ by their seed alone, a row each, with their mean and spread."""
    if not kept:
        return
    rows = []
    for what, path in FIGURES.items():
        found = {name: _at(run["metrics"], path) for name, run in kept.items()}
        values = [value for value in found.values() if value is not None]
        spread = f"{100 * statistics.stdev(values):.1f}" if len(values) > 1 else NOTHING
        shown = {name: percent(value) for name, value in found.items()}
        rows.append({"": what, **shown, "mean": percent(_mean(values)), "sd": spread})
    yield "## The profile `cpu` by seed"
    yield table(rows, right=True)


def _run(name: str, kept: dict) -> Iterator[str]:
    metrics, made = kept["metrics"], kept["made"]
    score = Accuracy.read(metrics)
    minutes = sum(seconds or 0 for seconds in made["seconds"].values()) / 60
    yield f"## {name}"
    yield (
        f"{percent(score.exact)} of {score.n:,} questions ({interval(score.exact_ci95)}). `{made['command']}`, "
        f"{made['date']}, commit {made['commit']}, {made['device']}, {minutes:.0f} minutes. {made['note']}"
    )
    yield score.table().markdown(without=("question",))
    yield NOTES
    for title, kind in DETAILS.items():
        if (figures := kind.read(metrics)) and (shown := figures.table()):
            note = f"\n\n{LEGENDS[title]}" if title in LEGENDS else ""
            yield folded(title, shown.markdown() + note)
    if unseen := UnseenLineUps.read(metrics):
        for figures in unseen.splits.values():
            yield folded("Line-ups never seen", f"{figures.table().markdown()}\n\n{LINE_UPS}")


def _benchmark(kept: dict) -> str:
    made, lines = kept["made"], kept["printed"]
    n = next((i for i, line in enumerate(lines) if not line.startswith("|")), len(lines))
    printed = "\n".join([*lines[:n], "", *lines[n:]] if n else ["```", *lines, "```"]).rstrip()  # tables, and words
    where = f"{made['date']}, commit {made['commit']}, {made['device']}, load {made['load']} before"
    return f"## {kept['title']}\n\n`{made['command']}`: {where}.\n\n{printed}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.set_defaults(act=lambda given: write_page())
    commands = parser.add_subparsers()
    kept = commands.add_parser("keep", help="keep the figures of a run")
    kept.add_argument("run")
    kept.add_argument("name")
    kept.add_argument("--note", default="")
    kept.set_defaults(act=lambda given: keep(given.run, given.name, given.note))
    proof = commands.add_parser("proof", help="keep what benchmarks/gpu_proof.sh has found")
    proof.add_argument("folder", type=Path)
    proof.set_defaults(act=lambda given: keep_proof(given.folder))
    recorded = commands.add_parser("record", help="run a benchmark, and keep what it prints")
    recorded.add_argument("name")
    recorded.add_argument("title")
    recorded.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND ...")
    recorded.set_defaults(act=lambda given: record(given.name, given.title, [w for w in given.words if w != "--"]))
    options = parser.parse_args(arguments)
    try:
        print(options.act(options))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
