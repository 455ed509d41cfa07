import numpy as np
import pytest
from hand_made import scored_run
from tiny import prediction as row

from stkvlm_lib.analysis.question_facts import Facts
from stkvlm_lib.analysis.slices import KINDS, SEEN, UNSEEN, Slice, Slices, family_rates, slice_chart


def slices(pairs):
    predictions, facts = zip(*pairs, strict=True)
    return Slices.measure(scored_run(predictions, facts=facts))


VARIED = [
    (row("a", prediction="1"), Facts(0, 2, size=30, visible=1.0, known=True)),
    (row("a", prediction="2"), Facts(0, 2, size=6, visible=0.3, known=False)),
    (row("b", prediction="1"), Facts(1, 9, size=5, visible=None, known=True)),
    (row("b", prediction="1"), Facts(1, 7)),
]


def test_slices_count_their_questions_in_the_order_of_what_they_measure():
    found = slices(VARIED).kinds
    assert {kind: list(rows) for kind, rows in found.items()} == {
        "size": ["5 to 6 px", "25 px or more"],
        "visible": ["under 40%", "95% to 100%"],
        "karts": ["2", "6 or more"],
        "line_up": [SEEN, UNSEEN],
        "view": ["0", "1"],
    }, "all on one track: no slices by track"
    assert found["size"]["5 to 6 px"].n == 2 and found["size"]["5 to 6 px"].exact == 0.5
    assert found["karts"]["6 or more"] == Slice(2, 1.0, None, expected=0.75)


def test_a_slice_of_fewer_than_three_races_has_no_interval():
    races = {"mines": "abc", "abyss": "de"}
    pairs = [(row(race, track=track), Facts(0, 2)) for track, named in races.items() for race in named]
    tracks = slices(pairs).kinds["track"]
    assert tracks["mines"].exact_ci95 == (0.438503, 1.0) and tracks["abyss"].exact_ci95 is None


def test_expected_is_what_the_families_alone_would_give():
    pairs = [(row("a", family="ego", answer="tux", prediction="tux"), Facts(0, 2)) for _ in range(3)]
    pairs += [(row("b", family="ego", answer="tux", prediction="gnu"), Facts(1, 2))]
    pairs += [(row("b", prediction="1"), Facts(1, 2)), (row("b", prediction="1"), Facts(1, 2))]
    view = slices(pairs).kinds["view"]["1"]
    assert view.expected == pytest.approx((0.75 + 1 + 1) / 3, abs=1e-6)
    assert view.exact == pytest.approx(2 / 3, abs=1e-6)


def test_rates_can_be_those_of_some_questions_alone():
    rows = [row(prediction="1"), row(prediction="2"), row(family="ego", answer="tux", prediction="tux")]
    assert family_rates(rows).tolist() == [0.5, 0.5, 1.0]
    among = family_rates(rows, np.array([True, False, False]))
    assert among[:2].tolist() == [1.0, 1.0] and np.isnan(among[2])


def test_nothing_to_cut_gives_nothing():
    assert slices([(row(), Facts(0, 1))]) is None
    assert Slices.measure(scored_run([row()], facts=[])) is None, "without its pictures a run has no slices"


def test_figures_are_written_by_kind_and_slice_and_read_back():
    figures = slices(VARIED)
    written = figures.into_metrics()
    assert written["slices"]["karts"]["6 or more"] == {"n": 2, "exact": 1.0, "expected": 0.75}
    assert Slices.read(written) == figures and Slices.read({}) is None


def test_the_section_has_a_panel_and_a_table_a_kind():
    figures = slices(VARIED)
    section = figures.section(scored_run([]))
    assert [t.title for t in section.details] == [f"{KINDS[kind].title}, as text" for kind in figures.kinds]
    (chart,) = section.figures
    assert chart.name == "score_slices"
    assert [axes.get_title(loc="left") or axes.get_title() for axes in chart.figure.axes] == [
        KINDS[kind].title for kind in figures.kinds
    ]
    sizes = section.details[0].rows
    assert sizes[0]["size of the kart asked for"] == "5 to 6 px" and sizes[0]["points"] == "-25.0"


def test_a_slice_that_no_other_can_be_compared_with_has_no_table():
    """That all line-ups are known is drawn; a table of one row says no more."""
    pairs = [(row("a"), Facts(0, 2, known=True)), (row("b", prediction="2"), Facts(1, 2, known=True))]
    figures = slices(pairs)
    assert list(figures.kinds) == ["line_up", "view"]
    assert [t.title for t in figures.section(scored_run([])).details] == [f"{KINDS['view'].title}, as text"]


def test_tracks_stand_last_the_best_first():
    pairs = [(row("a", track="abyss", prediction="2"), Facts(0, 2)), (row("b", track="mines"), Facts(0, 2))]
    chart = slice_chart(slices(pairs))
    labels = [label.get_text() for label in chart.axes[-1].get_yticklabels()]
    assert labels == ["mines  (n = 1)", "abyss  (n = 1)"]


def test_panels_share_one_scale_that_begins_under_all_that_is_shown():
    wide = {"karts": {"1": Slice(12, 0.6, (0.5, 0.7), 0.5)}, "track": {"abyss": Slice(1234, 0.2, (0.1, 0.3), 0.5)}}
    karts, tracks = slice_chart(Slices(wide)).axes
    assert karts.get_xlim() == tracks.get_xlim() == (0.0, 1.0)
    assert "abyss  (n = 1,234)" in [label.get_text() for label in tracks.get_yticklabels()]
    high = slice_chart(Slices({"view": {"0": Slice(9, 0.8, (0.7, 0.9), 0.8), "1": Slice(9, 0.85, (0.75, 0.95), 0.8)}}))
    assert high.axes[0].get_xlim()[0] == pytest.approx(0.6)
    (legend,) = high.legends
    assert "expected of its mix of families" in [text.get_text() for text in legend.get_texts()]
