"""Which questions are asked: the scored ones, those beside them, and which wording each is asked in."""

import shutil
from collections import Counter
from dataclasses import replace

import pytest
from tiny import copy_frames

from stkvlm_lib.config import ScoreConfig
from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.evaluation.question_sets import (
    draw,
    extended_records,
    further_records,
    read_known,
    records_to_score,
    reworded,
    trained_wording,
    valid_records,
)
from stkvlm_lib.files import write_jsonl
from stkvlm_lib.grammar.questions import FAMILIES, read_question
from stkvlm_lib.qa.qa_sets import COURSE, CUSTOM_SPLIT, QaError, make_records, read_records


@pytest.fixture(scope="module")
def config(written, tmp_path_factory):
    """A run that has its questions, of which two a family are scored."""
    run = tmp_path_factory.mktemp("run")
    shutil.copytree(written[0], run / "qa")
    return ScoreConfig(run_dir=str(run), extended_scored=2)


@pytest.fixture(scope="module")
def records(written):
    return read_records(written[0] / "test_extended.jsonl")


@pytest.fixture
def small(tmp_path):
    """Two frames of valid and one of test, and a run without questions of its own."""
    return read_frames(copy_frames(copy_frames(tmp_path / "frames", "valid", 2), "test", 1))


@pytest.fixture
def bare(tmp_path):
    return ScoreConfig(run_dir=str(tmp_path / "run"), calibration_views=3)


def write_split(config, split, records):
    write_jsonl(config.run_path / "qa" / COURSE.format(split), map(vars, records))


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


def test_the_run_s_own_test_questions_are_scored_before_those_that_frames_give(small, bare):
    assert records_to_score(bare, small) == ("test", make_records(small, "test"))
    write_split(bare, "valid", make_records(small, "valid"))
    assert records_to_score(bare, small)[0] == "valid", "a run that has asked of valid alone is scored on it"
    write_split(bare, "test", make_records(small, "test")[:5])
    assert records_to_score(bare, small) == ("test", make_records(small, "test")[:5])


def test_a_folder_without_a_held_out_split_asks_for_questions(tmp_path, bare):
    folder = read_frames(copy_frames(tmp_path / "frames", "train", 1))
    with pytest.raises(QaError, match=r"no held-out split \(it has train\); name the questions in QA_FILE"):
        records_to_score(bare, folder)


def test_the_threshold_is_fitted_on_drawn_valid_pictures(small, bare):
    fitted = valid_records(bare, small, make_records(small, "test"))
    assert {r.split for r in fitted} == {"valid"} and len({r.image_file for r in fitted}) == 3
    assert fitted == valid_records(bare, small, make_records(small, "test"))
    every = valid_records(replace(bare, calibration_views=0), small, make_records(small, "test"))
    assert every == make_records(small, "valid") and len(every) > len(fitted)


def test_the_threshold_is_never_fitted_on_races_that_are_scored(small, bare):
    records = make_records(small, "valid")
    write_split(bare, "valid", records)
    assert valid_records(bare, small, records) == []
    one = {records[0].race}
    left = valid_records(replace(bare, calibration_views=0), small, [r for r in records if r.race in one])
    assert {r.race for r in left} == {r.race for r in records} - one


def test_extended_questions_are_asked_in_a_trained_and_in_the_held_out_wording(bundled, config, records):
    trained, held_out = extended_records(config, bundled, "test")
    told, again = ([(r.image_file, r.family, r.answer) for r in rows] for rows in (trained, held_out))
    assert told == again
    assert all(not a.held_out and b.held_out for a, b in zip(trained, held_out, strict=True))
    assert Counter(r.family for r in trained) == {
        name: min(2, n) for name, n in Counter(r.family for r in records).items()
    }


def test_further_splits_come_from_the_run_s_file_or_else_from_the_frames(bundled, config, bare):
    given = read_known(config.run_path / "qa" / "valid.jsonl", bundled)[:12]
    write_split(bare, "test_unseen", given)
    assert further_records(bare, bundled, "test_unseen", "test") == given, "wherever the folder has their pictures"
    (bare.run_path / "qa" / "test_unseen.jsonl").unlink()
    assert further_records(bare, bundled, "test_unseen", "test") == make_records(bundled, "test_unseen")
    assert further_records(bare, bundled, "test_unseen", "test_unseen") == []


def test_beside_questions_of_a_user_nothing_else_is_asked(bundled, small, config, bare):
    assert further_records(config, bundled, "test_unseen", CUSTOM_SPLIT) == []
    assert extended_records(config, bundled, CUSTOM_SPLIT) == ([], [])
    assert extended_records(bare, bundled, "test") == ([], []), "nor where the run has none"
    assert further_records(bare, small, "test_unseen", "test") == []


def test_records_about_other_pictures_are_refused(written, tmp_path):
    folder = read_frames(copy_frames(tmp_path, "test", 1))
    with pytest.raises(QaError, match=r"test\.jsonl: test/.* is not in .* run notebook 02"):
        read_known(written[0] / "test.jsonl", folder)
