"""Contrast pairs asked: drawn, each picture as it is shown, and only about pictures that are there."""

import shutil

import pytest
from PIL import ImageOps
from tiny import copy_frames, fresh

from stkvlm_lib.config import ScoreConfig
from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.evaluation.asking import answer_pairs
from stkvlm_lib.evaluation.predictions import PairPrediction, read_answers, write_answers
from stkvlm_lib.evaluation.question_sets import pairs_to_ask
from stkvlm_lib.qa.contrast import KINDS, pairs_of, read_contrast
from stkvlm_lib.qa.qa_sets import CUSTOM_SPLIT, QaError
from stkvlm_lib.vlm.features import FeatureStore


@pytest.fixture(scope="module")
def pairs(written):
    return pairs_of(read_contrast(written[0] / "test_contrast.jsonl"))


@pytest.fixture(scope="module")
def answerer(base_folder):
    return fresh(base_folder)


def test_each_picture_of_a_pair_is_asked_as_it_is_shown(answerer, bundled, pairs):
    drawn = [next(p for p in pairs if p[0].kind == kind) for kind in KINDS]
    rows = answer_pairs(FeatureStore(answerer, bundled, 3), drawn)
    for row, two in zip(rows, drawn, strict=True):
        for item, said, truth in zip(two, row.predictions, row.answers, strict=True):
            image = bundled.by_image_file[item.image_file].image()
            image = ImageOps.mirror(image) if item.mirrored else image
            assert said == answerer.answer(image, item.question).text
            assert truth == item.answer
        assert (row.image_file, row.other_file) == tuple(item.image_file for item in two)


def test_so_many_pairs_of_each_kind_and_family_of_a_run_are_asked_and_those_of_no_other(
    bundled, written, pairs, tmp_path
):
    shutil.copytree(written[0], tmp_path / "qa")
    config = ScoreConfig(run_dir=str(tmp_path), extended_scored=1)
    asked = pairs_to_ask(config, bundled, "test")
    kinds = [(first.kind, first.family) for first, _ in asked]
    assert len(set(kinds)) == len(kinds) > 2 and set(asked) < set(pairs)
    assert set(kinds) == {(first.kind, first.family) for first, _ in pairs}
    assert pairs_to_ask(config, bundled, CUSTOM_SPLIT) == []
    assert pairs_to_ask(ScoreConfig(run_dir=str(tmp_path / "none")), bundled, "test") == []


def test_pairs_about_other_pictures_are_refused(written, tmp_path):
    shutil.copytree(written[0], tmp_path / "run" / "qa")
    folder = read_frames(copy_frames(tmp_path, "test", 1))
    with pytest.raises(QaError, match=r"test_contrast\.jsonl: .* is not in .*run notebook 02"):
        pairs_to_ask(ScoreConfig(run_dir=str(tmp_path / "run")), folder, "test")


def test_answers_are_read_back_as_they_were_written(answerer, bundled, pairs, tmp_path):
    rows = answer_pairs(FeatureStore(answerer, bundled, 3), pairs[:2])
    write_answers(rows, tmp_path / "pairs.jsonl")
    assert read_answers(tmp_path / "pairs.jsonl", PairPrediction) == rows
