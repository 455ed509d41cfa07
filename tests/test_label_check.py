import random
from dataclasses import replace

import pytest

from stkvlm_lib.explore.label_gallery import gallery
from stkvlm_lib.explore.label_panel import LabelMarker
from stkvlm_lib.qa.label_check import (
    MARKS_FILE,
    Mark,
    MarksByOrigin,
    add_mark,
    by_origin,
    draw_sample,
    family_errors,
    label_error,
    label_errors,
    mark,
    marks_on,
    read_marks,
    wilson,
)
from stkvlm_lib.qa.qa_sets import read_records


@pytest.fixture(scope="module")
def sample(written):
    return draw_sample(written[0], 60, 0)


def test_every_family_under_each_rule_set_is_drawn_and_only_what_is_written(written, sample):
    everything = [r for path in written[0].glob("*.jsonl") if "contrast" not in path.name for r in read_records(path)]
    assert len(sample) == 60 == len({(r.image_file, r.question) for r in sample})
    assert set(sample) <= set(everything)
    assert {(r.family, r.rules) for r in sample} == {(r.family, r.rules) for r in everything}
    assert draw_sample(written[0], 60, 1) != sample


def test_the_sample_does_not_depend_on_the_order_of_the_lines(written, sample, tmp_path):
    for path in written[0].glob("*.jsonl"):
        lines = path.read_text().splitlines(keepends=True)
        (tmp_path / path.name).write_text("".join(random.Random(0).sample(lines, len(lines))))
    assert draw_sample(tmp_path, 60, 0) == sample


def test_fewer_questions_than_asked_for_are_all_drawn(written, tmp_path):
    lines = (written[0] / "test.jsonl").read_text().splitlines(keepends=True)[:5]
    (tmp_path / "test.jsonl").write_text("".join(lines))
    assert len(draw_sample(tmp_path, 200, 0)) == 5 and draw_sample(tmp_path / "none", 200, 0) == []


def test_a_mark_is_a_line_at_once_and_the_last_one_counts(sample, tmp_path):
    path = tmp_path / "qa" / MARKS_FILE
    add_mark(path, mark(sample[0], "right"))
    add_mark(path, mark(sample[1], "wrong", "hidden by a hill, “ganz”"))
    add_mark(path, mark(sample[0], "wrong"))
    assert path.read_text().count("\n") == 3
    marks = read_marks(path)
    assert [(m.verdict, m.note) for m in marks] == [("wrong", ""), ("wrong", "hidden by a hill, “ganz”")]
    assert marks[0].key == (sample[0].image_file, sample[0].question, sample[0].answer)
    assert read_marks(tmp_path / "none", path) == marks and read_marks(tmp_path / "none") == []
    add_mark(path, mark(sample[0], "withdrawn"))
    assert [found.key for found in read_marks(path)] == [marks[1].key], "it holds no longer"


def test_a_mark_does_not_bring_back_a_run_that_was_removed(sample, tmp_path):
    with pytest.raises(FileNotFoundError):
        add_mark(tmp_path / "run" / "qa" / MARKS_FILE, mark(sample[0], "right"))
    assert not (tmp_path / "run").exists()


def test_a_line_that_a_killed_process_left_half_is_named_and_swallows_nothing(sample, tmp_path):
    path = tmp_path / MARKS_FILE
    add_mark(path, mark(sample[0], "right"))
    with path.open("a") as file:
        file.write('{"image_file": "tra')
    add_mark(path, mark(sample[1], "right"))
    with pytest.raises(ValueError, match="line 2"):
        read_marks(path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[2]]))
    assert len(read_marks(path)) == 2


def test_another_verdict_is_refused(sample):
    with pytest.raises(ValueError, match="right, wrong or withdrawn"):
        mark(sample[0], "maybe")


def test_a_mark_is_of_a_label_not_of_a_question(sample):
    old = mark(sample[0], "wrong")
    changed = Mark(old.image_file, old.question, "another answer", old.family, old.rules, "right")
    assert marks_on(sample, [old, changed]) == [old]


