import pytest
from hand_made import TUX, answered, frame_set, make_view, scored_run
from tiny import prediction as row

from stkvlm_lib.analysis.ceiling import Ceiling, Doubt, ceiling_chart, oracle_rates
from stkvlm_lib.analysis.question_facts import Facts

LARGE = {"tux": TUX, "gnu": (20, 10, 40, 25), "kiki": (100, 70, 120, 88)}
DOUBTFUL = {**LARGE, "puffy": (120, 10, 125, 30)}
"""puffy is 5 px wide: a pixel decides whether it counts."""


def ceiling(boxes, said=None):
    view = make_view(boxes)
    return Ceiling.measure(scored_run(answered(view, said), frames=frame_set(view)))


def test_what_a_pixel_decides_stands_beside_what_is_clear():
    count = ceiling(DOUBTFUL, {"count": "3"}).families["count"]
    assert count.pixel == Doubt(doubtful=1.0, reach=0.0, exact_doubtful=0.0)
    count = ceiling(LARGE, {"count": "4"}).families["count"]
    assert count.pixel == Doubt(doubtful=0.0, reach=1.0, exact_clear=0.0), "all clear ones right: all right"


def test_the_strict_rules_say_why_they_decline():
    strict = ceiling(DOUBTFUL).families["count"].strict
    assert strict.doubtful == 1.0 and strict.reasons == {"a kart that matters is barely visible": 1}
    assert ceiling(LARGE).strict.reasons == {}


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
    rows = found.families.values()
    assert found.n == sum(r.n for r in rows)
    assert found.oracle == pytest.approx(sum(r.n * r.oracle for r in rows) / found.n, abs=1e-5)


def test_without_a_known_family_there_is_nothing_to_say():
    assert Ceiling.measure(scored_run([row(family="other")], facts=[Facts(0, 1)])) is None
    assert Ceiling.measure(scored_run([row()], facts=[])) is None, "nor without the pictures"


def test_figures_are_written_without_what_is_not_there_and_read_back():
    figures = ceiling(LARGE, {"count": "4"})
    written = figures.into_metrics()
    assert written["ceiling"]["families"]["count"]["pixel"] == {"doubtful": 0.0, "reach": 1.0, "exact_clear": 0.0}
    assert Ceiling.read(written) == figures


def test_table_chart_and_reasons_show_all_families():
    figures = ceiling(DOUBTFUL)
    section = figures.section(scored_run([]))
    assert [line["family"] for line in section.table.rows] == ["all", *figures.families]
    labels = [label.get_text() for label in ceiling_chart(figures).axes[0].get_yticklabels()]
    assert labels[0] == f"all questions  (n = {figures.n})"
    assert labels[1:] == [f"{name}  (n = {row.n})" for name, row in figures.families.items()]
    (reasons,) = section.details
    asked = sum(int(line["questions"]) for line in reasons.rows)
    assert asked == round(figures.strict.doubtful * figures.n) > 0
    assert ceiling(LARGE).section(scored_run([])).details == []


def test_the_chart_says_how_much_is_in_doubt_and_what_the_marks_are():
    figures = ceiling(DOUBTFUL)
    chart = ceiling_chart(figures)
    said = [text.get_text() for text in chart.axes[0].texts]
    assert said[0] == f"{figures.pixel.doubtful:.0%} in doubt" and len(said) == len(figures.rows)
    told = [text.get_text() for text in chart.legends[0].get_texts()]
    assert told == [
        "now",
        "clear questions",
        "questions that a pixel decides",
        "oracle whose boxes are up to a pixel off",
    ]
