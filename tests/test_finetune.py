import json

import pytest
import torch
from PIL import Image
from tiny import copy_frames, fresh, make_base

from stkvlm_lib.analysis.scored_run import ScoredRun
from stkvlm_lib.analysis.story import measure
from stkvlm_lib.config import ConfigError, FinetuneConfig, ScoreConfig
from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.evaluation.asking import Blind, predict
from stkvlm_lib.evaluation.evaluate import open_evaluation
from stkvlm_lib.evaluation.predictions import HEADLINE, read_answers
from stkvlm_lib.evaluation.question_sets import records_to_score
from stkvlm_lib.qa.generate import frames_by_split, write_qa_sets
from stkvlm_lib.qa.qa_sets import make_records
from stkvlm_lib.qa.training_draw import read_questions
from stkvlm_lib.vlm import finetune, trainer
from stkvlm_lib.vlm.adapter import load_answerer, save_adapter
from stkvlm_lib.vlm.diary import majority_share, majority_warning, read_log
from stkvlm_lib.vlm.features import FeatureStore
from stkvlm_lib.vlm.trainer import TrainingDiverged, last_checkpoint
from stkvlm_lib.vlm.training_batches import packed_tokens


@pytest.fixture(scope="module")
def frames_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for split, n in (("train", 2), ("valid", 1), ("test", 1)):
        copy_frames(folder, split, n)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base"))


def prepare(run_dir, frames_dir, base, **changes):
    settings = {"epochs": 3, "batch_size": 4, "evaluations": 3, "lora_rank": 4, "lora_alpha": 8, "learning_rate": 3e-3}
    settings |= {"questions_per_view": 4, "extended_per_view": 1, "worded_per_view": 1, "valid_views": 4}
    config = FinetuneConfig(
        run_dir=str(run_dir), frames_dir=str(frames_dir), base_model=str(base), **settings | changes
    )
    folder = read_frames(config.frames_paths)
    write_qa_sets(frames_by_split(folder, 0), config.run_path / "qa")
    return config, folder, *read_questions(config, folder)


def adapter_weights(run_dir):
    from safetensors.torch import load_file

    return load_file(run_dir / "adapter" / "adapter_model.safetensors")


def test_training_lowers_the_loss_and_leaves_what_scoring_needs(tmp_path, frames_dir, base):
    config, folder, train, valid = prepare(tmp_path, frames_dir, base, epochs=6)
    shown = []
    facts = finetune.finetune(finetune.build_trainable(config), config, folder, train, valid, show=shown.append)
    losses = [row["loss"] for row in read_log(tmp_path) if "loss" in row]
    assert losses[-1] < 0.7 * losses[0]
    assert shown[-1] == read_log(tmp_path)
    exact = [row["valid_exact"] for row in read_log(tmp_path) if "valid_exact" in row]
    assert len(exact) == 3 and facts.valid_exact == max(exact)
    assert facts.questions == sum(len(p.questions) for p in train) and facts.pictures == 20
    assert facts.qa_per_second_train == pytest.approx(facts.questions * 6 / facts.train_seconds)
    assert json.loads((tmp_path / "training.json").read_text())["steps"] == 30
    assert str(tmp_path) not in (tmp_path / "adapter" / "stkvlm.json").read_text()

    score_config = ScoreConfig(
        run_dir=str(tmp_path), frames_dir=str(frames_dir), base_model=str(base), eval_batch_size=4, bootstrap=100
    )
    evaluation = open_evaluation(score_config)
    assert evaluation.split == "test"
    evaluation.answer_headline()
    predictions = read_answers(tmp_path / HEADLINE)
    records = evaluation.records
    assert [(p.image_file, p.question) for p in predictions] == [(r.image_file, r.question) for r in records]
    assert evaluation.rate > 0 and all(0 < p.confidence <= 1 for p in predictions)
    metrics = measure(ScoredRun(tmp_path, metrics=evaluation.facts(), frames=evaluation.frames))
    contract = [
        "split",
        "n",
        "exact",
        "exact_ci95",
        "prefix",
        "macro_exact",
        "majority",
        "blind",
        "families",
        "adapter_mb",
        "base_model",
        "base_exact",
        "seed",
        "train_seconds",
        "qa_per_second_train",
        "qa_per_second_eval",
        "peak_memory_mb",
    ]
    assert set(contract) <= set(metrics)
    assert metrics["train_seconds"] == facts.train_seconds
    assert metrics["test_views"] == 0 and metrics["settings"]["04_evaluate"]["BASE_MODEL"] == str(base)


