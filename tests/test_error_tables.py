import pytest

from stkvlm_lib.scores import error_tables
from stkvlm_lib.scores.causes import CAUSES

TABLES = ("reliability_rows", "selective_rows", "entailed_rows", "validity_rows", "budget_rows", "ceiling_rows")


def test_the_budget_ends_with_its_sum():
    causes = {
        "small": {"n": 1, "share": 0.25, "cost": 0.05, "touched": 10, "exact": 0.9, "expected": 0.95},
        "identity": {"n": 3, "share": 0.75, "cost": 0.15},
    }
    rows = error_tables.budget_rows({"error_budget": {"errors": 4, "n": 20, "causes": causes}})
    assert [(r["cause"], r["errors"], r["of errors"], r["of all"]) for r in rows] == [
        ("small", "1", "25.0%", "5.0%"),
        ("identity", "3", "75.0%", "15.0%"),
        ("all errors", "4", "100.0%", "20.0%"),
    ]
    assert rows[0]["what would lift it"] == CAUSES["small"].lift
    assert (rows[0]["right"], rows[0]["plain right"]) == ("90.0%", "95.0%")


def test_slices_say_how_far_they_are_from_their_families():
    row = {"n": 5, "exact": 0.6, "exact_ci95": [0.5, 0.7], "expected": 0.75}
    (found,) = error_tables.slice_rows({"slices": {"karts": {"2": row}}}, "karts")
    assert found["karts in view"] == "2" and found["points"] == "-15.0"


def test_the_threshold_stands_on_both_sets():
    fit = {"n": 30, "coverage": 0.6, "error": 0.05}
    chosen = {"threshold": 0.7, "coverage": 0.5, "error": 0.08, "n": 40, "fit": fit, "error_rate": 0.05}
    rows = error_tables.selective_rows({"split": "test", "calibration": {"selective": chosen}})
    assert [(r["answers"], r["n"], r["answered"], r["wrong"]) for r in rows] == [
        ("valid, where the threshold is fitted", "30", "60.0%", "5.0%"),
        ("test, scored", "40", "50.0%", "8.0%"),
    ]


def test_validity_closes_the_table_of_what_must_hold():
    metrics = {
        "entailed": {"left_and_right": {"n": 9, "agree": 0.5, "agree_ci95": [0.4, 0.6], "correct": 0.3}},
        "validity": {"n": 20, "valid": 0.95, "families": {"ego": {"n": 20, "valid": 0.95}}},
    }
    rows = error_tables.entailed_rows(metrics)
    assert [(r["must hold of the answers"], r["holds"]) for r in rows] == [
        ("left + right + 1 = total count", "50.0%"),
        ("the answer is one of the family's", "95.0%"),
    ]
    assert [r["family"] for r in error_tables.validity_rows(metrics)] == ["all", "ego"]


def test_doubt_and_its_reasons_stand_by_family():
    row = {"n": 8, "exact": 0.5, "oracle": 0.9, "pixel": {"doubtful": 0.25}, "strict": {"reasons": {"too close": 3}}}
    metrics = {"ceiling": {**row, "families": {"count": row}}}
    assert [(r["family"], r["pixel"], r["oracle"]) for r in error_tables.ceiling_rows(metrics)] == [
        ("all", "25.0%", "90.0%"),
        ("count", "25.0%", "90.0%"),
    ]
    assert [list(r.values()) for r in error_tables.reason_rows(metrics)] == [["too close", "3"]]


@pytest.mark.parametrize("broken", [None, 3, [], {}, {"causes": 1, "bins": 2, "families": 3, "selective": 4}])
def test_what_is_not_there_has_no_rows(broken):
    keys = ("slices", "calibration", "entailed", "validity", "error_budget", "ceiling")
    for metrics in ({}, dict.fromkeys(keys, broken)):
        for name in TABLES:
            assert getattr(error_tables, name)(metrics) == []
        assert error_tables.slice_rows(metrics, "karts") == error_tables.reason_rows(metrics) == []
