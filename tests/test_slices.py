import numpy as np
import pytest
from tiny import prediction as row

from stkvlm_lib.scores.question_facts import Facts
from stkvlm_lib.scores.slices import SEEN, UNSEEN, family_rates, slice_scores


def scores(pairs):
    predictions, facts = zip(*pairs, strict=True)
    return slice_scores(predictions, facts, resamples=100, seed=0).get("slices", {})


def test_slices_count_their_questions_in_the_order_of_what_they_measure():
    pairs = [
        (row("a", prediction="1"), Facts(0, 2, size=30, visible=1.0, known=True)),
        (row("a", prediction="2"), Facts(0, 2, size=6, visible=0.3, known=False)),
        (row("b", prediction="1"), Facts(1, 9, size=5, visible=None, known=True)),
        (row("b", prediction="1"), Facts(1, 7)),
    ]
    found = scores(pairs)
    assert {kind: list(rows) for kind, rows in found.items()} == {
        "size": ["5 to 6 px", "25 px or more"],
        "visible": ["under 40%", "95% to 100%"],
        "karts": ["2", "6 or more"],
        "line_up": [SEEN, UNSEEN],
        "view": ["0", "1"],
    }, "all on one track: no slices by track"
    assert found["size"]["5 to 6 px"]["n"] == 2 and found["size"]["5 to 6 px"]["exact"] == 0.5
    assert found["karts"]["6 or more"] == {"n": 2, "exact": 1.0, "exact_ci95": [1.0, 1.0], "expected": 0.75}


def test_expected_is_what_the_families_alone_would_give():
    pairs = [(row("a", family="ego", answer="tux", prediction="tux"), Facts(0, 2)) for _ in range(3)]
    pairs += [(row("b", family="ego", answer="tux", prediction="gnu"), Facts(1, 2))]
    pairs += [(row("b", prediction="1"), Facts(1, 2)), (row("b", prediction="1"), Facts(1, 2))]
    view = scores(pairs)["view"]["1"]
    assert view["expected"] == pytest.approx((0.75 + 1 + 1) / 3, abs=1e-6)
    assert view["exact"] == pytest.approx(2 / 3, abs=1e-6)


def test_rates_can_be_those_of_some_questions_alone():
    rows = [row(prediction="1"), row(prediction="2"), row(family="ego", answer="tux", prediction="tux")]
    assert family_rates(rows).tolist() == [0.5, 0.5, 1.0]
    among = family_rates(rows, np.array([True, False, False]))
    assert among[:2].tolist() == [1.0, 1.0] and np.isnan(among[2])


def test_nothing_to_cut_gives_nothing():
    assert scores([(row(), Facts(0, 1))]) == {}