def test_the_blind_answer_is_the_one_given_to_the_mean_picture(tmp_path, frames_dir, base):
    config, folder, train, _ = prepare(tmp_path, frames_dir, base)
    answerer = load_answerer(None, str(base))
    mean = finetune.average_picture(folder, train)
    _, records = records_to_score(ScoreConfig(run_dir=str(tmp_path), frames_dir=str(frames_dir)), folder)
    predictions, _ = predict(
        FeatureStore(answerer, folder, 4), records[:30], blind=Blind(answerer, mean), base_too=True
    )
    for p in predictions[:6]:
        assert p.blind_prediction == answerer.answer(mean, p.question).text
        assert p.prediction == answerer.answer(folder.by_image_file[p.image_file].image(), p.question).text


def test_an_interrupted_training_ends_as_an_undisturbed_one(tmp_path, frames_dir, base):
    config, folder, train, valid = prepare(tmp_path / "whole", frames_dir, base)
    finetune.finetune(finetune.build_trainable(config), config, folder, train, valid)

    class Killed(Exception):
        pass

    def kill_after_first_checkpoint(rows):
        if rows[-1]["step"] >= 7:
            raise Killed

    config, folder, train, valid = prepare(tmp_path / "cut", frames_dir, base)
    with pytest.raises(Killed):
        finetune.finetune(
            finetune.build_trainable(config), config, folder, train, valid, show=kill_after_first_checkpoint
        )
    assert not (tmp_path / "cut" / "adapter").exists()
    facts = finetune.finetune(finetune.build_trainable(config), config, folder, train, valid, resume=True)
    assert facts.steps == 15
    whole, cut = adapter_weights(tmp_path / "whole"), adapter_weights(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    for name in whole:
        assert torch.equal(whole[name], cut[name]), name
    log_whole, log_cut = read_log(tmp_path / "whole"), read_log(tmp_path / "cut")
    assert log_whole == log_cut


def test_a_training_on_kept_features_ends_as_one_that_encodes(tmp_path, frames_dir, base):
    """Also for the other quantization, which leaves the vision tower as it is."""
    for name, quantization in (("whole", "nf4"), ("writes", "none"), ("reads", "nf4")):
        config, folder, train, valid = prepare(tmp_path / name, frames_dir, base, epochs=1, quantization=quantization)
        answerer = finetune.build_trainable(config)
        kept = None if name == "whole" else FeatureStore(answerer, folder, config.eval_batch_size, tmp_path / "kept")
        finetune.finetune(answerer, config, folder, train, valid, features=kept)
        if name == "reads":
            assert len(list((tmp_path / "kept").glob("*/*.safetensors"))) == 2, "train and valid, of the one before"
    whole, reads = adapter_weights(tmp_path / "whole"), adapter_weights(tmp_path / "reads")
    assert all(torch.equal(whole[name], reads[name]) for name in whole)
    writes = adapter_weights(tmp_path / "writes")
    assert not all(torch.equal(whole[name], writes[name]) for name in whole)


def test_a_checkpoint_cut_short_is_passed_over(tmp_path):
    for step, complete in ((4, True), (12, True), (100, False)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if complete:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").touch()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-12")
    assert last_checkpoint(tmp_path / "none") is None


def test_a_loss_that_is_no_number_stops_the_training_and_nothing_is_saved_of_it(
    tmp_path, frames_dir, base, monkeypatch
):
    config, folder, train, valid = prepare(tmp_path, frames_dir, base, epochs=1, evaluations=5)
    losses = []

    def breaks(outputs, labels, num_items_in_batch=None):
        loss = finetune_loss(outputs, labels, num_items_in_batch)
        losses.append(float(loss))
        return loss * float("nan") if len(losses) == 3 else loss

    finetune_loss = trainer.answer_loss
    monkeypatch.setattr(trainer, "answer_loss", breaks)
    with pytest.raises(TrainingDiverged, match=r"loss of step 3 is nan.*lower LEARNING_RATE than 0\.003") as error:
        finetune.finetune(finetune.build_trainable(config), config, folder, train, valid)
    assert str(tmp_path / "training" / "checkpoint-2") in str(error.value)
    assert len(losses) == 3 and not (tmp_path / "adapter").exists() and not (tmp_path / "training.json").exists()


def test_the_majority_is_that_of_each_family_and_a_score_below_it_is_warned_of(bundled):
    records = make_records(bundled, "valid")
    tracks = [r for r in records if r.family == "track"]
    most = max(sum(r.answer == other.answer for r in tracks) for other in tracks)
    assert majority_share(tracks) == most / len(tracks)
    both = tracks + [r for r in records if r.family == "ego"][:1]
    assert majority_share(both) == (most + 1) / len(both)
    assert majority_share([]) is None
    assert "0.000 at last" in majority_warning([0.5, 0.0], 0.3)
    assert "lower LEARNING_RATE" in majority_warning([0.3], 0.3)
    assert majority_warning([0.1, 0.5], 0.3) == majority_warning([], None) == ""


def test_training_goes_on_from_an_adapter(tmp_path, frames_dir, base):
    config, folder, train, valid = prepare(tmp_path / "first", frames_dir, base)
    finetune.finetune(finetune.build_trainable(config), config, folder, train, valid)
    more = FinetuneConfig(
        run_dir=str(tmp_path / "second"),
        frames_dir=str(frames_dir),
        base_model=str(base),
        start_adapter=str(tmp_path / "first" / "adapter"),
    )
    answerer = finetune.build_trainable(more)
    weights = adapter_weights(tmp_path / "first")
    name = sorted(weights)[0]
    parameters = {n.replace(".default", ""): p for n, p in answerer.model.named_parameters()}
    assert torch.equal(parameters[name], weights[name])
    assert parameters[name].requires_grad
    assert finetune._settings(more, answerer)["lora_rank"] == 4, "what was done is recorded, not the default"


def test_a_rank_that_the_start_adapter_does_not_have_is_refused():
    config = FinetuneConfig(start_adapter="models/course_adapter", lora_rank=4)
    with pytest.raises(ConfigError, match="LORA_RANK=4: START_ADAPTER models/course_adapter has 16"):
        finetune.build_trainable(config)


def test_dropout_may_change_where_training_goes_on(tmp_path, base):
    save_adapter(fresh(base), tmp_path / "adapter", Image.new("RGB", (2, 2)))
    config = FinetuneConfig(start_adapter=str(tmp_path / "adapter"), base_model=str(base), lora_dropout=0.25)
    answerer = finetune.build_trainable(config)
    found = {module.p for module in answerer.model.modules() if isinstance(module, torch.nn.Dropout)}
    assert 0.25 in found and answerer.model.peft_config["default"].lora_dropout == 0.25


def test_without_a_test_split_valid_is_not_used_to_choose(tmp_path, frames_dir, base):
    only = copy_frames(copy_frames(tmp_path / "data", "train", 2), "valid", 1)
    config, folder, train, valid = prepare(tmp_path / "run", only, base)
    assert train and valid == []
    assert records_to_score(ScoreConfig(run_dir=str(tmp_path / "run"), frames_dir=str(only)), folder)[0] == "valid"


def test_a_packed_example_shows_which_tokens_are_learnt(tmp_path, frames_dir, base):
    config, _, train, _ = prepare(tmp_path, frames_dir, base)
    tokens, learnt, segments = packed_tokens(load_answerer(None, str(base)), train[0])
    shown = [t.replace("Ġ", "") for t, kept in zip(tokens, learnt, strict=True) if kept]
    assert shown[0] == train[0].answers[0] and shown[1] == "<end_of_utterance>"
    assert sum(t == "<end_of_utterance>" for t in shown) == len(train[0].questions) == max(segments)


def test_layers_are_summed_up_by_part(base):
    rows = {row["part"]: row["stored as"] for row in finetune.layer_summary(load_answerer(None, str(base)))}
    assert rows["text model"] == "NF4, 4 bit" and "4 bit" not in rows["vision tower"] + rows["connector"]
