import pytest
from hand_made import TUX, answered, frame_set, make_view
from tiny import prediction as row

from stkvlm_lib.config import ScoreConfig
from stkvlm_lib.scores.ceiling import oracle_rates, score_ceiling
from stkvlm_lib.scores.question_facts import read_facts

CONFIG = ScoreConfig(bootstrap=100)
LARGE = {"tux": TUX, "gnu": (20, 10, 40, 25), "kiki": (100, 70, 120, 88)}
DOUBTFUL = {**LARGE, "puffy": (120, 10, 125, 30)}
"""puffy is 5 px wide: a pixel decides whether it counts."""


def ceiling(boxes, said=None):
    view = make_view(boxes)
    rows, folder = answered(view, said), frame_set(view)
    return score_ceiling(rows, read_facts(rows, folder), folder, CONFIG)["ceiling"]


def test_what_a_pixel_decides_stands_beside_what_is_clear():
    count = ceiling(DOUBTFUL, {"count": "3"})["families"]["count"]
    assert count["pixel"] == {"doubtful": 1.0, "reach": 0.0, "exact_doubtful": 0.0}
    count = ceiling(LARGE, {"count": "4"})["families"]["count"]
    assert count["pixel"] == {"doubtful": 0.0, "reach": 1.0, "exact_clear": 0.0}, "all clear ones right: all right"


def test_the_strict_rules_say_why_they_decline():
    strict = ceiling(DOUBTFUL)["families"]["count"]["strict"]
    assert strict["doubtful"] == 1.0 and strict["reasons"] == {"a kart that matters is barely visible": 1}
    assert ceiling(LARGE)["strict"]["reasons"] == {}


def test_an_oracle_a_pixel_off_loses_only_what_hangs_on_pixels():
    view = make_view(DOUBTFUL)
    rows = answered(view)
    rates = dict(zip((p.question for p in rows), oracle_rates(rows, frame_set(view), 0).tolist(), strict=True))
    assert rates["What track is this?"] == 1 and rates["What kart is the ego car?"] == 1
    assert rates["Is gnu to the left or right of the ego car?"] == 1
    assert rates["How many karts are there in the scenario?"] < 1
    assert oracle_rates(rows, frame_set(view), 0).tolist() == list(rates.values()), "seeded"


def test_families_together_are_all():
    found = ceiling(DOUBTFUL, {"count": "3"})
    rows = found["families"].values()
    assert found["n"] == sum(r["n"] for r in rows)
    assert found["oracle"] == pytest.approx(sum(r["n"] * r["oracle"] for r in rows) / found["n"], abs=1e-5)


def test_without_a_known_family_there_is_nothing_to_say():
    assert score_ceiling([row(family="other")], [None], None, CONFIG) == {}
