import pytest

from stkvlm_lib.number_text import NOTHING, count, interval, number, percent, points
from stkvlm_lib.scores.score_tables import (
    choice_rows,
    consistency_rows,
    family_rows,
    own_words_rows,
    unseen_rows,
    wording_rows,
)


def test_figures_as_text():
    assert (percent(0.1234), points(-0.05), points(0.0), count(12345), number(2.345, 2)) == (
        "12.3%",
        "-5.0",
        "+0.0",
        "12,345",
        "2.35",
    )
    assert interval([0.1, 0.25]) == "10.0% to 25.0%" and interval([-0.1, 0.0], points) == "-10.0 to +0.0"
    assert {percent(None), points("x"), count(True), number(None), interval(None), interval([1])} == {NOTHING}


def test_families_stand_in_their_order_after_all_and_columns_without_figures_are_left_out():
    row = {"n": 2, "exact": 0.5, "majority": 0.25}
    rows = family_rows({"n": 6, "exact": 0.5, "base_exact": 0.0, "families": {"other": row, "track": row, "ego": row}})
    assert [r["family"] for r in rows] == ["all", "ego", "track", "other"]
    assert list(rows[0]) == ["family", "question", "n", "exact", "majority", "base"]
    assert rows[0]["base"] == "0.0%" and rows[1]["base"] == NOTHING
    assert rows[1]["question"] == "What kart is the ego car?" and rows[3]["question"] == ""


@pytest.mark.parametrize(
    "metrics",
    [{}, {"held_out_wordings": None, "own_words": [1], "consistency": [], "mc": 3, "other_splits": "x"}],
)
def test_what_is_not_there_has_no_rows(metrics):
    assert wording_rows(metrics) == consistency_rows(metrics) == consistency_rows(metrics, "mirror") == []
    assert own_words_rows(metrics) == []
    assert choice_rows(metrics) == unseen_rows(metrics, "test_unseen") == family_rows(metrics.get("mc")) == []


def test_unseen_line_ups_stand_beside_the_headline():
    row = {"n": 2, "exact": 0.5}
    metrics = {"split": "test", "exact": 0.75, "families": {"ego": {"exact": 0.7}}}
    further = {**row, "families": {"ego": row, "track": row}}
    rows = unseen_rows({**metrics, "other_splits": {"test_unseen": further}}, "test_unseen")
    assert [(r["family"], r["exact"], r["test"]) for r in rows] == [
        ("all", "50.0%", "75.0%"),
        ("ego", "50.0%", "70.0%"),
        ("track", "50.0%", NOTHING),
    ]


def test_controls_follow_the_pairs_that_differ():
    pairs = {"n": 3, "both": 0.5, "same": {"n": 1, "both": 1.0}, "families": {"nearer": {"n": 3, "both": 0.5}}}
    metrics = {"consistency": {"mirror": pairs, "other_view": {"n": 2, "both": 0.0}}}
    assert [(r["pairs"], r["n"], r["both right"]) for r in consistency_rows(metrics)] == [
        ("mirror", "3", "50.0%"),
        ("other view", "2", "0.0%"),
        ("mirror, same answer", "1", "100.0%"),
    ]
    assert [r["family"] for r in consistency_rows(metrics, "mirror")] == ["nearer"]
