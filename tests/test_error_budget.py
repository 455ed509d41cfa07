import pytest
from hand_made import KARTS, TUX, answered, frame_set, make_view, scored_run
from tiny import prediction as row

from stkvlm_lib.analysis.error_budget import (
    CAUSES,
    CauseCost,
    ErrorBudget,
    budget_chart,
    error_causes,
    question_property,
)
from stkvlm_lib.analysis.question_facts import Facts, read_facts

GNU, KIKI = (20, 10, 40, 25), (100, 70, 120, 88)
PLAIN = {"tux": TUX, "gnu": GNU, "kiki": KIKI}
"""gnu front left, kiki back right, both large and far from level."""


def budget(rows, facts):
    return ErrorBudget.measure(scored_run(rows, facts=facts))


def causes(boxes, said, *, train=KARTS, **measured):
    """{(family, kart) or family: cause} of the wrong answers."""
    view = make_view(boxes, **measured)
    rows = answered(view, said)
    found = error_causes(rows, read_facts(rows, frame_set(view, train=train)))
    wanted = {key if isinstance(key, tuple) else (key,): key for key in said}
    out = {}
    for p, cause in zip(rows, found, strict=True):
        assert (cause is None) == p.correct
        names = tuple(kart for kart in KARTS if f" {kart} " in f" {p.question} ")
        if cause:
            out[wanted.get((p.family, *names), wanted.get((p.family,)))] = cause
    return out


def test_answers_that_are_none_and_wrong_tracks_come_first():
    said = {"count": "left", "track": "mines", "ego": "the red one"}
    assert causes({"tux": TUX}, said) == {"count": "no answer", "track": "track", "ego": "no answer"}
    other = row(family="other", question="Who leads?", answer="a", prediction="b")
    assert error_causes([other], [Facts(0, 1)]) == ["unknown question"]


def test_a_property_of_the_question_comes_before_what_the_answers_tell():
    wrong = {("left_right", "gnu"): "right"}
    assert causes({**PLAIN, "gnu": (69, 10, 83, 25)}, {("left_right", "gnu"): "left"}) == {
        ("left_right", "gnu"): "pixel"
    }
    assert causes({**PLAIN, "gnu": (20, 10, 40, 16)}, wrong) == {("left_right", "gnu"): "small"}
    assert causes(PLAIN, wrong, gnu=(0.2, 900, 9.0)) == {("left_right", "gnu"): "hidden"}
    assert causes({**PLAIN, "gnu": (62, 10, 84, 25)}, wrong) == {("left_right", "gnu"): "near level"}
    assert causes(PLAIN, wrong, train=("tux", "kiki")) == {("left_right", "gnu"): "unseen line-up"}
    assert causes(PLAIN, {"ego": "gnu"}, train=("gnu",)) == {"ego": "unseen line-up"}


def test_a_count_is_laid_to_hard_karts_only_as_far_as_they_explain_it():
    boxes = {**PLAIN, "puffy": (120, 30, 126, 40)}  # 6 px
    assert causes(boxes, {"count": "3"}) == {"count": "small"}
    assert causes(boxes, {"count": "1"}) == {"count": "counting"}
    assert causes(PLAIN, {"count": "4"}) == {"count": "counting"}


def test_a_place_where_another_kart_is_tells_that_it_was_taken_for_it():
    taken = {("left_right", "gnu"): "right", ("front_back", "gnu"): "back", ("where", "gnu"): "back and right"}
    assert set(causes(PLAIN, taken).values()) == {"identity"}
    torn = {("left_right", "gnu"): "right", ("where", "gnu"): "back and left"}
    assert set(causes(PLAIN, torn).values()) == {"relation"}, "its answers are true of no kart together"
    nobody = {("where", "gnu"): "front and right", ("left_right", "gnu"): "right"}
    assert set(causes(PLAIN, nobody).values()) == {"relation"}, "nobody is in front on the right"
    assert causes(PLAIN, {"ego": "kiki"}) == {"ego": "identity"}
    swapped = {"ego": "gnu", ("front_back", "gnu"): "back"}
    assert set(causes(PLAIN, swapped).values()) == {"identity"}, "gnu was taken for the ego kart"


