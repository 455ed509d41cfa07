import json

import pytest

from stkvlm_lib.files import write_json, write_jsonl
from stkvlm_lib.grammar.questions import COURSE_FAMILIES, FAMILIES, ask_all
from stkvlm_lib.grammar.scene import read_scene
from stkvlm_lib.qa.qa_sets import (
    QaError,
    Record,
    composition,
    course_item,
    question_files,
    read_course_qa,
    read_records,
)


def test_records_are_complete_and_carry_their_origin(bundled, records):
    expected = sum(len(list(ask_all(read_scene(view)))) for view in bundled.views("valid"))
    assert len(records) == expected
    assert {r.family for r in records} == set(COURSE_FAMILIES)
    assert {r.race for r in records} == {f.race for f in bundled.splits["valid"]}
    assert {(r.rules, r.wording, r.held_out) for r in records} == {("course", 0, False)}
    view = bundled.by_image_file[records[0].image_file]
    assert (records[0].frame, records[0].view, records[0].track) == (view.frame.frame_id, view.index, view.frame.track)


def test_a_record_knows_whether_its_wording_is_held_out():
    place = ("train", "race", "0", 0, "abyss", "strict")
    last = FAMILIES["count"].held_out
    assert Record("a.jpg", "q", "1", "count", *place, wording=last).held_out
    assert not Record("a.jpg", "q", "1", "count", *place, wording=last - 1).held_out
    assert not Record("a.jpg", "q", "1", "other", *place, wording=last).held_out


def test_the_course_format_has_three_keys_and_reads_back(tmp_path, bundled, records):
    write_json(tmp_path / "valid_qa_pairs.json", [course_item(record) for record in records[:50]])
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


COUNT = "How many karts are there in the scenario?"


def given(path, items, bundled):
    path.write_text(json.dumps(items))
    return read_course_qa(path, bundled)


@pytest.mark.parametrize(
    ("answer", "text"),
    [(3.0, "3"), (3, "3"), (1e1, "10"), (0.5, "0.5"), (-0.0, "0"), ("3.0", "3.0"), ("in front", "in front")],
)
def test_whole_numbers_are_their_integers(tmp_path, bundled, records, answer, text):
    item = {"question": COUNT, "answer": answer, "image_file": records[0].image_file}
    (record,) = given(tmp_path / "qa.json", [item], bundled)
    assert record.answer == text


@pytest.mark.parametrize("answer", [float("nan"), float("inf"), None, [], {}, "  ", "\ud800"])
def test_what_is_no_answer_is_refused_with_its_item(tmp_path, bundled, records, answer):
    items = [{"question": COUNT, "answer": a, "image_file": records[0].image_file} for a in (1, answer)]
    with pytest.raises(QaError, match="qa.json: item 1 has no answer"):
        given(tmp_path / "qa.json", items, bundled)


@pytest.mark.parametrize("write", ["./{}", "valid/../{}", ".//{}", "windows", "stem"])
def test_a_picture_is_found_however_its_path_is_written(tmp_path, bundled, records, write):
    name = records[0].image_file
    other = {"windows": name.replace("/", "\\"), "stem": name.replace(".jpg", ".JPG")}.get(write, write.format(name))
    (record,) = given(tmp_path / "qa.json", [{"question": COUNT, "answer": 1, "image_file": other}], bundled)
    assert record.image_file == name


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_with_a_byte_order_mark_and_json_lines_are_read(tmp_path, bundled, records, encoding):
    items = [{"question": r.question, "answer": r.answer, "image_file": r.image_file} for r in records[:3]]
    for text in (json.dumps(items), "\n".join(map(json.dumps, items)) + "\n"):
        (tmp_path / "qa.json").write_bytes(text.encode(encoding))
        read = read_course_qa(tmp_path / "qa.json", bundled)
        assert [(r.question, r.answer, r.image_file) for r in read] == [tuple(item.values()) for item in items]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"question": "Q"}\n{"question": \n', "line 2 is not JSON"),
        ('{"question": "Q", "question": "R"}', "'question' stands twice"),
        ("[" * 100_000, "nested too deep"),
        ('{"questions": []}', "not a list of questions"),
    ],
)
def test_a_file_that_is_no_list_of_questions_is_refused_in_one_line(tmp_path, bundled, text, words):
    (tmp_path / "qa.json").write_text(text)
    with pytest.raises(ValueError, match=words) as error:
        read_course_qa(tmp_path / "qa.json", bundled)
    assert "qa.json" in str(error.value) and "\n" not in str(error.value)


def test_records_round_trip_and_foreign_rows_are_refused(tmp_path, records):
    write_jsonl(tmp_path / "valid.jsonl", map(vars, records))
    assert read_records(tmp_path / "valid.jsonl") == records
    (tmp_path / "bad.jsonl").write_text('{"question": "x"}\n')
    with pytest.raises(QaError, match=r"bad\.jsonl: line 1"):
        read_records(tmp_path / "bad.jsonl")


def test_rows_written_before_there_were_rules_are_of_the_course(tmp_path, records):
    row = {name: value for name, value in vars(records[0]).items() if name not in ("rules", "wording")}
    (tmp_path / "old.jsonl").write_text(json.dumps(row) + "\n")
    assert read_records(tmp_path / "old.jsonl") == records[:1]


def test_question_files_of_a_folder_drawn_into_splits_leave_out_all(tmp_path):
    for name in ("all.jsonl", "all_extended.jsonl"):
        (tmp_path / name).touch()
    assert [path.name for path in question_files(tmp_path)] == ["all.jsonl", "all_extended.jsonl"]
    for name in ("train.jsonl", "test_extended.jsonl", "test.jsonl"):
        (tmp_path / name).touch()
    assert [path.name for path in question_files(tmp_path)] == ["train.jsonl", "test.jsonl", "test_extended.jsonl"]


def test_composition_counts_every_record(records):
    table = composition(records)
    assert sum(sum(answers.values()) for answers in table.values()) == len(records)
    assert list(table["count"].values()) == sorted(table["count"].values(), reverse=True)
