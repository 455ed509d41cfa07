"""Tell two runs apart on the questions that both answered, or more of them, or a batch, in a table and on a page."""

import argparse

from stkvlm_lib import markdown
from stkvlm_lib.batch.plan import BATCH_FILE
from stkvlm_lib.commands.arguments import A_RUN, whole_number
from stkvlm_lib.runs import find_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help=f"{A_RUN}; also the folder of a batch")
    parser.add_argument("--out", default="", metavar="DIR", help="where the table's page goes: outputs/comparison")
    parser.add_argument(
        "--bootstrap", type=whole_number(1), default=1000, metavar="N", help="resamples behind each interval"
    )
    parser.add_argument("--seed", type=whole_number(0), default=0, metavar="N", help="draws them")


def check(options: argparse.Namespace) -> None:
    folders = [find_run(name) for name in options.runs]
    if len(folders) == 2 and folders[0].samefile(folders[1]):
        raise ValueError(f"{' and '.join(options.runs)} are the same run; name two")


def call(options: argparse.Namespace) -> None:
    folders = [find_run(name) for name in options.runs]
    if len(folders) != 2 or options.out or any((folder / BATCH_FILE).is_file() for folder in folders):
        from stkvlm_lib.batch.command import compare_many

        return compare_many(options.runs, resamples=options.bootstrap, seed=options.seed, out=options.out)
    from stkvlm_lib.analysis import comparison
    from stkvlm_lib.analysis.intervals import Bootstrap
    from stkvlm_lib.evaluation.predictions import HEADLINE, read_answers

    shared = comparison.share(*(read_answers(folder / HEADLINE) for folder in folders))
    interval_of = Bootstrap([pair.ours for pair in shared.pairs], options.bootstrap, options.seed)
    ours, other = (folder.resolve().name for folder in folders)
    figures = comparison.compare(shared, interval_of, other)
    print(figures.words(ours, other))
    print(f"\n{markdown.table(figures.table(ours, other).rows, right=True)}")
