import json
import shutil

import pytest
from PIL import ImageOps
from tiny import copy_frames, fresh

from stkvlm_lib.config import ScoreConfig
from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.qa.contrast import KINDS, pairs_of, read_contrast
from stkvlm_lib.qa.qa_sets import CUSTOM_SPLIT, QaError
from stkvlm_lib.scores.consistency import PairPrediction, answer_pairs, consistency, draw_pairs, score_consistency
from stkvlm_lib.vlm.features import FeatureStore


@pytest.fixture(scope="module")
def pairs(written):
    return pairs_of(read_contrast(written[0] / "test_contrast.jsonl"))


@pytest.fixture(scope="module")
def answerer(base_folder):
    return fresh(base_folder)


def pair(first, second, race="a", family="left_right", differ=True, kind="mirror"):
    answers = ("left", "right") if differ else ("left", "left")
    said = tuple(answer if right else "neither" for answer, right in zip(answers, (first, second), strict=True))
    return PairPrediction(
        f"{kind}:x", kind, family, "?", "1.jpg", "2.jpg", answers, said, (first, second), differ, race, "abyss"
    )


def test_both_right_is_counted_against_independent_errors():
    rows = [pair(True, True), pair(True, False), pair(True, True, "b"), pair(False, True, "b")]
    rows += [pair(True, True, differ=False), pair(False, False, "b", "nearer")]
    figures = consistency(rows, ScoreConfig(bootstrap=200))
    assert figures["n"] == 5 and figures["both"] == 0.4
    assert (figures["first"], figures["second"]) == (0.6, 0.6)
    # left_right: 3/4 and 3/4 right, so 9/16 of its four pairs; nearer: none
    assert figures["independent"] == pytest.approx(4 * 9 / 16 / 5)
    assert figures["families"]["left_right"]["independent"] == 0.5625
    assert figures["families"]["left_right"]["both"] == 0.5 and figures["families"]["nearer"]["both"] == 0
    assert figures["same"]["n"] == 1 and figures["same"]["both"] == 1
    assert figures["both_ci95"] == [0.333333, 0.5]  # race a 1 of 2, race b 1 of 3


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


def test_so_many_pairs_of_each_kind_and_family_are_drawn(pairs):
    drawn = draw_pairs(pairs, ScoreConfig(extended_scored=1))
    kinds = [(first.kind, first.family) for first, _ in drawn]
    assert len(set(kinds)) == len(kinds) > 2
    assert set(kinds) == {(first.kind, first.family) for first, _ in pairs}


def test_the_pairs_of_a_run_are_scored_and_written(answerer, bundled, written, tmp_path):
    shutil.copytree(written[0], tmp_path / "qa")
    config = ScoreConfig(run_dir=str(tmp_path), extended_scored=1, bootstrap=100)
    store = FeatureStore(answerer, bundled, 16)
    figures = score_consistency(store, config, "test")["consistency"]
    rows = [json.loads(line) for line in (tmp_path / "predictions_consistency.jsonl").read_text().splitlines()]
    assert set(figures) == set(KINDS)
    for kind in KINDS:
        mine = [row for row in rows if row["kind"] == kind and row["differ"]]
        assert figures[kind]["n"] == len(mine)
        assert figures[kind]["both"] == pytest.approx(sum(all(row["correct"]) for row in mine) / len(mine), abs=1e-5)
    assert score_consistency(store, config, CUSTOM_SPLIT) == {}
    assert not (tmp_path / "predictions_consistency.jsonl").exists()
    assert score_consistency(store, ScoreConfig(run_dir=str(tmp_path / "none")), "test") == {}


def test_pairs_about_other_pictures_are_refused(answerer, written, tmp_path):
    shutil.copytree(written[0], tmp_path / "run" / "qa")
    folder = read_frames(copy_frames(tmp_path, "test", 1))
    with pytest.raises(QaError, match=r"test_contrast\.jsonl: .* is not in .*run notebook 02"):
        score_consistency(FeatureStore(answerer, folder, 16), ScoreConfig(run_dir=str(tmp_path / "run")), "test")
