"""Two runs side by side: what is paired, what is won and lost, and what the command line prints."""

from dataclasses import replace

import pytest
from tiny import prediction

from stkvlm_lib import __main__ as cli
from stkvlm_lib import runs
from stkvlm_lib.config import ConfigError, ScoreConfig
from stkvlm_lib.figures.comparison_plots import difference_by_family
from stkvlm_lib.files import read_jsonl
from stkvlm_lib.scores.comparison import ComparisonError, changed, compare, compare_run, share
from stkvlm_lib.scores.score_tables import comparison_rows, comparison_text
from stkvlm_lib.scores.scoring import write_predictions

RACES = "abcdefgh"


def answers(right):
    """Two families about a picture of each race; right: (race, family) -> whether the answer is right."""
    return [
        prediction(
            race, "tux", "tux" if right(race, family) else "gnu", family, question=f"{family}?", confidence=0.1 * place
        )
        for place, race in enumerate(RACES, start=1)
        for family in ("ego", "count")
    ]


@pytest.fixture
def ours():
    """Right about every ego kart and two counts."""
    return answers(lambda race, family: family == "ego" or race in "ab")


@pytest.fixture
def other():
    """Right about half of the ego karts and three counts."""
    return answers(lambda race, family: race in ("abcd" if family == "ego" else "bcd"))


def test_questions_are_paired_and_won_and_lost_counted(ours, other):
    figures = compare(share(ours, reversed(other)), resamples=200, seed=0)
    assert (figures["n"], figures["won"], figures["lost"]) == (16, 5, 2)
    assert (figures["exact"], figures["other_exact"]) == (10 / 16, 7 / 16)
    assert figures["difference"] == pytest.approx(3 / 16) and figures["clusters"] == "race"
    assert figures["families"]["ego"] | {"difference_ci95": None} == {
        "n": 8, "exact": 1.0, "other_exact": 0.5, "difference": 0.5, "difference_ci95": None, "won": 4, "lost": 0
    }  # fmt: skip
    low, high = figures["families"]["ego"]["difference_ci95"]
    assert 0 < low < 0.5 < high


def test_the_interval_is_paired(ours):
    """A run against itself differs by nothing at all, however uncertain either score is."""
    figures = compare(share(ours, ours), resamples=200, seed=0)
    assert figures["difference"] == 0 and figures["difference_ci95"] == [0, 0]


def test_the_same_seed_gives_the_same_figures_and_turned_round_they_change_sign(ours, other):
    once, again, back = (
        compare(share(*pair), resamples=200, seed=3) for pair in ((ours, other), (ours, other), (other, ours))
    )
    assert once == again and back["difference"] == -once["difference"] and back["won"] == once["lost"]


def test_what_is_not_shared_is_left_out_and_counted(ours, other):
    strange = [replace(other[0], answer="gnu"), *other[1:-3]]
    shared = share(ours, [*strange, prediction("z", question="more?")])
    assert (len(shared.pairs), shared.only_ours, shared.only_other, shared.other_truth) == (12, 3, 1, 1)
    text = comparison_text(compare(shared, resamples=100, seed=0), "A", "B")
    assert "Left out: 3 that only A answered, 1 that only B answered, 1 whose true answer differs" in text


@pytest.mark.parametrize(("n", "said"), [(3, "too few races to tell (3; "), (10, ", better.")])
def test_few_races_are_said_to_decide_nothing(n, said):
    """Each won question of three races would make the interval leave out zero."""
    ours, other = ([prediction(f"race{i}", "1", answer) for i in range(n)] for answer in ("1", "2"))
    figures = compare(share(ours, other), resamples=100, seed=0)
    assert figures["difference_ci95"][0] > 0 and said in comparison_text(figures)


@pytest.mark.parametrize("others", [[], [prediction("z", question="more?")]])
def test_runs_without_a_common_question_are_refused(ours, others):
    with pytest.raises(ComparisonError, match="share no question .* FRAMES_DIR or QA_FILE"):
        share(ours, others)


