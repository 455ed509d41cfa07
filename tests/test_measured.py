"""Figures write themselves as JSON and read themselves back; what does not fit is named with its place."""

import json
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from stkvlm_lib.analysis.measured import ByFamily, Interval, Measured
from stkvlm_lib.typed import TypedError


@dataclass(frozen=True)
class Part(Measured):
    n: int
    share: float
    ends: Interval | None = None


@dataclass(frozen=True)
class Whole(Part):
    """Everything that figures are made of."""

    KEY: ClassVar[str] = "whole"

    unit: str = "race"
    best: Part | None = None
    parts: dict[str, Part] = field(default_factory=dict)
    bins: list[Part] | None = None
    counts: dict[str, dict[str, int]] | None = None
    rows: list[dict[str, Any]] | None = None


@dataclass(frozen=True)
class Named(Measured):
    WHOLE: ClassVar[str] = "parts"

    parts: dict[str, Part]


@dataclass(frozen=True)
class Families(Part, ByFamily):
    families: dict[str, Part] | None = None


FULL = Whole(
    n=3,
    share=0.5,
    ends=(0.25, 1.0),
    unit="picture",
    best=Part(1, 1.0),
    parts={"ego": Part(1, 0.0, (0.0, 0.0)), "count": Part(2, 1.0)},
    bins=[Part(1, 0.5), Part(2, 0.25)],
    counts={"ego": {"tux": 3}},
    rows=[{"family": "ego", "questions": 3, "such as": None}],
)


def through_json(figures):
    return json.loads(json.dumps(figures.as_json(), allow_nan=False))


@pytest.mark.parametrize("figures", [FULL, Whole(1, 0.0), Whole(0, 1.0, parts={}, bins=[])])
def test_figures_come_back_as_they_were(figures):
    read = Whole.from_json(through_json(figures), "x")
    assert read == figures and type(read) is Whole


def test_what_is_written_is_plain_and_without_what_is_none():
    assert through_json(FULL)["parts"] == {"ego": {"n": 1, "share": 0.0, "ends": [0.0, 0.0]},
                                           "count": {"n": 2, "share": 1.0}}  # fmt: skip
    assert Whole(1, 0.5).as_json() == {"n": 1, "share": 0.5, "unit": "race", "parts": {}}
    assert "KEY" not in FULL.as_json()


def test_a_table_by_name_is_written_without_a_name_of_its_own():
    figures = Named({"ego": Part(1, 0.5)})
    assert figures.as_json() == {"ego": {"n": 1, "share": 0.5}}
    assert Named.from_json(through_json(figures), "x") == figures
    with pytest.raises(TypedError, match=r"x\.ego\.share: not there"):
        Named.from_json({"ego": {"n": 1}}, "x")
    with pytest.raises(TypedError, match=r"x: \[\] is not an object"):
        Named.from_json([], "x")


def test_strange_keys_are_passed_over_and_missing_ones_have_their_defaults():
    older = {"n": 1, "share": 0.5, "of_a_later_version": {"n": "?"}}
    assert Whole.from_json(older, "x") == Whole(1, 0.5)
    assert Whole.from_json(older | {"ends": None, "bins": None}, "x") == Whole(1, 0.5)


def test_a_whole_number_is_a_share_too_and_is_read_as_one():
    read = Whole.from_json({"n": 1, "share": 1, "ends": [0, 1]}, "x")
    assert type(read.share) is float and [type(end) for end in read.ends] == [float, float]


@pytest.mark.parametrize("missing", ["n", "share"])
def test_what_is_missing_is_named(missing):
    written = {name: value for name, value in FULL.as_json().items() if name != missing}
    with pytest.raises(TypedError, match=rf"^calibration\.{missing}: not there$"):
        Whole.from_json(written, "calibration")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n": 1.0}, "x.n: 1.0 is not a valid integer"),
        ({"n": True}, "x.n: True is not a valid integer"),
        ({"n": "3"}, "x.n: '3' is not a valid integer"),
        ({"n": None}, "x.n: None is not a valid integer"),
        ({"share": "0.5"}, "x.share: '0.5' is not a valid number"),
        ({"share": False}, "x.share: False is not a valid number"),
        ({"share": None}, "x.share: None is not a valid number"),
        ({"unit": 3}, "x.unit: 3 is not a valid string"),
        ({"ends": [0.5]}, "x.ends[1]: not there"),
        ({"ends": [0, 0.5, 1]}, "x.ends: [0, 0.5, 1]: Tuple should have at most 2 items after validation, not 3"),
        ({"ends": {"low": 0, "high": 1}}, "x.ends: {'low': 0, 'high': 1} is not a valid array"),
        ({"ends": [0, "1"]}, "x.ends[1]: '1' is not a valid number"),
        ({"best": 3}, "x.best: 3 is not an object"),
        ({"best": {"n": 1}}, "x.best.share: not there"),
        ({"parts": []}, "x.parts: [] is not an object"),
        ({"parts": {"ego": []}}, "x.parts.ego: [] is not an object"),
        ({"parts": {"ego": {"n": 1, "share": 1}, "count": {"n": 1}}}, "x.parts.count.share: not there"),
        ({"bins": {}}, "x.bins: {} is not a valid array"),
        ({"bins": [{"n": 1, "share": 1}, {"n": 1, "share": "?"}]}, "x.bins[1].share: '?' is not a valid number"),
        ({"rows": ["ego"]}, "x.rows[0]: 'ego' is not an object"),
        ({"counts": {"ego": {"tux": 0.5}}}, "x.counts.ego.tux: 0.5 is not a valid integer"),
        ({"unit": ["long " * 99]}, "x.unit: ['long long long long long long long lon is not a valid string"),
    ],
)
def test_what_is_of_another_kind_is_named_with_its_place(change, said):
    with pytest.raises(TypedError) as error:
        Whole.from_json(FULL.as_json() | change, "x")
    assert str(error.value) == said


@pytest.mark.parametrize("value", [None, [], "text", 3])
def test_what_is_no_object_at_all_is_named(value):
    with pytest.raises(TypedError, match="^calibration: .* is not an object$"):
        Whole.from_json(value, "calibration")


def test_families_follow_all_in_their_fixed_order():
    parts = {name: Part(n, 1.0) for n, name in enumerate(("other", "track", "ego"))}
    whole, alone = Families(3, 1.0, families=parts), Families(3, 1.0)
    assert whole.rows == [("all", whole), *((name, parts[name]) for name in ("ego", "track", "other"))]
    assert alone.rows == [("all", alone)]
