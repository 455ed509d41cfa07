"""Make runs of many settings and seeds, and tell them apart on one page.

In the end `outputs/latest` is the first run of the setting that is best on the valid races.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from stkvlm_lib import markdown, pipeline, runs
from stkvlm_lib.batch.plan import BATCH_FILE, KEYS, Batch, make_batch, read_batch
from stkvlm_lib.commands.arguments import add_parameters, named_values, whole_number
from stkvlm_lib.config import PROFILES, ConfigError, did_you_mean
from stkvlm_lib.number_text import counted

EPILOG = "keys of a batch file:\n" + "\n".join(f"  {key:<11} {meaning}" for key, meaning in KEYS.items())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", metavar="FILE|PROFILE", help="a batch file (YAML), or a profile with -p")
    add_parameters(parser, "NAME VALUE[,VALUE]", "one value is that of all runs; several are a grid: -p LORA_RANK 8,16")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="default: those of the file, or 0")
    parser.add_argument("--name", help="folder in outputs/; default: the file's name, or what varies")
    parser.add_argument("--compare-to", metavar="SETTING", help="default: that of the file, or the first")
    at_once = "runs at a time; default: one, or one a GPU"
    parser.add_argument("--at-once", type=whole_number(0), default=0, metavar="N", help=at_once)
    parser.add_argument("--gpus", default="", metavar="0,1", help="default: all")
    parser.add_argument("--cluster", default="", metavar="ADDRESS", help="tcp://host:port of a Dask scheduler")


def check(options: argparse.Namespace) -> None:
    batch_of(options)


def call(options: argparse.Namespace) -> int:
    """Exit status: 0 when all runs are done, 1 when one failed. Raises ConfigError before anything is started."""
    from stkvlm_lib.batch.machines import choose_machines
    from stkvlm_lib.batch.run_batch import run_batch
    from stkvlm_lib.batch.states import DONE

    batch = batch_of(options)
    machines = choose_machines(options.at_once, options.gpus, options.cluster)
    size = f"{counted(len(batch.settings), 'setting')} x {counted(len(batch.seeds), 'seed')}"
    print(f"batch   {batch.name}: {size}, profile {batch.profile}")
    print(f"folder  {batch.folder}\nlogs    {batch.folder / 'logs'}", flush=True)
    states = run_batch(batch, machines, resume=options.again)
    failed = {name: state for name, state in states.items() if state.state != DONE}
    if any(run.is_done for run in batch.runs):
        tell([batch.folder], batch.folder, batch.compare_to, options.again)
    for name, state in failed.items():
        print(f"failed  {name}: {state.reason or state.state}", file=sys.stderr)
    if failed:
        print(f"error: {len(failed)} of {len(states)} runs have no score\n  resume {options.again}", file=sys.stderr)
    return int(bool(failed))


def batch_of(options: argparse.Namespace) -> Batch:
    """The batch that the flags name. Raises ConfigError or FileNotFoundError."""
    given = dict(pair for group in options.parameters for pair in named_values(group).items())
    grid = {name: value.split(",") for name, value in given.items() if "," in value}
    fixed = {name: value for name, value in given.items() if name not in grid}
    flags = {"parameters": fixed, "grid": grid, "seeds": options.seeds}
    flags |= {"name": options.name, "compare_to": options.compare_to}
    changes = {key: value for key, value in flags.items() if value}
    if options.what is None and not changes:
        ready = "benchmarks/batches/two-cores.yml"
        raise ConfigError(f"name a batch file, such as {ready}, or what varies with -p or --seeds")
    if options.what is None or options.what in PROFILES:
        name = "_".join(map(str.lower, grid)) or "batch"
        return make_batch({"profile": options.what, "name": name} | changes, "flags")
    path = Path(options.what)
    if path.suffix not in (".yml", ".yaml") and not path.is_file():
        meant = did_you_mean(options.what, PROFILES)
        raise ConfigError(f"{options.what}: neither a batch file nor a profile ({', '.join(PROFILES)}){meant}")
    return read_batch(path, changes)


def tell(
    folders: Sequence[Path], target: Path, compare_to: str, command: str, *, resamples: int = 1000, seed: int = 0
) -> None:
    """Compare, print, and write the page; for a batch, `latest` then points to the chosen setting's first run.

    target: where the page goes. command: what makes it again.
    """
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
