"""Sections: tables without empty columns, families in their order, headings that links can name."""

import pytest

from stkvlm_lib.analysis.sections import Section, Table, family_lines, listed, table, tables
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
    assert tables(None, one, None) == [one] and tables() == []


def test_families_follow_all_in_their_fixed_order():
    found = {"other": 3, "track": 2, "ego": 1}
    assert family_lines("whole", found) == [("all", "whole"), ("ego", 1), ("track", 2), ("other", 3)]
    assert family_lines("whole", None) == family_lines("whole", {}) == [("all", "whole")]


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
