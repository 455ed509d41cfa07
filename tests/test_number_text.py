"""Figures as text, and a dash for what is none."""

from stkvlm_lib.number_text import NOTHING, count, interval, number, percent, points


def test_figures_as_text():
    assert (percent(0.1234), points(-0.05), points(-0.0002), count(12345), number(2.345, 2)) == (
        "12.3%",
        "-5.0",
        "+0.0",
        "12,345",
        "2.35",
    )
    assert interval([0.1, 0.25]) == "10.0% to 25.0%" and interval([-0.1, 0.0], points) == "-10.0 to +0.0"
    assert {percent(None), points("x"), count(True), number(None), interval(None), interval([1])} == {NOTHING}