def test_a_relative_count_follows_from_the_places_or_is_miscounted():
    boxes = {**PLAIN, "puffy": (20, 70, 40, 88)}
    said = {
        "count_left": "1",
        "count_right": "2",
        ("left_right", "puffy"): "right",
        ("where", "puffy"): "back and right",
    }
    found = causes(boxes, said)
    assert (found["count_left"], found["count_right"]) == ("relation", "relation")
    assert causes(boxes, {"count_left": "1"}) == {"count_left": "counting"}


def test_the_budget_sums_to_all_errors_and_measures_what_a_property_costs():
    view = make_view({**PLAIN, "puffy": (120, 30, 126, 40)})
    said = {
        ("left_right", "puffy"): "left",
        ("left_right", "gnu"): "right",
        "ego": "gnu",
        "count": "4",
        "track": "mines",
    }
    rows = answered(view, said)
    figures = budget(rows, read_facts(rows, frame_set(view)))
    wrong = sum(not p.correct for p in rows)
    assert figures.errors == wrong == sum(cause.n for cause in figures.causes.values())
    assert sum(cause.share for cause in figures.causes.values()) == 1
    assert figures.n == len(rows) and set(figures.causes) <= set(CAUSES)
    assert sum(sum(cause.families.values()) for cause in figures.causes.values()) == wrong
    small = figures.causes["small"]
    assert small.touched == sum(question_property(f) == "small" for f in read_facts(rows, frame_set(view)))
    assert small.touched > small.n and 0 < small.exact < 1
    assert ErrorBudget.read(figures.into_metrics()) == figures

    section = figures.section(scored_run([]))
    assert [line["cause"] for line in section.table.rows] == [*figures.causes, "all errors"]
    assert section.table.rows[-1]["errors"] == str(wrong) and section.table.rows[-1]["of errors"] == "100.0%"
    names = [name for name, cause in figures.causes.items() if cause.n]
    labels = [label.get_text().replace("\n", " ") for label in budget_chart(figures).axes[0].get_yticklabels()]
    assert labels == [f"{name}: {CAUSES[name].what}" for name in names]


def test_expected_is_that_of_plain_questions_of_the_same_families():
    rows = [row(prediction="1"), row(prediction="2"), row(prediction="2"), row(prediction="1")]
    facts = [Facts(0, 1), Facts(0, 1), Facts(0, 1, small=1, hard=1), Facts(0, 1, small=1, hard=1)]
    small = budget(rows, facts).causes["small"]
    assert (small.touched, small.exact, small.expected) == (2, 0.5, 0.5)
    small = budget(rows[2:], facts[2:]).causes["small"]
    assert small.expected is None, "there are no plain ones to compare with"


def test_no_error_has_no_cause():
    figures = budget([row()], [Facts(0, 1)])
    assert figures.into_metrics() == {"error_budget": {"errors": 0, "n": 1, "causes": {}}}
    assert "no answer is wrong" in budget_chart(figures).texts[0].get_text()
    assert budget([row()], []) is None, "without the pictures there is nothing to tell causes by"


def test_every_cause_says_what_would_lift_it():
    for cause in CAUSES.values():
        assert cause.what and cause.lift.endswith(".")


def test_the_bars_of_the_budget_are_as_long_as_their_cost():
    causes = {
        "pixel": CauseCost(10, 0.25, 0.1, families={"count": 6, "ego": 4}),
        "small": CauseCost(0, 0.0, 0.0, touched=9, exact=1.0, expected=0.95),
        "identity": CauseCost(30, 0.75, 0.3, families={"ego": 20, "nearest": 10}),
    }
    figures = ErrorBudget(40, 100, causes)
    chart = budget_chart(figures)
    (axes,) = chart.axes
    lengths = {}
    for bar in axes.patches:
        lengths[round(bar.get_y() + bar.get_height() / 2)] = bar.get_x() + bar.get_width()
    assert lengths == {0: pytest.approx(0.1), 1: pytest.approx(0.3)}, "a cause without errors has no bar"
    assert "30 (75% of all errors)" in "".join(text.get_text() for text in axes.texts)
    assert "together 40.0%, 40" in axes.get_xlabel()
    assert [text.get_text() for text in chart.legends[0].get_texts()] == ["ego kart", "total count", "other"]
    small = figures.table().rows[1]
    assert (small["asked"], small["right"], small["plain right"]) == ("9", "100.0%", "95.0%")
    assert small["what would lift it"] == CAUSES["small"].lift
