"""The hint that stands in place of a bare NameError, in a real kernel."""

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from stkvlm_lib.config import ROOT


def run(*cells):
    """Execute cells, also past errors; -> the texts of the last one's outputs, by kind."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    setup = {"metadata": {"path": str(ROOT)}}
    try:
        NotebookClient(notebook, timeout=60, kernel_name="python3", resources=setup).execute()
        failed = False
    except CellExecutionError:
        failed = True
    outputs = notebook.cells[-1].outputs
    return failed, "".join(o.get("text", "") for o in outputs), [o.get("ename") for o in outputs]


START = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from stkvlm_lib.cell_order import hint_at_order
hint_at_order()
"""
DEEP = """
def deep():
    return there_is_none
def deeper():
    return deep()
deeper()
"""


def test_a_name_of_a_cell_above_is_said_to_be_one_and_the_cell_fails_as_before():
    failed, said, names = run(START, "predictions[0]")
    assert failed and "NameError" in names
    assert "predictions is made in a cell above" in said


def test_other_errors_and_faults_of_the_library_get_no_hint():
    failed, said, names = run(START, DEEP)
    assert failed and "NameError" in names and "cell above" not in said
    failed, said, names = run(START, "1 / 0")
    assert failed and "ZeroDivisionError" in names and "cell above" not in said


def test_outside_a_notebook_nothing_changes():
    from stkvlm_lib.cell_order import hint_at_order

    hint_at_order()
