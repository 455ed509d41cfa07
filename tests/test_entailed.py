import pytest
from hand_made import TUX, answered, make_view, scored_run
from tiny import prediction as row

from stkvlm_lib.analysis.entailed import SAYS, Entailed, Validity, make_checks, measure_validity

BOXES = {"tux": TUX, "gnu": (20, 10, 40, 25), "kiki": (100, 70, 120, 88)}
"""gnu front left, kiki back right: one on each side."""


def measured(rows):
    return Entailed.measure(scored_run(rows))


def agreeing(said, boxes=BOXES):
    """{kind: [whether its checks agree]}"""
    found = {}
    for check in make_checks(answered(make_view(boxes), said)):
        found.setdefault(check.kind, []).append(check.agrees)
    return found


def test_right_answers_agree_in_every_way():
    assert agreeing({}) == {
        "place": [True, True],
        **{kind: [True] for kind in ("left_and_right", "front_and_behind")},
        **{f"tally_{side}": [True] for side in ("left", "right", "front", "behind")},
    }


@pytest.mark.parametrize(
    ("said", "broken"),
    [
        ({("where", "gnu"): "back and left"}, {"place"}),
        ({"count": "4"}, {"left_and_right", "front_and_behind"}),
        ({"count_left": "2"}, {"left_and_right", "tally_left"}),
        ({"count": "many"}, {"left_and_right", "front_and_behind"}),
        ({("left_right", "gnu"): "right"}, {"place", "tally_left", "tally_right"}),
        ({"ego": "gnu", "track": "mines"}, set()),
    ],
)
def test_a_contradiction_breaks_the_checks_that_it_belongs_to(said, broken):
    assert {kind for kind, agrees in agreeing(said).items() if not all(agrees)} == broken


def test_wrong_answers_that_agree_are_told_from_right_ones():
    said = {("left_right", "gnu"): "right", ("where", "gnu"): "front and right"}
    place = measured(answered(make_view(BOXES), said)).kinds["place"]
    assert (place.n, place.agree, place.correct, place.agree_ci95[1]) == (2, 1.0, 0.5, 1.0)


def test_a_count_that_is_not_asked_is_zero():
    boxes = {"tux": TUX, "gnu": (20, 10, 40, 25)}
    assert agreeing({}, boxes)["left_and_right"] == [True]
    assert agreeing({"count_left": "2"}, boxes)["left_and_right"] == [False]
    assert "left_and_right" not in agreeing({}, {"tux": TUX}), "nothing is asked that could disagree"


def test_an_incomplete_file_is_no_contradiction():
    rows = [p for p in answered(make_view(BOXES)) if p.family not in ("count_right", "where")]
    rows = [p for p in rows if (p.family, p.question.split()[1]) != ("left_right", "gnu")]
    kinds = {check.kind for check in make_checks(rows)}
    assert kinds == {"front_and_behind", "tally_front", "tally_behind"}


def test_a_right_answer_is_none_outside_of_the_set():
    assert measure_validity([row(family="ego", prediction="my kart", answer="My kart", correct=True)]).valid == 1


def test_validity_is_the_share_inside_the_answer_set():
    rows = [row(prediction=" 3 "), row(prediction="left"), row(family="ego", answer="tux", prediction="TUX")]
    figures = measure_validity([*rows, row(family="other", prediction="?")])
    assert (figures.n, figures.families["count"]) == (3, Validity(2, 0.5))
    assert figures.valid == pytest.approx(2 / 3, abs=1e-6)


def test_both_parts_stand_by_themselves_and_are_left_out_where_there_is_nothing():
    figures = measured(answered(make_view(BOXES), {"count": "4"}))
    written = figures.into_metrics()
    assert set(written) == {"entailed", "validity"} and list(written["entailed"]) == list(SAYS)
    assert Entailed.read(written) == figures and Entailed.read({"n": 3}) is None
    (lone,) = answered(make_view({"tux": TUX}))[:1]
    alone = measured([lone])
    assert set(alone.into_metrics()) == {"validity"} and Entailed.read(alone.into_metrics()) == alone
    nothing = measured([row(family="other", prediction="?")])
    assert nothing.into_metrics() == {} and nothing.section(scored_run([])) is None


def test_the_table_tells_what_must_hold_and_last_which_answers_are_none():
    figures = measured(answered(make_view(BOXES), {"count": "many"}))
    section = figures.section(scored_run([]))
    said = [line["must hold of the answers"] for line in section.table.rows]
    assert said == [*SAYS.values(), "the answer is one of the family's"]
    (by_family,) = section.details
    shares = {line["family"]: line["valid"] for line in by_family.rows}
    assert shares["count"] == "0.0%" and shares["ego"] == "100.0%" and list(shares)[0] == "all"
