"""Files appear whole or not at all, and unreadable ones are named with a remedy."""

import errno
import hashlib

import pytest

from stkvlm_lib.files import (
    drop_parts,
    errors_naming,
    explain,
    one_line,
    parse_json,
    read_json,
    read_json_list,
    read_object,
    sha256,
    whole_file,
    write_json,
    write_jsonl,
    write_text,
)
from stkvlm_lib.typed import read_rows


def test_an_interrupted_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "metrics.json"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.json"]


def test_the_new_file_is_not_seen_before_it_is_whole(tmp_path):
    path = tmp_path / "new" / "folder" / "file.txt"
    with whole_file(path) as part:
        part.write_text("text")
        assert not path.exists()
    assert path.read_text() == "text"


def test_a_row_that_cannot_be_written_leaves_the_old_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"a": 1}])
    with pytest.raises(TypeError):
        write_jsonl(path, [{"a": 2}, {"a": object()}])
    assert read_rows(path, dict) == [{"a": 1}]


def test_what_is_written_is_read_again(tmp_path):
    value = {"name": "Žluťoučký", "list": [1, 2.5, None]}
    write_json(tmp_path / "a.json", value)
    write_jsonl(tmp_path / "a.jsonl", [value, {}])
    assert read_json(tmp_path / "a.json") == value
    assert read_rows(tmp_path / "a.jsonl", dict) == [value, {}]


@pytest.mark.parametrize("read", [read_json, lambda path, remedy: read_rows(path, dict, remedy)])
def test_a_missing_or_broken_file_is_named_with_a_remedy(tmp_path, read):
    path = tmp_path / "a.json"
    with pytest.raises(FileNotFoundError, match="a.json.*run notebook 02"):
        read(path, "run notebook 02")
    path.write_text('{"cut": ')
    with pytest.raises(ValueError, match="a.json.*run notebook 02"):
        read(path, "run notebook 02")


@pytest.mark.parametrize(
    ("text", "words"),
    [("[" * 100_000, "nested too deep"), ('[{"a": 1, "b": 2, "a": 3}]', "'a' stands twice"), ("9" * 5000, "digits")],
)
@pytest.mark.parametrize("read", [read_json, read_json_list])
def test_what_no_reader_should_guess_at_is_refused_in_one_line(tmp_path, text, words, read):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=f"a.json: not readable as JSON .*{words}.*; mend it"):
        read(tmp_path / "a.json", "mend it")


def test_a_json_file_over_the_limit_is_not_read(tmp_path):
    write_json(tmp_path / "a.json", list(range(100)))
    with pytest.raises(ValueError, match="over the limit of 10"):
        parse_json(tmp_path / "a.json", most=10)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_marks_of_byte_order_are_read_over(tmp_path, encoding):
    (tmp_path / "a.json").write_bytes('{"ä": 1}'.encode(encoding))
    assert read_json(tmp_path / "a.json") == read_json_list(tmp_path / "a.json", "") == {"ä": 1}


def test_json_lines_are_a_list(tmp_path):
    write_jsonl(tmp_path / "a.json", [{"a": 1}, {"a": [2]}])
    assert read_json_list(tmp_path / "a.json", "") == [{"a": 1}, {"a": [2]}]
    write_json(tmp_path / "b.json", [{"a": 1}])
    assert read_json_list(tmp_path / "b.json", "") == [{"a": 1}]


def test_one_line_is_printable():
    assert one_line("a\nb\x1b[1m\ud800ü") == r"a\nb\x1b[1m\ud800ü"


def test_the_hash_is_that_of_the_contents_in_order(tmp_path):
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"two")
    assert sha256(tmp_path / "a") == hashlib.sha256(b"one").hexdigest()
    assert sha256([tmp_path / "a", tmp_path / "b"]) == hashlib.sha256(b"onetwo").hexdigest()
    assert sha256([tmp_path / "b", tmp_path / "a"]) != sha256([tmp_path / "a", tmp_path / "b"])


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_does_not_have_are_not_written(tmp_path, number):
    for name, write in (("a.json", lambda path: write_json(path, {"x": [number]})),):
        with pytest.raises(ValueError, match=f"{name}: not written"):
            write(tmp_path / name)
    with pytest.raises(ValueError, match="a.jsonl: not written"):
        write_jsonl(tmp_path / "a.jsonl", [{"x": 1.0}, {"x": number}])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["[]", "3", "null", '"a"', "[" * 100_000])
def test_what_must_be_an_object_is_refused_otherwise(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match="a.json: .*; do this"):
        read_object(tmp_path / "a.json", "do this")


def test_what_killed_processes_left_half_written_goes_and_nothing_else(tmp_path):
    kept = [tmp_path / "a.part", tmp_path / ".hidden"]
    left = [tmp_path / ".a.json.12.part", tmp_path / "qa" / ".b.12.part"]
    for path in kept + left:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    drop_parts(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)


def test_a_full_disk_names_the_folder_and_the_remedy(tmp_path):
    with pytest.raises(OSError) as error, whole_file(tmp_path / "a.json"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert explain(error.value) == (
        f"{tmp_path}: writing a.json: No space left on device; make room on its disk, or name a folder on another"
    )
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_system_name_the_file_that_was_meant(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as error:
        write_text(tmp_path / "file" / "a.json", "text")
    assert explain(error.value).startswith(f"{tmp_path / 'file'}: ")
    with pytest.raises(OSError) as error:
        write_text(tmp_path / ("a" * 300), "text")
    assert explain(error.value).startswith(f"{tmp_path}/aaa") and explain(error.value).endswith("give a shorter name")
    assert explain(OSError(errno.EIO, "Input/output error", 3)).startswith("a file: Input/output error; ")
    with pytest.raises(FileNotFoundError, match="^one of our own$"), errors_naming(tmp_path):
        raise FileNotFoundError("one of our own")
