"""Sections: tables without empty columns, headings that links can name."""

import pytest

from stkvlm_lib.analysis.sections import Section, Table, listed, table
from stkvlm_lib.number_text import NOTHING


def test_a_table_leaves_out_columns_in_which_nothing_stands():
    empty = {"base": NOTHING, "question": ""}
    rows = [{"family": "ego", "n": "3", **empty}, {"family": "track", "n": NOTHING, **empty}]
    found = table(iter(rows), "Title")
    assert found.columns == ["family", "n"] and found.title == "Title"
    assert found.rows == [{"family": "ego", "n": "3"}, {"family": "track", "n": NOTHING}]
    assert "base" in rows[0], "the rows given stay as they are"


def test_without_rows_there_is_no_table():
    assert table([]) is None and table(iter(())) is None
    assert Table([]).columns == []
    one = Table([{"a": "1"}])
    assert Section("a", details=[None, one, None]).details == [one]


@pytest.mark.parametrize(
    ("title", "anchor"),
    [
        ("What is taken for what", "what-is-taken-for-what"),
        ("Against 2026-run_b (old)", "against-2026-run_b-old"),
        ("Line-ups never seen", "line-ups-never-seen"),
        ('"><script>', "script"),
    ],
)
def test_a_heading_is_what_a_link_can_name(title, anchor):
    assert Section(title).anchor == anchor


def test_the_numbers_of_a_figure_are_listed_in_words():
    assert listed("Oracle by family", (("all", "91.0%"), ("ego", 3))) == "Oracle by family: all 91.0%, ego 3."


def test_sections_do_not_share_their_lists():
    first, second = Section("a"), Section("b")
    first.figures.append("figure")
    first.details.append("table")
    assert second.figures == second.details == []
