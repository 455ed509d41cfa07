"""Settings told apart: what is read, which is chosen, paired differences, tables, figures, page and CSV."""

import csv
import re
import shutil

import pytest
from tiny import prediction

from stkvlm_lib.batch import charts, tables
from stkvlm_lib.batch import page as pages
from stkvlm_lib.batch.differences import difference, paired_runs
from stkvlm_lib.batch.plan import BATCH_FILE, make_batch
from stkvlm_lib.batch.results import read_settings
from stkvlm_lib.batch.tables import compare_settings
from stkvlm_lib.config import ConfigError
from stkvlm_lib.evaluation.predictions import write_answers
from stkvlm_lib.files import read_json, write_json, write_jsonl
from stkvlm_lib.pipeline import step_configs
from stkvlm_lib.runs import recorded_parameters


def make_run(folder, *, seed=0, right=9, valid=0.5, races=12, seconds=60.0, **parameters):
    """A run on one question for each of `races` races, of which the first `right` are answered right."""
    configs = step_configs("smoke", parameters | {"SEED": seed})
    write_json(folder / "config.json", {step: recorded_parameters(config) for step, config in configs.items()})
    rows = [prediction(f"r{n:02}", "1", "1" if n < right else "2") for n in range(races)]
    write_answers(rows, folder / "predictions.jsonl")
    figures = {"n": races, "split": "test", "exact": right / races, "n_clusters": races, "clusters": "race"}
    costs = {"train_seconds": seconds, "peak_memory_mb": 1000.0, "adapter_mb": 1.0}
    write_json(folder / "metrics.json", figures | costs | {"families": {"count": {"n": races, "exact": right / races}}})
    write_json(folder / "training.json", {"valid_exact": valid})
    write_json(folder / "stamps" / "05.json", {})
    return folder


@pytest.fixture
def narrow_and_wide(tmp_path):
    """Two ranks on two seeds; the wide one is better on test, the narrow one on valid."""
    return [
        make_run(tmp_path / f"r{rank}s{seed}", seed=seed, right=right, valid=valid + seed / 100, LORA_RANK=rank)
        for rank, right, valid in ((4, 6, 0.7), (64, 10, 0.6))
        for seed in (0, 1)
    ]


def test_runs_are_grouped_by_all_parameters_but_the_seed_and_named_by_what_varies(narrow_and_wide):
    settings = read_settings(narrow_and_wide)
    assert [setting.name for setting in settings] == ["LORA_RANK 4", "LORA_RANK 64"]
    narrow = settings[0]
    assert [result.seed for result in narrow.scored] == [0, 1]
    assert narrow.mean("exact") == 0.5 and narrow.spread("exact") == 0
    assert narrow.mean("valid_exact") == pytest.approx(0.705)
    assert narrow.spread("valid_exact") == pytest.approx(0.01 / 2**0.5)


def test_valid_chooses_and_not_test(narrow_and_wide):
    settings = read_settings(narrow_and_wide)
    comparison = compare_settings(settings[::-1], "LORA_RANK 4", resamples=100)
    assert comparison.chosen.name == "LORA_RANK 4" and comparison.settings[0].name == "LORA_RANK 4"
    said = tables.headline(comparison)
    assert said.startswith("LORA_RANK 4 is best on the valid races: 70.5% ± 0.7 (mean of 2 seeds), +10.0 points to the")
    assert said.endswith("On test it has 50.0% ± 0.0 of 12 questions.") and said.count("test") == 1
    assert "83.3%" not in said


def test_of_equals_the_first_is_chosen_and_it_is_said(narrow_and_wide):
    for run in narrow_and_wide:
        write_json(run / "training.json", {"valid_exact": 0.7})
    comparison = compare_settings(read_settings(narrow_and_wide), resamples=100)
    assert comparison.chosen.name == "LORA_RANK 4" and ", the first of equals. On test" in tables.headline(comparison)


