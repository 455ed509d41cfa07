import json
from collections import Counter

import pytest
from tiny import copy_frames

from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.files import write_json
from stkvlm_lib.grammar.captions import CANDIDATES, Caption, captions
from stkvlm_lib.grammar.families import COURSE
from stkvlm_lib.grammar.questions import COURSE_FAMILIES, FAMILIES, answer, read_question
from stkvlm_lib.grammar.scene import STRICT_RULES, Reason, read_scene
from stkvlm_lib.parallel import Workers
from stkvlm_lib.qa import generate
from stkvlm_lib.qa.generate import Plan, frames_by_split, shown_split, write_qa_sets
from stkvlm_lib.qa.qa_sets import FILES, composition, course_records, read_records

QUIET = Workers(quiet=True)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_ten_forms_are_complete_in_the_courses_format(written, few, tmp_path):
    folder, tallies = written
    for split, frames in few.items():
        expected = [r for frame in frames for view in frame.views for r in course_records(view, split)]
        assert read_records(folder / f"{split}.jsonl") == expected
        items = [{"question": r.question, "answer": r.answer, "image_file": r.image_file} for r in expected]
        write_json(tmp_path / "expected.json", items)
        assert (folder / f"{split}_qa_pairs.json").read_bytes() == (tmp_path / "expected.json").read_bytes()
        assert tallies[split].course == composition(expected)


def test_the_extended_sets_are_strict_varied_and_balanced(written, bundled):
    folder, tallies = written
    for split, tally in tallies.items():
        records = read_records(folder / f"{split}_extended.jsonl")
        assert tally.extended == composition(records)
        assert {r.rules for r in records} == {STRICT_RULES.name}
        for record in records:
            scene = read_scene(bundled.by_image_file[record.image_file], rules=STRICT_RULES)
            assert answer(record.question, scene) == record.answer
            assert read_question(record.question)[:2] == (record.family, record.wording)
            assert record.wording or FAMILIES[record.family].group != COURSE, "files of the ten forms have the template"
        for family, counts in tally.extended.items():
            before = tally.candidates[family]
            assert len(before) == 1 or max(counts.values()) <= max(1, 0.5 * sum(counts.values()))
            assert all(n <= before[told] for told, n in counts.items())
    names = {family for tally in tallies.values() for family in tally.extended}
    assert names - COURSE_FAMILIES.keys() and tallies["train"].extended["in_view"].keys() == {"yes", "no"}


def test_what_is_declined_is_counted_by_reason(written):
    _, tallies = written
    for tally in tallies.values():
        for family, reasons in tally.declined.items():
            assert family in FAMILIES and set(reasons) <= set(map(str, Reason)) and all(reasons.values())
    assert tallies["train"].declined["nearest"]


def test_multiple_choice_has_five_candidates_one_of_them_true(written, few):
    folder, tallies = written
    items = json.loads((folder / "test_mc.json").read_text())
    assert len(items) == tallies["test"].choices > 50
    told = Counter()
    for item in items:
        assert set(item) == {"image_file", "candidates", "correct_index"}
        assert len(set(item["candidates"])) == CANDIDATES
        told[item["image_file"], item["candidates"][item["correct_index"]]] += 1
    expected = Counter(
        (view.image_file, caption.text)
        for frame in few["test"]
        for view in frame.views
        for caption in captions(read_scene(view))
        if isinstance(caption, Caption)
    )
    assert told == expected, "every caption by the course rule"
    assert {item["correct_index"] for item in items} == set(range(CANDIDATES))


def test_files_are_the_same_for_any_number_of_workers(written, few, tmp_path, monkeypatch):
    folder, tallies = written
    monkeypatch.setattr(generate, "FRAMES_A_CHUNK", 3)
    again = write_qa_sets(few, tmp_path, Plan(contrast_pictures=10), Workers(2, quiet=True))
    assert contents(tmp_path) == contents(folder)
    assert again == tallies


def test_another_seed_draws_other_wordings_and_leaves_the_ten_forms(written, few, tmp_path):
    folder, _ = written
    write_qa_sets({"test": few["test"]}, tmp_path, Plan(seed=1, contrast_pictures=10), QUIET)
    mine, theirs = contents(tmp_path), contents(folder)
    assert mine["test.jsonl"] == theirs["test.jsonl"] and mine["test_qa_pairs.json"] == theirs["test_qa_pairs.json"]
    assert mine["test_extended.jsonl"] != theirs["test_extended.jsonl"]


def test_files_of_other_data_are_removed_and_an_error_leaves_the_old_ones(few, tmp_path, monkeypatch):
    one = {split: frames[:1] for split, frames in few.items()}
    write_qa_sets(one, tmp_path, Plan(), QUIET)
    write_qa_sets({"test": one["test"]}, tmp_path, Plan(), QUIET)
    before = contents(tmp_path)
    assert set(before) == {name.format("test") for name in FILES}

    def fail(*_):
        raise RuntimeError("a worker fails")

    monkeypatch.setattr(generate, "make_chunk", fail)
    with pytest.raises(RuntimeError, match="a worker fails"):
        write_qa_sets({"test": few["test"]}, tmp_path, Plan(), QUIET)
    assert contents(tmp_path) == before


def test_a_split_without_frames_gives_empty_files(tmp_path):
    tallies = write_qa_sets({"test": ()}, tmp_path, Plan(), QUIET)
    assert tallies["test"].questions == 0
    assert json.loads((tmp_path / "test_qa_pairs.json").read_text()) == []
    assert (tmp_path / "test_extended.jsonl").read_text() == ""


def test_a_folder_without_split_folders_is_drawn_by_race_where_it_can_be(tmp_path):
    flat = read_frames(copy_frames(tmp_path / "one", "valid", 2, into=""))
    assert list(frames_by_split(flat, 0)) == ["all"]
    flat = read_frames(copy_frames(tmp_path / "many", "valid", 40, into=""))
    splits = frames_by_split(flat, 0)
    assert list(splits) == ["all", "train", "valid", "test"] and shown_split(splits) == "test"
    tallies = write_qa_sets(splits, tmp_path / "qa", Plan(), QUIET)
    parts = [read_records(tmp_path / "qa" / f"{split}.jsonl") for split in ("train", "valid", "test")]
    whole = read_records(tmp_path / "qa" / "all.jsonl")
    assert sorted((r.image_file, r.question) for part in parts for r in part) == sorted(
        (r.image_file, r.question) for r in whole
    )
    assert tallies["all"].pictures == sum(tallies[split].pictures for split in ("train", "valid", "test"))
