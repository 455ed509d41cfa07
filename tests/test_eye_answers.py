"""benchmarks/eye_answers.py: which questions a reader gets, what is shown, and how the answers are scored."""

import importlib.util
import sys
from collections import Counter

import pytest
from PIL import Image

from stkvlm_lib.config import ROOT
from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.evaluation.predictions import write_answers
from stkvlm_lib.files import read_json, write_jsonl
from stkvlm_lib.grammar.questions import FAMILIES
from stkvlm_lib.qa.qa_sets import make_records
from stkvlm_lib.typed import read_rows


@pytest.fixture(scope="module")
def eye():
    spec = importlib.util.spec_from_file_location("eye_answers", ROOT / "benchmarks" / "eye_answers.py")
    module = sys.modules["eye_answers"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["eye_answers"]


@pytest.fixture(scope="module")
def asked(bundled):
    return make_records(bundled, "test")


@pytest.fixture(scope="module")
def drawn(eye, asked):
    return eye.draw(asked)


def test_families_are_drawn_in_their_proportions_over_all_races(eye, asked, drawn):
    whole, sample = (Counter(r.family for r in records) for records in (asked, drawn))
    assert len(drawn) == len(set(drawn)) == 200
    assert all(abs(sample[name] - 200 * n / len(asked)) < 1 for name, n in whole.items())
    pictures = eye.in_turn({r.image_file: r.race for r in asked}, 50)
    assert {r.image_file for r in drawn} <= set(pictures)
    races = Counter({r.image_file: r.race for r in asked}[picture] for picture in pictures)
    assert (len(races), max(races.values())) == (42, 2)


def test_the_draw_is_the_same_for_any_order_of_the_pictures(eye, asked, drawn):
    shuffled = sorted(asked, key=lambda r: r.image_file, reverse=True)
    assert eye.draw(shuffled) == drawn


@pytest.mark.parametrize(("sizes", "shares"), [({"a": 2, "b": 1}, (2, 1)), ({"a": 5, "b": 3, "c": 3}, (1, 1, 1))])
def test_shares_add_up(eye, sizes, shares):
    assert tuple(eye.in_proportion(Counter(sizes), 3).values()) == shares


def test_sheets_show_pictures_without_marks_and_names_from_train(eye, few, bundled, tmp_path):
    frames = FrameSet(bundled.root, {split: few[split] for split in ("train", "test")})
    drawn = eye.draw(make_records(frames, "test"), pictures=6, questions=20)
    eye.write_sheets(frames, drawn, tmp_path)
    rows = read_rows(tmp_path / "answers.jsonl", dict)
    assert Counter((r["image_file"], r["question"]) for r in rows) == Counter((r.image_file, r.question) for r in drawn)
    assert not any(r["given"] for r in rows)

    names = list(dict.fromkeys(r.image_file for r in drawn))
    sheets = sorted(tmp_path.glob("round*.png"))
    rounds = {(r.image_file, bool(FAMILIES[r.family].slots)) for r in drawn}
    assert {s.name for s in sheets} == {f"round{1 + named}_{names.index(f) + 1:02}.png" for f, named in rounds}
    for sheet in sheets:
        plain = frames.by_image_file[names[int(sheet.stem[-2:]) - 1]].image()
        large = plain.resize((1152, 768), Image.Resampling.LANCZOS)
        assert Image.open(sheet).crop((0, 0, 1152, 768)).tobytes() == large.tobytes()

    train = frames.frames("train")
    assert set(eye.track_tiles(frames)) == {frame.track for frame in train}
    assert set(eye.kart_tiles(frames)) == {kart for frame in train for kart in frame.karts}


def write_given(drawn, path, wrong=()):
    rows = [{"image_file": r.image_file, "question": r.question, "given": f" {r.answer.upper()}"} for r in drawn]
    write_jsonl(path, [row | ({"given": "none"} if i in wrong else {}) for i, row in enumerate(rows)])
    return path


def test_scores_and_the_paired_difference_to_a_run(eye, drawn, tmp_path, monkeypatch, capsys):
    answers = write_given(drawn, tmp_path / "answers.jsonl", wrong=range(20))
    run = eye.answered(drawn, write_given(drawn, tmp_path / "run.jsonl", wrong=range(10, 60)))
    write_answers(run, tmp_path / "run" / "predictions.jsonl")
    given = {"--answers": answers, "--run": tmp_path / "run", "--out": tmp_path}
    monkeypatch.setattr(sys, "argv", ["eye_answers.py", *(str(word) for pair in given.items() for word in pair)])
    eye.main()
    figures = read_json(tmp_path / "eye_answers.json")
    assert (figures["n"], figures["exact"], figures["clusters"]) == (200, 0.9, "race")
    compared = figures["comparison"]
    assert (compared["difference"], compared["won"], compared["lost"]) == (0.15, 40, 10)
    assert "| all | 200 | 90.0% | 75.0% | +15.0 |" in capsys.readouterr().out


def test_a_missing_answer_is_named(eye, drawn, tmp_path):
    path = write_given(drawn[1:], tmp_path / "answers.jsonl")
    with pytest.raises(ValueError, match=rf"no answer to .* about {drawn[0].image_file}; .*--sheets"):
        eye.answered(drawn, path)


def test_the_answers_of_the_repository_are_to_these_questions_and_in_form(eye, drawn):
    answers = eye.answered(drawn, ROOT / "frames" / "eye_answers.jsonl")
    assert [p for p in answers if p.prediction not in FAMILIES[p.family].answers] == []
