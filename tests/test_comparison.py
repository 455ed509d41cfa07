"""Two runs side by side: what is paired, what is won and lost, and what the command line prints."""

from dataclasses import replace

import pytest
from hand_made import TUX, answered, draw_picture, frame_set, make_view
from tiny import prediction

from stkvlm_lib import __main__ as cli
from stkvlm_lib import runs
from stkvlm_lib.analysis.comparison import (
    Comparison,
    ComparisonError,
    Difference,
    changed,
    changed_gallery,
    compare,
    difference_chart,
    share,
)
from stkvlm_lib.analysis.intervals import Bootstrap
from stkvlm_lib.analysis.scored_run import ScoredRun, open_scored
from stkvlm_lib.config import ConfigError, ErrorConfig
from stkvlm_lib.evaluation.predictions import HEADLINE, write_answers
from stkvlm_lib.files import write_json

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


def compared(shared, resamples=100, seed=0):
    return compare(shared, Bootstrap([pair.ours for pair in shared.pairs], resamples, seed))


def test_questions_are_paired_and_won_and_lost_counted(ours, other):
    figures = compared(share(ours, reversed(other)), 200)
    assert (figures.n, figures.won, figures.lost) == (16, 5, 2)
    assert (figures.exact, figures.other_exact) == (10 / 16, 7 / 16)
    assert figures.difference == pytest.approx(3 / 16) and figures.clusters == "race"
    low, high = figures.families["ego"].difference_ci95
    assert figures.families["ego"] == Difference(
        n=8, exact=1.0, other_exact=0.5, difference=0.5, difference_ci95=(low, high), won=4, lost=0
    )
    assert 0 < low < 0.5 < high


def test_the_interval_is_paired(ours):
    """A run against itself differs by nothing at all, however uncertain either score is."""
    figures = compared(share(ours, ours), 200)
    assert figures.difference == 0 and figures.difference_ci95 == (0, 0)


def test_the_same_seed_gives_the_same_figures_and_turned_round_they_change_sign(ours, other):
    once, again, back = (compared(share(*pair), 200, seed=3) for pair in ((ours, other), (ours, other), (other, ours)))
    assert once == again and back.difference == -once.difference and back.won == once.lost


def test_what_is_not_shared_is_left_out_and_counted(ours, other):
    strange = [replace(other[0], answer="gnu"), *other[1:-3]]
    shared = share(ours, [*strange, prediction("z", question="more?")])
    assert (len(shared.pairs), shared.only_ours, shared.only_other, shared.other_truth) == (12, 3, 1, 1)
    text = compared(shared).words("A", "B")
    assert "Left out: 3 that only A answered, 1 that only B answered, 1 whose true answer differs" in text


@pytest.mark.parametrize(("n", "said"), [(3, "too few races to tell (3; "), (10, ", better.")])
def test_few_races_are_said_to_decide_nothing(n, said):
    """Each won question of three races would make the interval leave out zero."""
    ours, other = ([prediction(f"race{i}", "1", answer) for i in range(n)] for answer in ("1", "2"))
    figures = compare(share(ours, other), Bootstrap(ours, 100, 0))
    assert figures.difference_ci95[0] > 0 and said in figures.words()


@pytest.mark.parametrize("others", [[], [prediction("z", question="more?")]])
def test_runs_without_a_common_question_are_refused(ours, others):
    with pytest.raises(ComparisonError, match="share no question .* FRAMES_DIR or QA_FILE"):
        share(ours, others)


def test_the_same_questions_under_other_truths_are_refused(ours):
    with pytest.raises(ComparisonError, match="none has the same true answer"):
        share(ours, [replace(p, answer="other") for p in ours])


def test_changed_questions_come_by_family_in_turn_the_surest_first(ours, other):
    pairs = share(ours, other).pairs
    won = [(pair.ours.family, pair.ours.race) for pair in changed(pairs, 1)[:3]]
    assert won == [("ego", "h"), ("count", "a"), ("ego", "g")]
    unsure = share([replace(p, confidence=1 - p.confidence) for p in ours], other).pairs
    assert [pair.ours.race for pair in changed(unsure, -1)] == ["d", "c"], "as sure as the run that is right"


def write_run(folder, predictions):
    folder.mkdir(parents=True)
    write_answers(predictions, folder / HEADLINE)
    return folder


@pytest.fixture
def beside(ours, other, tmp_path, monkeypatch):
    """The folders of both runs, of which the other is known by its name, `old`."""
    monkeypatch.setattr(runs, "OUTPUTS", tmp_path)
    return write_run(tmp_path / "new", ours), write_run(tmp_path / "old", other)


