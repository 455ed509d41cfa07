"""Tell two runs apart on the questions that both answered, or more of them, or a batch, in a table and on a page."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from stkvlm_lib import markdown, runs
from stkvlm_lib.batch.plan import BATCH_FILE
from stkvlm_lib.commands.arguments import A_RUN, whole_number
from stkvlm_lib.commands.batch import tell
from stkvlm_lib.config import ConfigError
from stkvlm_lib.files import read_object


def add_arguments(parser: argparse.ArgumentParser) -> None:
    resamples, seed = "resamples behind each interval", "draws the resamples"
    a_run = f"{A_RUN}; also the folder of a batch"
    parser.add_argument("runs", nargs="+", type=runs.find_run, metavar="RUN", help=a_run)
    parser.add_argument("--out", default="", metavar="DIR", help="where the table's page goes: outputs/comparison")
    parser.add_argument("--bootstrap", type=whole_number(1), default=1000, metavar="N", help=resamples)
    parser.add_argument("--seed", type=whole_number(0), default=0, metavar="N", help=seed)


def check(options: argparse.Namespace) -> None:
    if len(options.runs) == 2 and options.runs[0].samefile(options.runs[1]):
        raise ValueError(f"{' and '.join(map(str, options.runs))} are the same run; name two")


def call(options: argparse.Namespace) -> None:
    folders = options.runs
    batches = [folder for folder in folders if (folder / BATCH_FILE).is_file()]
    if len(folders) == 1 and not batches:
        raise ConfigError(f"{folders[0]}: one run alone is compared with nothing; name two or more, or a batch")
    if len(folders) == 2 and not batches and not options.out:
        return _print_two(folders, options.bootstrap, options.seed)
    alone = len(folders) == 1
    usual = folders[0] if alone else runs.OUTPUTS / "comparison"
    compare_to = read_object(folders[0] / BATCH_FILE).get("compare_to", "") if alone else ""
    target = Path(options.out) if options.out else usual
    tell(folders, target, compare_to, options.again, resamples=options.bootstrap, seed=options.seed)


def _print_two(folders: Sequence[Path], resamples: int, seed: int) -> None:
    from stkvlm_lib.analysis import comparison
    from stkvlm_lib.analysis.intervals import Bootstrap
    from stkvlm_lib.evaluation.predictions import HEADLINE, read_answers

    shared = comparison.share(*(read_answers(folder / HEADLINE) for folder in folders))
    interval_of = Bootstrap([pair.ours for pair in shared.pairs], resamples, seed)
    ours, other = (folder.resolve().name for folder in folders)
    figures = comparison.compare(shared, interval_of, other)
    print(figures.words(ours, other))
    print(f"\n{markdown.table(figures.table(ours, other).rows, right=True)}")
