"""JSON is read as dataclasses whose fields are of their types; what is not is named with its place."""

import json
from dataclasses import asdict, dataclass, field

import pytest

from stkvlm_lib.evaluation.predictions import read_answers
from stkvlm_lib.files import write_jsonl
from stkvlm_lib.typed import TypedError, read_file, read_rows, read_typed


@dataclass(frozen=True)
class Row:
    name: str
    share: float = 1.0
    tags: tuple[str, ...] = ()
    inner: "Row | None" = None
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self):
        if self.name == "nobody":
            raise ValueError("nobody has no row")


def test_rows_are_read_as_dataclasses_and_strange_keys_are_passed_over(tmp_path):
    rows = [Row("a", 0.5, ("x", "y"), Row("b"), {"z": 2}), Row("b")]
    write_jsonl(tmp_path / "rows.jsonl", [asdict(rows[0]), {"name": "b", "of another version": 3}])
    assert read_rows(tmp_path / "rows.jsonl", Row) == rows


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"share": 2}', "line 2, name: not there; do it again"),
        ("[1]", "line 2: [1] is not an object; do it again"),
        ('{"name": 3}', "line 2, name: 3 is not a valid string; do it again"),
        ('{"name": "a", "share": "0.5"}', "line 2, share: '0.5' is not a valid number; do it again"),
        ('{"name": "a", "share": true}', "line 2, share: True is not a valid number; do it again"),
        ('{"name": "a", "share": null}', "line 2, share: None is not a valid number; do it again"),
        ('{"name": "a", "tags": ["x", 1]}', "line 2, tags[1]: 1 is not a valid string; do it again"),
        ('{"name": "a", "inner": {}}', "line 2, inner.name: not there; do it again"),
        ('{"name": "a", "counts": {"z": 0.5}}', "line 2, counts.z: 0.5 is not a valid integer; do it again"),
        ('{"name": "nobody"}', "line 2: nobody has no row; do it again"),
        ('{"name": "a"', "line 2: not JSON (EOF while parsing an object at line 2 column 0); do it again"),
    ],
)
def test_a_row_of_another_form_is_named_with_place_and_remedy(tmp_path, line, words):
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"name": "a"}}\n{line}\n')
    with pytest.raises(ValueError) as error:
        read_rows(path, Row, "do it again")
    assert str(error.value) == f"{path}: {words}"


def test_text_that_is_none_is_told_and_a_byte_order_mark_is_not_minded(tmp_path):
    path = tmp_path / "row.json"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"name": "a"}')
    assert read_file(path, Row) == Row("a") and read_rows(path, Row) == [Row("a")]
    path.write_bytes(b'{"name": "\xff"}')
    with pytest.raises(ValueError, match=r"row\.json: not JSON \(.*unicode.*\); make it again"):
        read_file(path, Row)
    with pytest.raises(FileNotFoundError, match=r"none\.json: not there; run it first"):
        read_file(tmp_path / "none.json", Row, "run it first")


def test_a_place_can_be_named_within_something_larger():
    with pytest.raises(TypedError) as error:
        read_typed('{"name": "a", "share": []}', Row)
    assert str(error.value.within("run.rows")) == "run.rows.share: [] is not a valid number"
    assert str(TypedError("", "is empty").within("run")) == "run: is empty"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_confidence_that_is_no_number_is_named(tmp_path, number):
    texts = dict.fromkeys(("image_file", "question", "answer", "prediction", "family", "race", "track"), "x")
    told = {"correct": True, "prefix_correct": True, "confidence": 0.5}
    (tmp_path / "answers.jsonl").write_text(json.dumps(texts | told).replace("0.5", number))
    with pytest.raises(ValueError, match=r"line 1, confidence: \w+ is not a finite number; answer again"):
        read_answers(tmp_path / "answers.jsonl")
