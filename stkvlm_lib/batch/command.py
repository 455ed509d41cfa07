"""`./run_all.sh batch ...` and `compare` of any number of runs: flags read, work done, the outcome told.

Nothing heavy is imported before it is needed.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stkvlm_lib import markdown, pipeline, runs
from stkvlm_lib.batch.plan import BATCH_FILE, Batch, make_batch, read_batch
from stkvlm_lib.config import PROFILES, ConfigError
from stkvlm_lib.files import read_object

if TYPE_CHECKING:
    from stkvlm_lib.batch.tables import Comparison

COMPARISON = "comparison"
"""The folder in outputs/ for the page of runs that are no batch."""


def add_arguments(batch: argparse.ArgumentParser) -> None:
    """Those of `batch`."""
    batch.add_argument("what", nargs="?", metavar="FILE|PROFILE", help="a batch file (YAML), or a profile with -p")
    batch.add_argument("-p", dest="parameters", nargs="+", action="append", default=[], metavar="NAME VALUE[,VALUE]")
    batch.add_argument("--seeds", nargs="+", type=int, metavar="N", help="default: those of the file, or 0")
    batch.add_argument("--name", help="folder in outputs/; default: the file's name, or what varies")
    batch.add_argument("--compare-to", metavar="SETTING", help="default: that of the file, or the first")
    batch.add_argument("--at-once", type=int, default=0, metavar="N", help="runs at a time; default: one, or one a GPU")
    batch.add_argument("--gpus", default="", metavar="0,1", help="default: all")
    batch.add_argument("--cluster", default="", metavar="ADDRESS", help="tcp://host:port of a Dask scheduler")


def call(options: argparse.Namespace) -> int:
    """Exit status: 0 when all runs are done, 1 when one failed. Raises ConfigError before anything is started."""
    from stkvlm_lib.batch.machines import choose_machines
    from stkvlm_lib.batch.run_batch import run_batch
    from stkvlm_lib.batch.states import DONE

    batch = batch_of(options)
    machines = choose_machines(options.at_once, options.gpus, options.cluster)
    command = command_of(options)
    print(f"batch   {batch.name}: {len(batch.settings)} settings x {len(batch.seeds)} seeds, profile {batch.profile}")
    print(f"folder  {batch.folder}\nlogs    {batch.folder / 'logs'}", flush=True)
    states = run_batch(batch, machines, resume=command)
    failed = {name: state for name, state in states.items() if state.state != DONE}
    if any(run.is_done for run in batch.runs):
        tell([batch.folder], batch.folder, batch.compare_to, command)
    for name, state in failed.items():
        print(f"failed  {name}: {state.reason or state.state}", file=sys.stderr)
    if failed:
        print(f"error: {len(failed)} of {len(states)} runs have no score\n  resume {command}", file=sys.stderr)
    return int(bool(failed))


def batch_of(options: argparse.Namespace) -> Batch:
    """The batch that the flags name. Raises ConfigError or FileNotFoundError."""
    changes = {**_parameters(options.parameters)}
    given = {"seeds": options.seeds, "name": options.name, "compare_to": options.compare_to}
    changes |= {key: value for key, value in given.items() if value}
    if options.what is None and not changes:
        ready = "benchmarks/batches/two-cores.yml"
        raise ConfigError(f"name a batch file, such as {ready}, or what varies with -p or --seeds")
    if options.what is None or options.what in PROFILES:
        name = "_".join(map(str.lower, changes.get("grid", {}))) or "batch"
        return make_batch({"profile": options.what, "name": name} | changes, "flags")
    path = Path(options.what)
    if path.suffix not in (".yml", ".yaml") and not path.is_file():
        close = get_close_matches(options.what, PROFILES, 1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        raise ConfigError(f"{options.what}: neither a batch file nor a profile ({', '.join(PROFILES)}){meant}")
    return read_batch(path, changes)


def _parameters(given: Sequence[Sequence[str]]) -> dict[str, dict[str, Any]]:
    """`-p A 1 B 2,3` -> one value is fixed, several separated by commas are a grid."""
    words = [word for group in given for word in group]
    for group in given:
        if len(group) % 2:
            raise ConfigError(f"-p takes a NAME and a VALUE or VALUES; {group[-1]!r} stands alone")
    pairs = dict(zip(words[::2], words[1::2], strict=True))
    grid = {name: value.split(",") for name, value in pairs.items() if "," in value}
    fixed = {name: value for name, value in pairs.items() if name not in grid}
    return {key: value for key, value in (("parameters", fixed), ("grid", grid)) if value}


def command_of(options: argparse.Namespace) -> str:
    """The command again, for going on."""
    words = ["./run_all.sh", "batch", *([options.what] if options.what else [])]
    for group in options.parameters:
        words += ["-p", *group]
    if options.seeds:
        words += ["--seeds", *map(str, options.seeds)]
    for flag in ("name", "compare_to", "at_once", "gpus", "cluster"):
        if value := getattr(options, flag):
            words += [f"--{flag.replace('_', '-')}", str(value)]
    return shlex.join(words)


def compare_many(names: Sequence[str], *, resamples: int, seed: int, out: str = "") -> None:
    """The table of any runs and batches, printed and as a page in outputs/comparison (a batch: in its own folder).

    Raises FileNotFoundError or ConfigError for what is no run.
    """
    folders = [runs.find_run(name) for name in names]
    alone = len(folders) == 1
    if alone and not (folders[0] / BATCH_FILE).is_file():
        raise ConfigError(f"{names[0]}: one run alone is compared with nothing; name two or more, or a batch")
    target = Path(out) if out else folders[0] if alone else runs.OUTPUTS / COMPARISON
    planned = read_object(folders[0] / BATCH_FILE) if alone else {}
    command = shlex.join(["./run_all.sh", "compare", *names])
    tell(folders, target, planned.get("compare_to", ""), command, resamples=resamples, seed=seed)


def tell(
    folders: Sequence[Path], target: Path, compare_to: str, command: str, *, resamples: int = 1000, seed: int = 0
) -> "Comparison":
    """Compare, print, and write the page; for a batch, `latest` then points to the chosen setting's first run."""
    from stkvlm_lib.batch import page, tables
    from stkvlm_lib.batch.results import read_settings

    comparison = tables.compare_settings(read_settings(folders), compare_to, resamples=resamples, seed=seed)
    of_batch = (target / BATCH_FILE).is_file()
    title = f"Batch {target.name}" if of_batch else f"{len(folders)} runs compared"
    written = page.write_page(comparison, target, title=title, command=command)
    print(f"\n{markdown.table(tables.setting_rows(comparison), right=True)}\n\n{tables.headline(comparison)}")
    for note in tables.notes(comparison):
        print(f"note    {note}")
    if of_batch and comparison.chosen and target.parent == runs.OUTPUTS:
        pipeline.point_latest_to(comparison.chosen.scored[0].folder)
        print(f"latest  {comparison.chosen.scored[0].folder}")
    print(f"page    {written}", flush=True)
    return comparison
