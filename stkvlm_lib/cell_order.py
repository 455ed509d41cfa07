"""A notebook whose cells are run out of order says so, in place of a bare NameError."""

import sys
from types import TracebackType
from typing import Any

HINT = "{} is made in a cell above: run the cells from the top (in JupyterLab: Run, Run All Above Selected Cell)"


def hint_at_order() -> None:
    """From now on, in a notebook, a name that is not there yet is followed by a hint; elsewhere nothing changes."""
    if "IPython" not in sys.modules:
        return
    from IPython import get_ipython

    if shell := get_ipython():
        shell.set_custom_exc((NameError,), _show)


def _show(shell: Any, kind: type, error: NameError, trace: TracebackType, tb_offset: int | None = None) -> None:
    shell.showtraceback((kind, error, trace), tb_offset)
    in_cell = trace.tb_next is None or trace.tb_next.tb_next is None  # else a fault of the library, no matter of order
    if in_cell and error.name:
        print(HINT.format(error.name), file=sys.stderr)