def test_marks_made_in_the_explorer_are_merged_by_origin(written, sample):
    drawn, asked = sample[:50], sample[55]  # the others are in the files, but not drawn
    gone = replace(asked, answer="another answer")
    made = [mark(drawn[0], "right"), mark(asked, "wrong"), mark(gone, "wrong"), mark(drawn[1], "wrong")]
    found = by_origin(made, drawn, written[0])
    assert (found.drawn, found.chosen, found.outdated) == ([made[0], made[3]], [made[1]], [made[2]])
    lines = {line.what: (line.n, line.wrong) for line in label_errors(found)}
    assert lines["all"] == (2, 1) and lines["chosen, not drawn"] == lines["no longer asked"] == (1, 1)
    assert by_origin(made[:1], drawn, written[0] / "absent") == MarksByOrigin(made[:1], [], [])


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(0, 200, 0.0, 0.018846), (10, 100, 0.055229, 0.174366), (5, 5, 0.565518, 1.0), (0, 0, 0.0, 1.0)],
)
def test_wilsons_interval(hits, n, low, high):
    assert wilson(hits, n) == pytest.approx((low, high), abs=1e-6)


def test_the_label_error_is_told_for_all_and_for_each_rule_set(sample):
    marks = [mark(record, "wrong" if i in (3, 4) else "right") for i, record in enumerate(sample)]
    everything, course, strict = label_errors(MarksByOrigin(marks))
    assert (everything.what, course.what, strict.what) == ("all", "course rules", "strict rules")
    assert everything.n == course.n + strict.n == 60 and everything.wrong == course.wrong + strict.wrong == 2
    assert everything.rate == 2 / 60 and everything.interval[0] < everything.rate < everything.interval[1]
    assert label_error([]).row() == {"labels": "all", "marked": 0, "wrong": 0, "error": "–", "95 % interval": "–"}
    rows = family_errors(marks)
    assert [row["wrong"] for row in rows[:3]] == [1, 1, 0] and sum(row["marked"] for row in rows) == 60


def test_the_widget_writes_each_mark_and_goes_on_where_one_stopped(sample, bundled, tmp_path):
    path = tmp_path / MARKS_FILE
    known = [tmp_path / "known.jsonl"]
    add_mark(known[0], mark(sample[0], "right"))
    widget = LabelMarker(sample, bundled, path, known)
    assert widget.record == sample[1] and sample[1].answer in widget.label.value
    assert bytes(widget.picture.value).startswith(b"\x89PNG")
    widget.note.value = " too small "
    widget.buttons["wrong"].click()
    assert read_marks(path) == [mark(sample[1], "wrong", "too small")]
    assert widget.record == sample[2] and widget.note.value == "" and "2 of 60 marked, 1 wrong" in widget.progress.value
    widget.steps["skip"].click()
    widget.buttons["right"].click()
    assert [m.key[0] for m in read_marks(path)] == [sample[1].image_file, sample[3].image_file]
    assert LabelMarker(sample, bundled, path, known).record == sample[2]
    for _ in range(10):
        widget.steps["back"].click()
    assert widget.record == sample[0] and "Marked <b class='stk-right'>right" in widget.label.value
    shown = bytes(widget.picture.value)
    widget.boxes.value = True
    assert bytes(widget.picture.value) != shown
    widget.buttons["withdrawn"].click()
    assert widget.record == sample[0] and widget.made is None, "a mark made before can be removed too"


def test_the_widget_says_when_there_is_nothing_to_mark(bundled, tmp_path):
    widget = LabelMarker([], bundled, tmp_path / MARKS_FILE)
    widget.steps["skip"].click()
    assert (
        widget.buttons["right"].disabled
        and "No questions" in widget.progress.value
        and not (tmp_path / MARKS_FILE).exists()
    )


def test_the_gallery_shows_every_question_with_its_mark(sample, bundled):
    marks = [mark(sample[0], "wrong", "<hidden>"), mark(sample[1], "right")]
    page = gallery(sample, bundled, marks)
    assert page.count("<img ") == 60 and page.count("✗ wrong") == 1 and page.count("✓ right") == 1
    assert "&lt;hidden&gt;" in page and "2 of 60 marked, 1 wrong: 50.0%" in page
    assert "none of 60 marked yet" in gallery(sample, bundled, [])
