"""Means and their intervals: clustered by race, seeded, and by family."""

import math

import numpy as np
import pytest
from tiny import prediction as row

from stkvlm_lib.analysis.intervals import Bootstrap, by_family, column, every, mean
from stkvlm_lib.grammar.questions import FAMILIES, OTHER
from stkvlm_lib.qa.label_check import wilson


def spread(rows):
    """Width of the interval of the share right."""
    low, high = Bootstrap(rows, 500, 0)(column(rows, "correct"))
    return high - low


def test_intervals_cluster_by_race_and_are_wider_for_it():
    rng = np.random.default_rng(0)
    clustered = [row(f"r{r}", prediction="1" if r % 2 else "2", picture=i) for r in range(10) for i in range(50)]
    apart = [row(f"r{i}", prediction=str(rng.integers(1, 3))) for i in range(500)]
    assert spread(clustered) > 3 * spread(apart)


def test_a_single_race_resamples_pictures_and_says_so():
    rows = [row("a", prediction="1" if i % 2 else "2", picture=i) for i in range(20)]
    interval_of = Bootstrap(rows, 300, 0)
    assert (interval_of.unit, interval_of.n) == ("picture", 20)
    low, high = interval_of(column(rows, "correct"))
    assert low < 0.5 < high
    two = Bootstrap([*rows, row("b")], 300, 0)
    assert (two.unit, two.n) == ("race", 2)


def test_the_ends_are_those_of_95_percent():
    """Of 400 races half are right: 1.96 standard errors of 1/40 to each side."""
    rows = [row(f"r{i}", prediction="1" if i % 2 else "2") for i in range(400)]
    low, high = Bootstrap(rows, 4000, 0)(column(rows, "correct"))
    assert (low, high) == pytest.approx((0.5 - 1.96 / 40, 0.5 + 1.96 / 40), abs=0.004), "of 90 %: 1.64"


def test_the_bootstrap_is_seeded():
    rows = [row(f"r{i}", prediction="1" if i % 3 else "2") for i in range(12)]
    values = column(rows, "correct")
    assert Bootstrap(rows, 200, 1)(values) == Bootstrap(rows, 200, 1)(values)
    assert Bootstrap(rows, 200, 1)._weights.sum(1).tolist() == [12] * 200


def test_an_interval_of_some_rows_is_that_of_these_and_leaves_out_draws_without_them():
    """Race a has both its answers right, race b its one wrong; family `ego` is in race a alone."""
    rows = [row("a"), row("a", "tux", "tux", "ego"), row("b", prediction="2")]
    interval_of, right = Bootstrap(rows, 300, 0), column(rows, "correct")
    assert interval_of(right) == (0, 1)
    some = [*rows, row("c", "tux", "gnu", "ego")]
    ego = np.array([p.family == "ego" for p in some])
    assert Bootstrap(some, 300, 0)(column(some, "correct"), ego) == (0, 1), "no draw of race b alone counts as zero"


@pytest.mark.parametrize(("races", "end"), [(3, 0.438503), (42, 0.916202)])
def test_where_all_or_nothing_is_right_the_interval_is_wilsons_over_the_races(races, end):
    """Whatever the number of questions: a bootstrap would promise 100 % of races that nobody has seen."""
    rows = [row(f"r{i % races}", picture=i) for i in range(10 * races)]
    interval_of, right = Bootstrap(rows, 100, 0), column(rows, "correct")
    assert interval_of(right) == (pytest.approx(end, abs=2e-6), 1)
    assert interval_of(1 - right) == (0, pytest.approx(1 - end, abs=2e-6))
    first = np.array([p.race == "r0" for p in rows])
    assert interval_of(right, first) == pytest.approx(wilson(1, 1), abs=1e-6), "of the races of these rows"


def test_where_every_race_has_the_same_mean_the_interval_is_wilsons_too():
    rows = [row(f"r{i // 2}", prediction=str(i % 2)) for i in range(20)]
    assert Bootstrap(rows, 100, 0)(column(rows, "correct")) == pytest.approx(wilson(5, 10), abs=1e-6)
    alone = [row("a", prediction="1" if i else "2") for i in range(4)]
    assert Bootstrap(alone, 100, 0)(column(alone, "correct")) == pytest.approx(wilson(0.75, 1), abs=1e-6)


def test_paired_differences_are_resampled_alone():
    """Between two runs that answer all alike there is none, however few the races."""
    rows = [row(f"r{i}") for i in range(10)]
    assert Bootstrap(rows, 100, 0)(np.zeros(10), paired=True) == (0, 0)
    assert Bootstrap(rows, 100, 0)(np.ones(10), paired=True) == (1, 1)


def test_ends_and_means_are_rounded_to_six_places():
    rows = [row(f"r{i}", prediction="1" if i % 3 else "2") for i in range(7)]
    for value in (mean([1, 0, 0]), *Bootstrap(rows, 100, 0)(column(rows, "correct"))):
        assert value == round(value, 6) and type(value) is float
    assert mean([1, 0, 0]) == 0.333333


def test_a_column_holds_truths_as_numbers_and_nan_where_nothing_was_asked():
    rows = [row(base_correct=True), row(base_correct=False), row()]
    first, second, third = column(rows, "base_correct")
    assert (first, second) == (1, 0) and math.isnan(third)
    assert every(rows).tolist() == [True] * 3


@pytest.mark.parametrize("others", [True, False])
def test_families_come_in_their_order_and_those_without_rows_not_at_all(others):
    rows = [row(family=OTHER), row(family="count"), row(family="ego"), row(family="count")]
    found = by_family(rows, lambda member: member.tolist(), others=others)
    ours = {"ego": [False, False, True, False], "count": [False, True, False, True]}
    assert found == (ours | {OTHER: [True, False, False, False]} if others else ours)
    assert list(found) == [name for name in (*FAMILIES, OTHER) if name in found]


def test_what_is_of_no_rows_or_not_known_of_all_is_none():
    rows = [row("a", base_correct=True), row("b"), row("c", base_correct=False)]
    interval_of, base = Bootstrap(rows, 100, 0), column(rows, "base_correct")
    known, nothing = ~np.isnan(base), np.zeros(3, bool)
    assert mean(base) is mean([]) is interval_of(base) is interval_of(base, nothing) is None
    assert mean(base[known]) == 0.5 and interval_of(base, known) == (0, 1)
    assert (interval_of.clusters(known), interval_of.clusters(nothing)) == (2, 0)
