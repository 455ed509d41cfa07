"""JSON is read as dataclasses whose every type is checked; what does not fit is named by file, place and remedy."""

import json
from dataclasses import asdict, dataclass, field

import pytest

from stkvlm_lib.evaluation.predictions import read_answers
from stkvlm_lib.files import write_jsonl
from stkvlm_lib.typed import read_rows, read_text, read_value


@dataclass(frozen=True)
class Row:
    name: str
    count: int = 1
    tags: list[str] = field(default_factory=list)
    share: float = 0.0
    pair: tuple[str, str] | None = None

    def __post_init__(self):
        if self.count > 9:
            raise ValueError("more than nine")


def test_rows_are_read_as_dataclasses(tmp_path):
    rows = [Row("a", 2, ["x"], pair=("y", "z")), Row("b")]
    write_jsonl(tmp_path / "rows.jsonl", [asdict(rows[0]), {"name": "b", "of another version": 3}])
    assert read_rows(tmp_path / "rows.jsonl", Row) == rows


def test_a_byte_order_mark_is_passed_over_and_a_missing_file_is_named(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'\xef\xbb\xbf{"name": "\xc3\xa4"}\r\n{"name": "b"}')
    assert read_rows(tmp_path / "rows.jsonl", Row) == [Row("ä"), Row("b")]
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl: not there; do it again"):
        read_rows(tmp_path / "none.jsonl", Row, "do it again")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"count": 2}', r"line 2\.name: not there"),
        (b"[1]", r"line 2: \[1\] is not an object"),
        (b'{"name": ', "line 2: not JSON"),
        (b"", "line 2: not JSON"),
        (b'{"name": "\xff"}', "line 2: not JSON"),
        (b"[" * 10_000, "line 2: not JSON"),
        (b'{"name": 3}', r"line 2\.name: 3 is not a valid string"),
        (b'{"name": "a", "count": 1.5}', r"line 2\.count: 1\.5 is not a valid integer"),
        (b'{"name": "a", "count": true}', r"line 2\.count: True is not a valid integer"),
        (b'{"name": "a", "share": "1"}', r"line 2\.share: '1' is not a valid number"),
        (b'{"name": "a", "tags": ["x", null]}', r"line 2\.tags\[1\]: None is not a valid string"),
        (b'{"name": "a", "pair": ["x"]}', r"line 2\.pair\[1\]: not there"),
        (b'{"name": "a", "count": 10}', "line 2: more than nine"),
    ],
)
def test_a_row_of_another_form_is_named_with_its_place_and_a_remedy(tmp_path, line, words):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"name": "a"}\n' + line + b"\n")
    with pytest.raises(ValueError, match=rf"^\S*rows\.jsonl: {words}.*; do it again$") as error:
        read_rows(path, Row, "do it again")
    assert str(error.value).isprintable() and len(str(error.value)) < 400


def test_a_whole_number_is_a_number_and_nothing_else_is_converted():
    assert read_text('{"name": "a", "share": 1}', Row, "x") == Row("a", share=1.0)
    assert read_value({"ego": [1, 2]}, dict[str, list[int]], "x") == {"ego": [1, 2]}
    with pytest.raises(ValueError, match=r"^x\.ego\[0\]: '1' is not a valid integer$"):
        read_value({"ego": ["1"]}, dict[str, list[int]], "x")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_confidence_that_is_no_number_is_named(tmp_path, number):
    texts = dict.fromkeys(("image_file", "question", "answer", "prediction", "family", "race", "track"), "x")
    told = {"correct": True, "prefix_correct": True, "confidence": 0.5}
    (tmp_path / "answers.jsonl").write_text(json.dumps(texts | told).replace("0.5", number))
    with pytest.raises(ValueError, match=r"line 1\.confidence: \w+ is not a finite number; answer again"):
        read_answers(tmp_path / "answers.jsonl")
