import json

import pytest

from stkvlm_lib.qa_sets import (
    QaError,
    check_no_leak,
    composition,
    draw_pictures,
    draw_training,
    read_course_qa,
    read_records,
    write_course_json,
    write_qa_sets,
    write_records,
)
from stkvlm_lib.questions import FAMILIES, ask_all
from stkvlm_lib.scene import mirror_box, read_scene


def test_records_are_complete_and_carry_their_origin(bundled, records):
    expected = sum(len(list(ask_all(read_scene(view)))) for view in bundled.views("valid"))
    assert len(records) == expected
    assert {r.family for r in records} == set(FAMILIES)
    assert {r.race for r in records} == {f.race for f in bundled.splits["valid"]}
    view = bundled.by_image_file[records[0].image_file]
    assert (records[0].frame, records[0].view, records[0].track) == (view.frame.frame_id, view.index, view.frame.track)


def test_the_course_format_has_three_keys_and_reads_back(tmp_path, bundled, records):
    write_course_json(records[:50], tmp_path / "valid_qa_pairs.json")
    items = json.loads((tmp_path / "valid_qa_pairs.json").read_text())
    assert all(set(item) == {"question", "answer", "image_file"} for item in items)
    read = read_course_qa(tmp_path / "valid_qa_pairs.json", bundled)
    assert [(r.question, r.answer, r.image_file, r.family) for r in read] == [
        (r.question, r.answer, r.image_file, r.family) for r in records[:50]
    ]
    assert {r.split for r in read} == {"custom"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", ["qa.json", "JSON"]),
        ("[]", ["qa.json", "an empty list"]),
        ("{}", ["qa.json", "not a list of questions"]),
        ('[{"question": "Q", "answer": "", "image_file": "x"}]', ["item 0", "answer"]),
        ('[{"question": "Q", "answer": true, "image_file": "x"}]', ["item 0", "answer"]),
        ('[{"question": "What track is this?", "answer": "abyss"}]', ["item 0", "image_file"]),
        ('[{"question": "What track is this?", "image_file": "valid/x.jpg"}]', ["item 0", "answer"]),
        ('[{"question": "Q", "answer": "a", "image_file": "valid/x.jpg"}]', ["item 0", "valid/x.jpg", "FRAMES_DIR"]),
    ],
)
def test_a_bad_question_file_is_named_with_its_item(tmp_path, bundled, content, words):
    path = tmp_path / "qa.json"
    path.write_text(content)
    with pytest.raises(ValueError) as error:
        read_course_qa(path, bundled)
    for word in words:
        assert word in str(error.value)


def test_unknown_wording_is_family_other_and_number_answers_become_text(tmp_path, bundled, records):
    path = tmp_path / "qa.json"
    path.write_text(json.dumps([{"question": "How fast?", "answer": 3, "image_file": records[0].image_file}]))
    (record,) = read_course_qa(path, bundled)
    assert (record.family, record.answer) == ("other", "3")


def test_files_of_other_data_are_removed(tmp_path, records):
    write_qa_sets({"valid": records, "test": records[:0]}, tmp_path)
    written = write_qa_sets({"valid": records[:3]}, tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(written)
    assert {file.name for file in written} == {"valid_qa_pairs.json", "valid.jsonl"}


def test_records_round_trip_and_foreign_rows_are_refused(tmp_path, records):
    write_records(records, tmp_path / "valid.jsonl")
    assert read_records(tmp_path / "valid.jsonl") == records
    (tmp_path / "bad.jsonl").write_text('{"question": "x"}\n')
    with pytest.raises(QaError, match=r"bad\.jsonl: line 1"):
        read_records(tmp_path / "bad.jsonl")


def test_a_race_in_two_splits_is_refused(records):
    check_no_leak({"valid": records})
    with pytest.raises(QaError, match="race"):
        check_no_leak({"train": records[-3:], "test": records[-1:]})


def test_composition_counts_every_record(records):
    table = composition(records)
    assert sum(sum(answers.values()) for answers in table.values()) == len(records)
    assert list(table["count"].values()) == sorted(table["count"].values(), reverse=True)


def test_draws_do_not_depend_on_the_order_of_records(bundled, records):
    settings = {"views": 20, "per_view": 4, "mirror": True, "seed": 3}
    drawn = draw_training(records, bundled, **settings)
    by_name = sorted(records, key=lambda r: r.image_file, reverse=True)
    shuffled = [r for name in dict.fromkeys(r.image_file for r in by_name) for r in records if r.image_file == name]
    assert draw_training(shuffled, bundled, **settings) == drawn
    assert draw_training(records, bundled, **{**settings, "seed": 4}) != drawn
    assert len(drawn) == 40 and max(len(p.questions) for p in drawn) == 4
    assert len(draw_pictures(records, 0, 0)) == len({r.image_file for r in records})


def test_mirrored_pictures_carry_the_answers_of_mirrored_boxes(bundled, records):
    drawn = draw_training(records, bundled, views=0, per_view=100, mirror=True, seed=0)
    mirrored = [p for p in drawn if p.mirrored]
    assert len(mirrored) == len(drawn) / 2
    for item in mirrored[:40]:
        scene = read_scene(bundled.by_image_file[item.image_file], mirror_box)
        assert list(zip(item.questions, item.answers, strict=True)) == [(q, a) for _, q, a in ask_all(scene)]
    plain = {p.image_file: dict(zip(p.questions, p.answers, strict=True)) for p in drawn if not p.mirrored}
    swapped = [
        (plain[p.image_file].get(q), a)
        for p in mirrored
        for q, a in zip(p.questions, p.answers, strict=True)
        if "left or right" in q
    ]
    assert sum({before, after} == {"left", "right"} for before, after in swapped) > 0.9 * len(swapped)
