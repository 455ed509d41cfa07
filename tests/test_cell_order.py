"""The hint that stands in place of a bare NameError, in a real kernel."""

import nbformat
import pytest
from nbclient import NotebookClient

from stkvlm_lib.config import ROOT

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


CELLS = (START, "predictions[0]", DEEP, "1 / 0")


@pytest.fixture(scope="module")
def told():
    """What each cell prints, and the name of the error that it ends with."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    NotebookClient(notebook, timeout=60, kernel_name="python3", allow_errors=True).execute()
    outputs = [cell.outputs for cell in notebook.cells]
    return ["".join(o.get("text", "") for o in found) for found in outputs], [
        [o.ename for o in found if o.output_type == "error"] for found in outputs
    ]


def test_a_name_of_a_cell_above_is_said_to_be_one_and_the_cell_fails_as_before(told):
    said, errors = told
    assert errors[1] == ["NameError"] and "predictions is made in a cell above" in said[1]


def test_other_errors_and_faults_of_the_library_get_no_hint(told):
    said, errors = told
    assert errors[2:] == [["NameError"], ["ZeroDivisionError"]]
    assert "cell above" not in said[2] + said[3]


def test_outside_a_notebook_nothing_changes():
    from stkvlm_lib.cell_order import hint_at_order

    hint_at_order()
