"""Write the report of a run again, from its artefacts alone."""

import argparse

from stkvlm_lib.commands.arguments import add_run

add_arguments = add_run


def call(options: argparse.Namespace) -> None:
    from stkvlm_lib.reports.report import write_report

    print(write_report(options.run))