def test_without_valid_scores_nothing_is_chosen(narrow_and_wide):
    for run in narrow_and_wide:
        write_json(run / "training.json", {"valid_exact": None})
    comparison = compare_settings(read_settings(narrow_and_wide), resamples=100)
    assert comparison.chosen is None and "none is chosen" in tables.headline(comparison)


def test_differences_are_paired_by_question_and_seed_and_clustered_by_race(narrow_and_wide):
    narrow, wide = read_settings(narrow_and_wide)
    assert [(a.seed, b.seed) for a, b in paired_runs(wide, narrow)] == [(0, 0), (1, 1)]
    found = difference(wide, narrow, resamples=500, seed=0)
    assert found.n == 24 and found.n_clusters == 12, "two seeds of a race are one cluster"
    assert found.difference == pytest.approx(4 / 12, abs=1e-6) and (found.won, found.lost) == (8, 0)
    low, high = found.difference_ci95
    assert 0 < low < 4 / 12 < high
    once = difference(read_settings(narrow_and_wide[2:3])[0], narrow, resamples=500, seed=0)
    assert once.difference_ci95 == (low, high), "a second seed with the same answers makes nothing surer"


def test_without_a_common_seed_every_run_meets_every_other(tmp_path):
    ours = [make_run(tmp_path / f"a{seed}", seed=seed, LORA_RANK=4) for seed in (0, 1)]
    other = make_run(tmp_path / "b", seed=7, LORA_RANK=8)
    first, second = read_settings([*ours, other])
    assert len(paired_runs(first, second)) == 2


def test_few_races_decide_nothing(tmp_path):
    runs = [make_run(tmp_path / str(r), races=3, right=r, LORA_RANK=r) for r in (1, 3)]
    comparison = compare_settings(read_settings(runs), resamples=100)
    row = next(row for row in tables.setting_rows(comparison) if row["LORA_RANK"] == "3")
    assert row["verdict"] == "only 3 races"
    assert any(note.startswith("Only 3 races were scored") for note in tables.notes(comparison))
    assert any(note.startswith("One seed a setting") for note in tables.notes(comparison))


