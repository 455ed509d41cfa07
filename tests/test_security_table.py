"""The table of SECURITY.md: the files that it names are there, and its counts are made, not written."""

import sys
from collections import Counter

from stkvlm_lib.config import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import security_table  # noqa: E402 - it lies beside the library


def test_every_file_that_the_page_names_is_there():
    files = security_table.named_files(security_table.SECURITY.read_text(encoding="utf-8"))
    assert len(files) > 10 and all((ROOT / name).is_file() for name in files)


def test_counts_go_into_the_last_cell_of_their_rows():
    text = (
        "| what | where | cases |\n|---|---|--:|\n| a | `tests/test_a.py`, `tests/test_b.py` | ? |\n| b | none | 5 |\n"
    )
    counted = security_table.with_counts(text, Counter({"tests/test_a.py": 2, "tests/test_b.py": 3}))
    assert counted == text.replace("?", "5")
    assert security_table.with_counts(counted, Counter()) == text.replace("?", "0")


def test_cases_are_what_pytest_collects(tmp_path):
    (tmp_path / "test_a.py").write_text(
        "import pytest\n@pytest.mark.parametrize('x', ['a::b', 'c'])\ndef test_x(x): ...\ndef test_y(): ...\n"
    )
    assert security_table.collected(["test_a.py"], tmp_path) == Counter({"test_a.py": 3})