def test_the_same_questions_under_other_truths_are_refused(ours):
    with pytest.raises(ComparisonError, match="none has the same true answer"):
        share(ours, [replace(p, answer="other") for p in ours])


def test_changed_questions_come_by_family_in_turn_the_surest_first(ours, other):
    pairs = share(ours, other).pairs
    won = [(pair.ours.family, pair.ours.race) for pair in changed(pairs, 1, 3)]
    assert won == [("ego", "h"), ("count", "a"), ("ego", "g")]
    assert {pair.ours.race for pair in changed(pairs, -1, 9)} == {"c", "d"}


def write_run(folder, predictions):
    folder.mkdir(parents=True)
    write_predictions(predictions, folder / "predictions.jsonl")
    return folder


def test_the_notebook_compares_only_where_a_run_is_named(ours, other, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "OUTPUTS", tmp_path)
    write_run(tmp_path / "old", other)
    here = tmp_path / "new"
    assert compare_run(ours, ScoreConfig(run_dir=str(here))) == ({}, [])
    figures, pairs = compare_run(ours, ScoreConfig(run_dir=str(here), compare_run="old", bootstrap=100))
    assert figures["comparison"]["run"] == "old" and figures["comparison"]["won"] == 5 and len(pairs) == 16
    rows = read_jsonl(here / "comparison.jsonl")
    assert [row["change"] for row in rows] == ["won"] * 5 + ["lost"] * 2
    assert (rows[0]["prediction"], rows[0]["other_prediction"]) == ("tux", "gnu")
    with pytest.raises(ConfigError, match="COMPARE_RUN.*absent"):
        compare_run(ours, ScoreConfig(run_dir=str(here), compare_run="absent"))
    assert compare_run(ours, ScoreConfig(run_dir=str(here)))[0] == {} and not (here / "comparison.jsonl").exists()


def test_the_command_prints_the_table(ours, other, tmp_path, capsys):
    new, old = write_run(tmp_path / "new", ours), write_run(tmp_path / "old", other)
    assert cli.main(["compare", str(new), str(old), "--bootstrap", "100"]) == 0
    shown = capsys.readouterr().out
    assert "new is right in 62.5% and old in 43.8%: +18.8 points" in shown
    assert "| family | n | new | old | difference, points | 95% interval | won | lost |" in shown
    assert "| ego | 8 | 100.0% | 50.0% | +50.0 |" in shown


@pytest.mark.parametrize("missing", ["folder", "predictions", "questions"])
def test_what_cannot_be_compared_is_one_line_and_status_2(ours, tmp_path, capsys, missing):
    new, old = write_run(tmp_path / "new", ours), tmp_path / "old"
    if missing != "folder":
        write_run(old, [])
    if missing == "predictions":
        (old / "predictions.jsonl").unlink()
    assert cli.main(["compare", str(new), str(old)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and ("old" in error or "share no question" in error)


def test_the_figure_shows_every_family_or_says_that_there_is_nothing(ours, other):
    chart = difference_by_family(compare(share(ours, other), resamples=100, seed=0))
    labels = [label.get_text() for label in chart.axes[0].get_yticklabels()]
    assert labels == ["all questions  (n = 16)", "ego  (n = 8)", "count  (n = 8)"]
    texts = [text.get_text() for text in chart.axes[0].texts]
    assert "5 / 2" in texts and "4 / 0" in texts
    assert "COMPARE_RUN" in difference_by_family(None).texts[0].get_text()


def test_rows_are_those_of_the_figures(ours, other):
    rows = comparison_rows(compare(share(ours, other), resamples=100, seed=0))
    assert [row["family"] for row in rows] == ["all", "ego", "count"]
    assert (rows[1]["won"], rows[1]["lost"], rows[1]["this run"]) == ("4", "0", "100.0%")
    assert comparison_rows(None) == []


def test_a_run_is_not_compared_with_itself(tmp_path, capsys):
    assert cli.main(["compare", str(tmp_path), f"{tmp_path}/."]) == 2
    assert "are the same run; name two" in capsys.readouterr().err