def test_a_run_is_compared_only_with_one_that_is_named(beside):
    new, old = beside
    assert Comparison.measure(ScoredRun(new)) is None
    figures = Comparison.measure(ScoredRun(new, compare_run="old"))
    assert (figures.run, figures.won, figures.lost, figures.n) == ("old", 5, 2, 16)
    for step in ("05", "04"):
        write_json(new / "config.json", {step: {"COMPARE_RUN": "old"}})
        assert Comparison.measure(ScoredRun(new)).won == 5, "as the run was last compared, in older runs by notebook 04"
    assert Comparison.measure(ScoredRun(new, compare_run=str(old))).run == "old"


def test_a_run_that_is_not_there_stops_the_notebook_and_is_named_in_the_report(beside, tmp_path):
    new, _ = beside
    with pytest.raises(ConfigError, match="COMPARE_RUN.*absent"):
        open_scored(ErrorConfig(run_dir=str(new), compare_run="absent"))
    write_json(new / "metrics.json", {})
    run = ScoredRun(new, compare_run="absent")
    assert run.figures(Comparison) is None
    assert len(run.problems) == 1 and "no such run" in run.problems[0] and "absent" in run.problems[0]
    write_run(tmp_path / "strange", [prediction("z", question="more?")])
    run = ScoredRun(new, compare_run="strange")
    assert run.figures(Comparison) is None and "share no question" in run.problems[0]


def test_figures_are_those_of_the_runs_and_never_of_an_earlier_comparison(beside):
    new, _ = beside
    run = ScoredRun(new, compare_run="old")
    figures = Comparison.measure(run)
    written = figures.into_metrics()["comparison"]
    assert Comparison.from_json(written, "comparison") == figures and written["families"]["ego"]["won"] == 4
    assert Comparison.read({"comparison": written}) is None
    write_json(new / "metrics.json", {"comparison": written | {"won": 99, "run": "yet another"}})
    assert ScoredRun(new, compare_run="old").figures(Comparison) == figures


def test_the_section_tells_what_was_won_and_lost(beside):
    run = ScoredRun(beside[0], compare_run="old")
    run.frames = None
    figures = Comparison.measure(run)
    (beside[1] / HEADLINE).unlink()  # as the other run is read once
    section = figures.section(run)
    assert section.title == "Against old" and "5 questions are won, 2 lost" in section.text
    assert "too few races to tell" in section.text
    assert [shown.name for shown in section.figures] == ["score_comparison"], "no galleries without pictures"
    assert "all +18.8" in section.figures[0].alt
    won, lost = section.details
    assert (won.title, lost.title) == ("Questions won, as text", "Questions lost, as text")
    assert (len(won.rows), len(lost.rows)) == (5, 2)
    assert (won.rows[0]["this run"], won.rows[0]["other run"]) == ("tux", "gnu")
    assert [line["this run"] for line in lost.rows] == ["gnu", "gnu"]


def test_galleries_show_the_questions_on_their_pictures(tmp_path):
    """Each picture once, however many of its questions changed."""
    views = [draw_picture(make_view({"tux": TUX}, race=race, folder=tmp_path)) for race in ("r1", "r2")]
    right = [p for view in views for p in answered(view)]
    wrong = answered(views[0], {"ego": "gnu", "track": "mines"}) + answered(views[1], {"track": ""})
    pairs = changed(share(right, wrong).pairs, 1)
    chart = changed_gallery(pairs, frame_set(*views))
    assert len(pairs) == 3 and len(chart.axes) == 2
    texts = [text.get_text() for axes in chart.axes for text in axes.texts]
    texts += [axes.get_title() for axes in chart.axes] + [axes.get_xlabel() for axes in chart.axes]
    shown = "\n".join(texts)
    assert "this run: abyss" in shown and "other run: mines" in shown and "other run: (nothing)" in shown
    assert "No question of this kind" in changed_gallery([], frame_set(*views)).texts[0].get_text()


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
        (old / HEADLINE).unlink()
    assert cli.main(["compare", str(new), str(old)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and ("old" in error or "share no question" in error)


def test_the_figure_shows_every_family(ours, other):
    chart = difference_chart(compared(share(ours, other)))
    labels = [label.get_text() for label in chart.axes[0].get_yticklabels()]
    assert labels == ["all questions  (n = 16)", "ego  (n = 8)", "count  (n = 8)"]
    texts = [text.get_text() for text in chart.axes[0].texts]
    assert "5 / 2" in texts and "4 / 0" in texts


def test_rows_are_those_of_the_figures(ours, other):
    rows = compared(share(ours, other)).table().rows
    assert [row["family"] for row in rows] == ["all", "ego", "count"]
    assert (rows[1]["won"], rows[1]["lost"], rows[1]["this run"]) == ("4", "0", "100.0%")


def test_a_run_is_not_compared_with_itself(tmp_path, capsys):
    assert cli.main(["compare", str(tmp_path), f"{tmp_path}/."]) == 2
    assert "are the same run; name two" in capsys.readouterr().err
