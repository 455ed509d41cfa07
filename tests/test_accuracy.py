"""The headline: shares right over all and by family, beside majority, blind, base and closed sets."""

import json

import pytest
from hand_made import scored_run
from tiny import prediction as row

from stkvlm_lib.analysis.accuracy import Accuracy, accuracy_chart, score
from stkvlm_lib.analysis.intervals import Bootstrap
from stkvlm_lib.typed import TypedError

FOUR = [
    row("a", "1", "1", base_correct=False),
    row("a", "1", "2", base_correct=False),
    row("b", "2", "2", base_correct=False),
    row("b", "tux", "tux", "ego", base_correct=False),
]


def scores(rows, resamples=100):
    return score(rows, Bootstrap(rows, resamples, 0))


def test_score_counts_overall_macro_majority_and_gain():
    figures = scores(FOUR, 200)
    assert (figures.n, figures.exact) == (4, 0.75)
    assert figures.families["count"].exact == pytest.approx(2 / 3, abs=1e-6)
    assert figures.macro_exact == pytest.approx((2 / 3 + 1) / 2, abs=1e-6)
    assert figures.majority == 0.75  # "1" right twice of three, "tux" once of once
    assert figures.families["count"].majority == pytest.approx(2 / 3, abs=1e-6)
    assert figures.blind == 0.5
    assert figures.gain_over_base == 0.75 and figures.base_exact == 0
    assert figures.gain_over_blind == 0.25 and figures.gain_over_blind_ci95 == (-0.5, 1.0)
    assert (figures.clusters, figures.n_clusters) == ("race", 2)
    assert figures.exact_ci95 == (0.5, 1.0)  # race a alone scores 1/2, race b alone 1


def test_the_looser_match_is_counted_by_itself():
    figures = scores([row(prediction="12"), row("b", prediction="2")])
    assert (figures.exact, figures.prefix, figures.families["count"].prefix) == (0, 0.5, 0.5)


def test_unknown_wording_is_scored_as_a_family_of_its_own():
    figures = scores([row(), row("b", family="other", prediction="no")])
    assert figures.families["other"].exact == 0
    assert figures.macro_exact == 0.5


def test_a_single_race_resamples_pictures_and_says_so():
    rows = [row("a", prediction="1" if i % 2 else "2", picture=i) for i in range(20)]
    figures = scores(rows, 300)
    assert (figures.clusters, figures.races) == ("picture", " of one race")
    low, high = figures.exact_ci95
    assert low < 0.5 < high
    assert scores(FOUR).races == " of 2 races"


def test_figures_that_were_not_asked_for_are_left_out():
    written = scores([row(), row("b")]).as_json()
    assert not {"base_exact", "gain_over_base", "gain_over_base_ci95", "closed_exact"} & set(written)
    assert "gain_over_blind" in written and "base" not in written["families"]["count"]
    seeing = scores([row(blind_correct=None), row("b", blind_correct=None)]).as_json()
    assert not {"blind", "gain_over_blind"} & set(seeing) and "blind" not in seeing["families"]["count"]


def test_the_closed_score_stands_beside_the_written_one_and_covers_whole_families():
    known = {"closed_prediction": "1", "base_prediction": "x", "base_correct": False}
    rows = [row("a", "1", "2", closed_correct=True, **known), row("b", "2", "2", closed_correct=False, **known)]
    figures = scores(rows)
    assert (figures.exact, figures.closed_exact) == (0.5, 0.5)
    assert figures.families["count"].closed_exact == 0.5
    other = row("b", family="other", prediction="no", base_correct=False)
    figures = scores([*rows, other])
    assert figures.closed_exact is None and figures.families["other"].closed_exact is None
    assert figures.families["count"].closed_exact == 0.5 and figures.base_exact == 0


def test_the_headline_stands_at_the_top_of_metrics_and_is_read_back_from_among_other_figures():
    figures = Accuracy.measure(scored_run(FOUR))
    metrics = json.loads(json.dumps({"split": "test", "mc": {"n": 1}, **figures.into_metrics()}))
    assert metrics["n"] == 4 and metrics["families"]["ego"]["n"] == 1
    assert Accuracy.read(metrics) == figures
    assert Accuracy.read({"split": "test"}) is None
    with pytest.raises(TypedError, match=r"the headline\.families\.ego\.exact: not there"):
        del metrics["families"]["ego"]["exact"]
        Accuracy.read(metrics)


def test_the_section_shows_all_questions_first_and_tells_only_of_baselines_that_were_asked():
    run = scored_run(FOUR)
    section = Accuracy.measure(run).section(run)
    assert [line["family"] for line in section.table.rows] == ["all", "ego", "count"]
    assert (section.table.rows[0]["exact"], section.table.rows[0]["base"]) == ("75.0%", "0.0%")
    assert "closed" not in section.table.columns and "closed:" not in section.note and "base:" in section.note
    (chart,) = section.figures
    assert chart.name == "score_families" and "all 75.0%, ego 100.0%, count 66.7%" in chart.alt
    alone = scored_run([row(blind_correct=None)])
    section = Accuracy.measure(alone).section(alone)
    assert not {"blind", "base"} & set(section.table.columns) and "blind" not in section.note


def test_the_chart_has_a_row_a_family_and_the_baselines_that_are_there():
    chart = accuracy_chart(scores(FOUR))
    (axes,), (legend,) = chart.axes, chart.legends
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["all questions  (n = 4)", "ego  (n = 1)", "count  (n = 3)"]
    told = [text.get_text() for text in legend.get_texts()]
    assert told == ["with the adapter, 95% interval", "most frequent answer", "without seeing the picture",
                    "base without adapter"]  # fmt: skip
    assert "2 races" in axes.get_xlabel()


def test_figures_without_families_have_no_table():
    figures = Accuracy.read({"n": 4, "exact": 0.5})
    assert figures.table() is None and [name for name, _ in figures.rows] == ["all"]
    assert figures.races == ""
