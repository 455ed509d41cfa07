"""An evaluation of a tiny model: which answers are written where, what is said of the model, and what is left out."""

import json
from dataclasses import replace

import pytest
from PIL import Image
from tiny import copy_frames, fresh, make_base

from stkvlm_lib.analysis.accuracy import Accuracy
from stkvlm_lib.analysis.scored_run import ScoredRun
from stkvlm_lib.analysis.story import measure
from stkvlm_lib.config import ScoreConfig
from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.data.frames import FramesError
from stkvlm_lib.evaluation.evaluate import open_evaluation
from stkvlm_lib.evaluation.predictions import (
    HEADLINE,
    ChoicePrediction,
    PairPrediction,
    further_file,
    read_answers,
)
from stkvlm_lib.files import write_json
from stkvlm_lib.parallel import Workers
from stkvlm_lib.qa.generate import Plan, frames_by_split, write_qa_sets
from stkvlm_lib.qa.qa_sets import CUSTOM_SPLIT, QaError, make_records
from stkvlm_lib.vlm.adapter import save_adapter
from stkvlm_lib.vlm.answering import AnswerModel

WORDS = {"ego": ["name our kart"], "unknown": ["will it rain"]}
FURTHER = ("valid", "extended", "held_out_wordings", "own_words", "consistency", "mc", "test_unseen")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with frames of three splits, a base, and a run with questions about them and an adapter."""
    place = tmp_path_factory.mktemp("place")
    for split, n in (("test", 2), ("valid", 1), ("test_unseen", 1)):
        copy_frames(place / "frames", split, n)
    frames = read_frames(place / "frames")
    plan = Plan(contrast_pictures=2)
    write_qa_sets(frames_by_split(frames, 0), place / "run" / "qa", plan, Workers(quiet=True))
    model = fresh(make_base(place / "base"))
    save_adapter(model, place / "run" / "adapter", Image.new("RGB", (150, 100), "gray"))
    write_json(place / "run" / "training.json", {"train_seconds": 12.5, "qa_per_second_train": 8.0})
    write_json(place / "words.json", WORDS)
    return place


@pytest.fixture(scope="module")
def config(place):
    return ScoreConfig(
        run_dir=str(place / "run"),
        frames_dir=str(place / "frames"),
        base_model=str(place / "base"),
        own_words_file=str(place / "words.json"),
        own_words_pictures=2,
        extended_scored=1,
        calibration_views=1,
        bootstrap=100,
    )


@pytest.fixture(scope="module")
def encoded():
    return []


@pytest.fixture(scope="module")
def evaluation(config, encoded):
    """Everything answered once. encoded: how many pictures the model encoded at each call."""
    with pytest.MonkeyPatch.context() as patch:
        encode = AnswerModel.encode
        patch.setattr(AnswerModel, "encode", lambda self, images: encoded.append(len(images)) or encode(self, images))
        return evaluate(config)


@pytest.fixture
def elsewhere(config, evaluation, tmp_path):
    """Another run that scores the adapter of the one above, with answers of an earlier evaluation."""
    for name in FURTHER:
        write_json(further_file(tmp_path, name), "of an earlier evaluation")
    return replace(config, run_dir=str(tmp_path), adapter_dir=str(config.adapter_path))


def evaluate(config):
    """Everything answered, as in notebook 04."""
    evaluation = open_evaluation(config)
    for step in ("headline", "valid", "wordings", "own_words", "pairs", "choices", "further_splits"):
        getattr(evaluation, f"answer_{step}")()
    return evaluation


def rows_of(config, name, kind=None):
    return read_answers(further_file(config.run_path, name), *([kind] if kind else []))


def test_the_scored_questions_are_answered_in_every_way(evaluation, config):
    rows = read_answers(config.run_path / HEADLINE)
    assert evaluation.split == "test" and evaluation.records == make_records(evaluation.frames, "test")
    assert [(p.image_file, p.question) for p in rows] == [(r.image_file, r.question) for r in evaluation.records]
    assert evaluation.rate > 0
    answered = {field for field in ("blind", "base", "closed") if getattr(rows[0], f"{field}_prediction") is not None}
    assert answered == {"blind", "base", "closed"}
    image = evaluation.frames.by_image_file[rows[0].image_file].image()
    assert rows[0].prediction == evaluation.store.answerer.answer(image, rows[0].question).text


def test_each_further_set_has_a_file_of_its_own(evaluation, config):
    written = {path.name for path in config.run_path.glob("predictions_*")}
    assert written == {further_file(config.run_path, name).name for name in FURTHER}
    valid = rows_of(config, "valid")
    assert {p.image_file.split("/")[0] for p in valid} == {"valid"} and len({p.image_file for p in valid}) == 1
    assert valid[0].blind_prediction is valid[0].base_prediction is valid[0].closed_prediction is None
    trained, held_out = rows_of(config, "extended"), rows_of(config, "held_out_wordings")
    assert [(p.image_file, p.family) for p in trained] == [(p.image_file, p.family) for p in held_out]
    assert all(a.wording != b.wording for a, b in zip(trained, held_out, strict=True))
    assert trained[0].blind_prediction is not None and trained[0].base_prediction is not None
    own = rows_of(config, "own_words")
    assert {p.question for p in own} > {"name our kart", "will it rain"} and own[0].base_prediction is not None
    assert {p.image_file.split("/")[0] for p in rows_of(config, "test_unseen")} == {"test_unseen"}
    assert rows_of(config, "consistency", PairPrediction) and rows_of(config, "mc", ChoicePrediction)


def test_a_picture_is_encoded_once_whatever_is_asked_of_it(evaluation, config, encoded):
    """Mirrored ones are pictures of their own; the mean picture is the one more."""
    pictures = {(p.image_file, False) for p in read_answers(config.run_path / HEADLINE)}
    for name in ("valid", "extended", "own_words", "test_unseen"):
        pictures |= {(p.image_file, False) for p in rows_of(config, name)}
    pictures |= {(p.image_file, False) for p in rows_of(config, "mc", ChoicePrediction)}
    for pair in rows_of(config, "consistency", PairPrediction):
        pictures |= {(pair.image_file, False), (pair.other_file, pair.kind == "mirror")}
    assert sum(encoded) == len(pictures) + 1


def test_the_facts_and_all_figures_make_metrics(evaluation, config):
    facts = evaluation.facts()
    assert (facts["split"], facts["seed"], facts["quantization"]) == ("test", 0, "nf4")
    assert (facts["train_seconds"], facts["qa_per_second_train"]) == (12.5, 8.0)
    assert facts["qa_per_second_eval"] == evaluation.rate and facts["label_faults"] == []
    assert 0 < facts["adapter_mb"] < 50 and facts["peak_memory_mb"] > 0
    assert facts["base_sha256"] == evaluation.store.answerer.base.sha256
    metrics = measure(ScoredRun(config.run_path, metrics=facts, frames=evaluation.frames))
    contract = {"split", "n", "exact", "exact_ci95", "prefix", "macro_exact", "majority", "blind", "families"}
    contract |= {"base_exact", "adapter_mb", "base_model", "base_sha256", "seed", "train_seconds"}
    contract |= {"qa_per_second_train", "qa_per_second_eval", "peak_memory_mb", "label_faults"}
    contract |= {"calibration", "slices", "ceiling", "error_budget", "entailed", "validity"}
    contract |= {"extended", "held_out_wordings", "own_words", "consistency", "mc", "mc_exact", "other_splits"}
    assert contract <= set(metrics)
    assert metrics["n"] == len(evaluation.records)
    assert metrics["calibration"]["selective"]["fit"]["n"] == len(rows_of(config, "valid"))
    json.dumps(metrics, allow_nan=False)
    assert Accuracy.read(metrics).exact == metrics["exact"]


def test_answers_of_a_user_s_questions_replace_all_that_an_earlier_evaluation_left(elsewhere, tmp_path):
    image_file = "test/" + min(path.name for path in (elsewhere.frames_paths[0] / "test").glob("*_im.jpg"))
    asked = {"image_file": image_file, "question": "What track is this?"}
    write_json(tmp_path / "mine.json", [asked | {"answer": answer} for answer in ("abyss", "nowhere at all")])
    found = evaluate(replace(elsewhere, qa_file=str(tmp_path / "mine.json")))
    assert found.split == CUSTOM_SPLIT and len(read_answers(tmp_path / HEADLINE)) == 2
    left = {path.name for path in tmp_path.glob("predictions_*")}
    assert left == {"predictions_valid.jsonl"}, "only what the threshold is fitted on is asked beside them"
    assert read_answers(tmp_path / "predictions_valid.jsonl")
    faults = found.facts()["label_faults"]
    assert [fault["family"] for fault in faults] == ["track", "track"] and "nowhere at all" in faults[0]["such as"]
    told = {name: found.facts()[name] for name in ("train_seconds", "qa_per_second_train")}
    assert set(told.values()) == {None}, "another run's adapter was not trained here"


def test_wrong_files_are_refused_before_a_model_is_loaded(config, tmp_path):
    no_model = replace(config, base_model=str(tmp_path / "none"), adapter_dir=str(tmp_path / "none"))
    assert "store" not in vars(open_evaluation(no_model))
    write_json(tmp_path / "questions.json", [{"question": "?"}])
    with pytest.raises(QaError, match=r"questions\.json: item 0 lacks"):
        open_evaluation(replace(no_model, qa_file=str(tmp_path / "questions.json")))
    write_json(tmp_path / "words.json", {"egg": []})
    with pytest.raises(QaError, match=r"words\.json: no family egg"):
        open_evaluation(replace(no_model, own_words_file=str(tmp_path / "words.json")))
    with pytest.raises(FramesError, match="nowhere: no such folder"):
        open_evaluation(replace(no_model, frames_dir=str(tmp_path / "nowhere")))
