"""Write the report of a run again, from its artefacts alone."""

import argparse

from stkvlm_lib.commands.arguments import add_run
from stkvlm_lib.runs import find_run

add_arguments = add_run


def check(options: argparse.Namespace) -> None:
    find_run(options.run)


def call(options: argparse.Namespace) -> None:
    from stkvlm_lib.reports.report import write_report

    print(write_report(find_run(options.run)))
