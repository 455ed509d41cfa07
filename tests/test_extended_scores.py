import json
import shutil
from dataclasses import replace

import pytest
from tiny import fresh, pictures
from tiny import prediction as row

from stkvlm_lib.config import ScoreConfig
from stkvlm_lib.grammar.families import COURSE
from stkvlm_lib.grammar.questions import FAMILIES, read_question
from stkvlm_lib.qa.qa_sets import CUSTOM_SPLIT, read_records
from stkvlm_lib.scores.extended_scores import (
    compare_wordings,
    draw,
    reworded,
    score_extended,
    score_further_splits,
    trained_wording,
)
from stkvlm_lib.scores.scoring import Blind, read_predictions
from stkvlm_lib.vlm.features import FeatureStore


@pytest.fixture(scope="module")
def store(base_folder, bundled):
    return FeatureStore(fresh(base_folder), bundled, 16)


@pytest.fixture(scope="module")
def blind(store):
    return Blind(store.answerer, pictures(1)[0])


@pytest.fixture(scope="module")
def config(written, tmp_path_factory):
    """A run that has its questions, of which two a family are scored."""
    run = tmp_path_factory.mktemp("run")
    shutil.copytree(written[0], run / "qa")
    return ScoreConfig(run_dir=str(run), extended_scored=2, bootstrap=100)


@pytest.fixture(scope="module")
def records(written):
    return read_records(written[0] / "test_extended.jsonl")


def test_the_draw_takes_so_many_of_each_family_and_the_same_from_any_order(records):
    config = ScoreConfig(extended_scored=3)
    drawn = draw(records, config)
    counts = {name: sum(r.family == name for r in drawn) for name in FAMILIES}
    assert counts == {name: min(3, sum(r.family == name for r in records)) for name in FAMILIES}
    assert draw(list(reversed(drawn)), ScoreConfig()) == list(reversed(drawn))
    assert sorted(map(str, draw(list(reversed(records)), config))) == sorted(map(str, drawn))
    assert draw(records, replace(config, seed=1)) != drawn
    assert draw(records, ScoreConfig(extended_scored=0)) == records


def test_a_question_keeps_its_meaning_in_another_wording(records):
    held_out = 0
    for record in records:
        last = reworded(record, FAMILIES[record.family].held_out)
        assert last.held_out and last.answer == record.answer
        family, wording, names = read_question(last.question)
        assert (family, wording, names) == (record.family, last.wording, read_question(record.question)[2])
        trained = reworded(record, trained_wording(record, 0))
        assert not trained.held_out and trained.question != last.question
        assert record.held_out or trained == record
        held_out += record.held_out
    assert 0 < held_out < len(records)


def test_extended_families_and_wordings_are_scored_by_themselves(store, blind, config):
    (config.run_path / "predictions.jsonl").write_text("the headline's\n")
    figures = score_extended(store, config, "test", blind)
    assert set(figures) == {"extended", "held_out_wordings"}
    assert (config.run_path / "predictions.jsonl").read_text() == "the headline's\n"
    trained = read_predictions(config.run_path / "predictions_extended.jsonl")
    held_out = read_predictions(config.run_path / "predictions_held_out_wordings.jsonl")
    assert [(p.image_file, p.family, p.answer) for p in trained] == [
        (p.image_file, p.family, p.answer) for p in held_out
    ]
    assert all(p.wording == FAMILIES[p.family].held_out != q.wording for p, q in zip(held_out, trained, strict=True))
    mine = [p for p in trained if FAMILIES[p.family].group != COURSE]
    extended, wordings = figures["extended"], figures["held_out_wordings"]
    assert extended["n"] == len(mine) and wordings["n"] == len(trained) > len(mine)
    assert set(extended["families"]) == {p.family for p in mine}
    assert {"exact", "exact_ci95", "majority", "blind", "macro_exact", "n_clusters"} <= set(extended)
    assert "base_exact" not in extended
    assert set(wordings["families"]) == {p.family for p in trained}


def test_wordings_are_compared_question_by_question():
    trained = [row("a", "1", "1"), row("a", "1", "2"), row("b", "1", "1"), row("b", "tux", "gnu", family="ego")]
    held_out = [row("a", "1", "1"), row("a", "1", "1"), row("b", "1", "3"), row("b", "tux", "Gnu ", family="ego")]
    figures = compare_wordings(trained, held_out, ScoreConfig(bootstrap=200))
    assert (figures["n"], figures["exact"], figures["trained_exact"]) == (4, 0.5, 0.5)
    assert figures["difference"] == 0 and figures["difference_ci95"] == [-0.5, 0.5]  # race b lost one, race a won one
    assert figures["same_answer"] == 0.5
    assert figures["families"]["ego"] == {
        "n": 1,
        "exact": 0,
        "exact_ci95": [0, 0],
        "trained_exact": 0,
        "difference": 0,
        "difference_ci95": [0, 0],
        "same_answer": 1,
    }


def test_a_run_without_such_questions_has_no_such_figures(store, tmp_path):
    config = ScoreConfig(run_dir=str(tmp_path))
    old = tmp_path / "predictions_extended.jsonl"
    old.write_text("of an earlier scoring\n")
    assert score_extended(store, config, "test", None) == {}
    assert not old.exists()
    assert score_further_splits(store, config, CUSTOM_SPLIT, None) == {}


def test_questions_of_a_user_are_scored_alone(store, config):
    for score in (score_extended, score_further_splits):
        assert score(store, config, CUSTOM_SPLIT, None) == {}


def test_unseen_line_ups_are_scored_by_themselves(store, blind, config):
    """From the run's file where there is one; its pictures lie wherever the folder has them."""
    lines = (config.run_path / "qa" / "valid.jsonl").read_text().splitlines()[:12]
    (config.run_path / "qa" / "test_unseen.jsonl").write_text("\n".join(lines) + "\n")
    figures = score_further_splits(store, config, "test", blind)
    rows = read_predictions(config.run_path / "predictions_test_unseen.jsonl")
    assert [p.question for p in rows] == [json.loads(line)["question"] for line in lines]
    assert set(figures) == {"other_splits"} and figures["other_splits"]["test_unseen"]["n"] == 12
    assert {"exact_ci95", "families", "blind"} <= set(figures["other_splits"]["test_unseen"])
    assert score_further_splits(store, config, "test_unseen", None) == {}