def test_a_seed_that_was_run_twice_counts_once_and_is_noted(tmp_path):
    runs = [make_run(tmp_path / str(n), seed=n // 2) for n in range(3)]
    comparison = compare_settings(read_settings(runs), resamples=100)
    assert tables.setting_rows(comparison)[0]["seeds"] == "2 of 2"
    assert tables.setting_records(comparison)[0]["seeds"] == 2
    assert any("has 3 runs of 2 seeds" in note for note in tables.notes(comparison))


def test_runs_of_other_code_are_noted(tmp_path):
    runs = [make_run(tmp_path / str(n), LORA_RANK=n) for n in (12, 24)]
    for run, commit in zip(runs, ("0a1", "0b2"), strict=True):
        write_json(run / "manifest.json", {"commit": commit})
    comparison = compare_settings(read_settings(runs), resamples=100)
    assert any("different states of the code (commits 0a1, 0b2)" in note for note in tables.notes(comparison))
    assert [row["commit"] for row in tables.run_records(comparison)] == ["0a1", "0b2"]


def test_runs_asked_other_questions_are_noted(tmp_path):
    runs = [make_run(tmp_path / str(n), races=n, LORA_RANK=n) for n in (12, 24)]
    told = tables.notes(compare_settings(read_settings(runs), resamples=100))
    assert any("not asked the same questions (12 of test, 24 of test)" in note for note in told)


def test_a_broken_run_is_listed_with_its_reason_and_the_others_are_compared(narrow_and_wide):
    (narrow_and_wide[0] / "metrics.json").write_text("{")
    (narrow_and_wide[3] / "predictions.jsonl").write_text("[]\n")
    comparison = compare_settings(read_settings(narrow_and_wide), resamples=100)
    missing = tables.missing_rows(comparison)
    assert [row["run"] for row in missing] == ["r4s0"] and "metrics.json: not readable" in missing[0]["why"]
    assert any(note.startswith("LORA_RANK 64: no paired difference") for note in tables.notes(comparison))


def test_nothing_but_unfinished_runs_is_refused(tmp_path):
    run = make_run(tmp_path / "a")
    (run / "stamps" / "05.json").unlink()
    with pytest.raises(ConfigError, match=r"no run has a score yet \(a: not finished\)"):
        read_settings([run])


def test_a_setting_to_compare_with_must_be_there(narrow_and_wide):
    with pytest.raises(ValueError, match="LORA_RANK 5: no such setting; there are LORA_RANK 4, LORA_RANK 64"):
        compare_settings(read_settings(narrow_and_wide), "LORA_RANK 5")


@pytest.fixture
def batch(tmp_path):
    """A batch of which one run has failed and one has not begun."""
    given = {"name": "sweep", "profile": "smoke", "grid": {"LORA_RANK": [4, 8]}, "seeds": [0, 1]}
    plan = make_batch(given, "here")
    folder = tmp_path / "sweep"
    write_json(folder / BATCH_FILE, plan.record())
    for run in plan.runs[:2]:
        make_run(folder / run.name, seed=run.seed, right=run.parameters["LORA_RANK"], **run.parameters | {"SEED": 0})
    (folder / plan.runs[2].name).mkdir()
    failed = {"state": "failed", "since": 1.0, "seconds": 9.0, "reason": "out of <b>paper</b>", "where": "here"}
    write_json(folder / "states" / f"{plan.runs[2].name}.json", failed)
    return folder


def test_a_batch_names_its_settings_and_lists_what_is_missing(batch):
    settings = read_settings([batch])
    assert [(s.name, len(s.scored), len(s.results)) for s in settings] == [("lora_rank-4", 1, 2), ("lora_rank-8", 1, 2)]
    missing = tables.missing_rows(compare_settings(settings, resamples=100))
    assert missing == [
        {"run": "lora_rank-4-s1", "why": "out of <b>paper</b>"}, {"run": "lora_rank-8-s1", "why": "not begun"}
    ]  # fmt: skip


def test_batches_and_runs_are_compared_with_each_other(batch, tmp_path):
    other = shutil.copytree(batch, tmp_path / "again")
    alone = make_run(tmp_path / "alone", LORA_RANK=32)
    names = [setting.name for setting in read_settings([batch, other, alone])]
    assert names[:4] == ["sweep/lora_rank-4", "sweep/lora_rank-8", "again/lora_rank-4", "again/lora_rank-8"]
    assert "LORA_RANK 32" in names[4]
    assert len(read_settings([batch, batch / "lora_rank-4-s0"])) == 2, "a run named twice counts once"


def written(batch):
    comparison = compare_settings(read_settings([batch]), resamples=100)
    path = pages.write_page(comparison, batch, title="Batch <sweep>", command="./run_all.sh batch 'x & y'")
    return path.read_text(encoding="utf-8")


def test_the_page_is_one_file_without_scripts_and_addresses_and_escapes_what_it_shows(batch):
    (batch / "lora_rank-4-s0" / "report.html").write_text("")
    html = written(batch)
    assert "<script" not in html and not re.search(r"(src|href)=.?(https?:)?//", html)
    assert "Batch &lt;sweep&gt;" in html and "out of &lt;b&gt;paper&lt;/b&gt;" in html and "x &amp; y" in html
    assert 'href="lora_rank-4-s0/report.html"' in html and html.count("data:image/svg+xml;base64,") == 2
    assert 'class="tag">chosen' in html and html.count('class="tag"') == 1
    assert html == written(batch), "the same runs give the same page"


def test_csv_holds_the_same_in_numbers(batch):
    written(batch)
    with (batch / "runs.csv").open() as file:
        runs = list(csv.DictReader(file))
    assert [(row["run"], row["state"], row["varied: LORA_RANK"]) for row in runs] == [
        ("lora_rank-4-s0", "done", "4"), ("lora_rank-4-s1", "out of <b>paper</b>", "4"),
        ("lora_rank-8-s0", "done", "8"), ("lora_rank-8-s1", "not begun", "8"),
    ]  # fmt: skip
    assert float(runs[0]["exact"]) == pytest.approx(4 / 12) and runs[1]["exact"] == ""
    with (batch / "settings.csv").open() as file:
        first, second = csv.DictReader(file)
    assert (first["chosen"], second["chosen"]) == ("True", "False")
    assert float(second["difference"]) == pytest.approx(4 / 12, abs=1e-6) and second["compared_with"] == "lora_rank-4"


def test_figures_name_every_setting_or_say_that_there_is_nothing(narrow_and_wide):
    settings = read_settings(narrow_and_wide)
    assert "No run has a log" in charts.learning_curves(settings).texts[0].get_text()
    for number, run in enumerate(narrow_and_wide):
        write_jsonl(run / "train_log.jsonl", [{"step": s, "loss": 1 / s, "learning_rate": 0} for s in (1, 2, 3)])
        with (run / "train_log.jsonl").open("a") as log:
            log.write(f'{{"step": 3, "valid_exact": 0.{number + 1}}}\n')
    settings = read_settings(narrow_and_wide)
    for chart in (charts.learning_curves(settings), charts.accuracy_against_cost(settings)):
        assert [text.get_text() for text in chart.legends[0].get_texts()] == ["LORA_RANK 4", "LORA_RANK 64"]
    valid = charts.learning_curves(settings).axes[1]
    assert [line.get_ydata()[0] for line in valid.lines if line.get_linewidth() == 2] == pytest.approx([0.15, 0.35])
    assert len(charts.accuracy_against_cost(settings).axes) == 3
    valid.set_ylim(0.93, 0.94)  # scores that lie near each other
    ticks = valid.yaxis.get_major_formatter().format_ticks(valid.get_yticks())
    assert len(set(ticks)) == len(ticks)


def test_forty_settings_have_forty_looks():
    looks = [tuple(charts.style(place).values()) for place in range(35)]
    assert len(set(looks)) == 35 and charts.style(99)["marker"] == "."


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_a_screen(batch, page, width):
    path = batch / "batch.html"
    written(batch)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("h1").inner_text() == "Batch <sweep>"
    images = page.evaluate("[...document.images].map(image => image.complete && image.naturalWidth > 0)")
    assert images == [True, True]


def test_tables_of_a_real_batch_are_read_from_the_runs_alone(batch):
    """batch.json may go: then names come from what varies."""
    (batch / BATCH_FILE).unlink()
    folders = [batch / "lora_rank-4-s0", batch / "lora_rank-8-s0"]
    assert [setting.name for setting in read_settings(folders)] == ["LORA_RANK 4", "LORA_RANK 8"]
    assert read_json(folders[0] / "config.json")["03"]["LORA_RANK"] == 4


def test_parameters_stand_behind_the_scores_where_many_vary(tmp_path):
    usual = {"LORA_RANK": 8, "EPOCHS": 2, "LORA_ALPHA": 8, "BATCH_SIZE": 4}
    runs = [make_run(tmp_path / "usual", **usual)]
    runs += [make_run(tmp_path / name, **usual | {name: 3}) for name in usual]
    for shown, in_front in ((runs[:2], True), (runs, False)):
        comparison = compare_settings(read_settings(shown), resamples=100)
        html = pages.html_page(comparison, tmp_path, title="t", command="c")
        assert (html.index(">LORA_RANK</th>") < html.index(">test</th>")) is in_front
        assert html.count('class="n same"') == (1 if in_front else 4 + 4 * 3), "unchanged ones are paler"
