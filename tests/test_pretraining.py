"""Pretraining of the embedded base: its stages, resuming, and the exported model."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import copy_frames
from transformers import AutoModelForImageTextToText, AutoProcessor

from stkvlm_lib.pretraining.__main__ import export, main
from stkvlm_lib.pretraining.embedded import GRID, build_model, build_processor
from stkvlm_lib.pretraining.language_stage import LanguageStage, right_answers
from stkvlm_lib.pretraining.pictures import Pictures
from stkvlm_lib.pretraining.prompts import Task
from stkvlm_lib.pretraining.training import FALLING, CheckpointError, Mean, StageConfig, StageTraining
from stkvlm_lib.pretraining.vision_stage import BLOCK, BLOCKS_SEEN, VisionStage, encode, every_patch, some_blocks
from stkvlm_lib.vlm.packing import IGNORE

TINY = StageConfig(steps=3, batch_size=2, warmup_steps=1, seed=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two bundled frames of train and one of valid."""
    return copy_frames(copy_frames(tmp_path_factory.mktemp("frames"), "train", 2), "valid", 1)


@pytest.fixture(scope="module")
def pictures(data) -> Pictures:
    return Pictures([data])


@pytest.fixture(scope="module")
def processor():
    return build_processor()


def vision(processor) -> StageTraining:
    torch.manual_seed(0)
    return StageTraining(VisionStage(build_model(processor).model.vision_model), TINY)


def language(processor) -> StageTraining:
    torch.manual_seed(0)
    model = build_model(processor).requires_grad_(False)
    stage = LanguageStage(model, processor)
    stage.trained.requires_grad_(True)
    return StageTraining(stage, TINY)


STAGES = pytest.mark.parametrize("stage", [vision, language])


def weights(training: StageTraining) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in training.stage.trained.state_dict().items()}


def train(training: StageTraining, pictures: Pictures) -> StageTraining:
    while training.step < training.config.steps:
        training.train_step(pictures)
    return training


# What is looked at


def test_blocks_with_karts_come_first_and_whole():
    covered = torch.zeros(2, GRID, GRID, dtype=torch.bool)
    covered[0, 5, 9] = covered[0, 0, 0] = True  # in the blocks at (1, 2) and (0, 0)
    index = some_blocks(covered.flatten(1))
    assert index.shape == (2, BLOCKS_SEEN * BLOCK**2)
    seen = torch.zeros(2, GRID * GRID, dtype=torch.bool).scatter_(1, index, True).view(2, GRID, GRID)
    assert (seen.flatten(1).sum(1) == index.shape[1]).all()  # none twice
    assert seen[0, 4:8, 8:12].all() and seen[0, :4, :4].all()
    blocks = seen.view(2, GRID // BLOCK, BLOCK, GRID // BLOCK, BLOCK).float().mean((2, 4))
    assert set(blocks.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(some_blocks(covered.flatten(1)), index)


def test_the_tower_sees_through_encode_what_it_sees_by_itself(processor):
    torch.manual_seed(0)
    model = build_model(processor).eval()
    tower = model.model.vision_model
    pixels = torch.rand(2, 3, tower.config.image_size, tower.config.image_size)
    with torch.no_grad():
        whole = tower(pixel_values=pixels * 2 - 1).last_hidden_state
        assert torch.allclose(encode(tower, pixels), whole, atol=1e-5)
        assert torch.allclose(encode(tower, pixels, every_patch(2)), whole, atol=1e-5)


# Both stages


@STAGES
def test_a_stage_trains_its_part_and_nothing_else(stage, processor, pictures):
    training = stage(processor)
    model = training.stage.model if stage is language else training.stage.vision
    others = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    start = weights(training)
    values = training.train_step(pictures)
    assert all(np.isfinite(value) for value in values.values())
    moved = {name.split(".")[0] for name, value in weights(training).items() if (value != start[name]).any()}
    assert moved == set(training.stage.trained)
    assert all(torch.equal(p, others[name]) for name, p in model.named_parameters() if name in others)


@STAGES
def test_an_interrupted_training_ends_with_the_same_weights(stage, processor, pictures, tmp_path):
    expected = weights(train(stage(processor), pictures))
    first = stage(processor)
    first.train_step(pictures)
    first.seconds = 12.5
    first.save(tmp_path / "stage.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["stage.safetensors"]
    second = stage(processor)
    torch.manual_seed(99)
    second.restore(tmp_path / "stage.safetensors")
    assert (second.step, second.seconds) == (1, 12.5)
    assert not all(torch.equal(value, expected[name]) for name, value in weights(second).items())
    train(second, pictures)
    assert all(torch.equal(value, expected[name]) for name, value in weights(second).items())


@STAGES
def test_evaluating_in_between_changes_nothing(stage, processor, pictures):
    expected = weights(train(stage(processor), pictures))
    training = stage(processor)
    training.train_step(pictures)
    first, again = training.evaluate(pictures, size=4), training.evaluate(pictures, size=4)
    assert first == again and np.isfinite(list(first.values())).all()
    train(training, pictures)
    assert all(torch.equal(value, expected[name]) for name, value in weights(training).items())


def test_a_checkpoint_of_other_settings_is_refused(processor, tmp_path):
    training = vision(processor)
    training.save(tmp_path / "a")
    training.config = replace(TINY, seed=4)
    with pytest.raises(CheckpointError, match="other settings"):
        training.restore(tmp_path / "a")


def test_rates_warm_up_stay_and_fall(processor):
    training = vision(processor)
    training.config = replace(TINY, steps=100, warmup_steps=10)
    rates = []
    for training.step in range(100):
        rates.append(training.rate())
    assert rates[0] == pytest.approx(0.1) and rates[9:50] == [1.0] * 41
    falling = rates[int(100 * (1 - FALLING)) + 2 :]
    assert falling == sorted(falling, reverse=True) and falling[-1] < 0.05


def test_a_mean_weighs_and_starts_anew():
    mean = Mean()
    mean.add({"a": 1.0}, 3)
    mean.add({"a": 5.0, "b": 2.0}, 1)
    assert mean.take() == {"a": 2.0, "b": 2.0}
    assert mean.take() == {}


# The language stage


def test_tasks_are_laid_out_as_the_processor_lays_out_a_message(processor, pictures):
    """What pretraining feeds is what answering feeds, so that nothing has to be relearned."""
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "where tux"}]}
    text = processor.apply_chat_template([message], add_generation_prompt=True)
    expected = processor(text=[text], images=[[pictures.views[0].image()]])["input_ids"][0]
    prompt = language(processor).stage.prompt
    assert [*prompt.prefix, *prompt.question("where tux")] == expected


def test_an_answer_is_right_to_the_last_token():
    tasks = [[Task("where", "", ""), Task("ego", "", "")], [Task("ego", "", "")]]
    labels = torch.tensor([[5, 6, 7, 1], [8, 1, IGNORE, IGNORE]])
    segments = torch.tensor([[1, 1, 2, 2], [1, 1, 0, 0]])
    assert right_answers(tasks, labels.clamp(min=0), labels, segments) == {"where": 1.0, "ego": 1.0}
    said = torch.tensor([[5, 0, 7, 1], [8, 1, 0, 0]])
    assert right_answers(tasks, said, labels, segments) == {"where": 0.0, "ego": 1.0}
    said = torch.tensor([[5, 6, 7, 0], [8, 1, 0, 0]])
    assert right_answers(tasks, said, labels, segments) == {"where": 1.0, "ego": 0.5}


# The command


def test_the_exported_model_is_fp16_and_answers_like_the_trained_one(processor, pictures, tmp_path):
    torch.manual_seed(0)
    model = build_model(processor).eval()
    export(model, processor, tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 20e6
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert loaded.dtype == torch.float16
    again = AutoProcessor.from_pretrained(tmp_path)
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What track is this?"}]}
    text = again.apply_chat_template([message], add_generation_prompt=True)
    batch = again(text=[text], images=[[pictures.views[0].image()]], return_tensors="pt")
    with torch.no_grad():
        ours, theirs = model(**batch).logits, loaded.float().eval()(**batch).logits
    assert (ours - theirs).abs().max() < 0.02 * ours.abs().max()


def test_the_command_trains_logs_and_exports_and_a_second_call_only_exports(data, tmp_path, monkeypatch):
    out, work = tmp_path / "model", tmp_path / "work"
    settings = ["--vision-steps", "1", "--language-steps", "1", "--vision-batch", "2", "--language-batch", "2"]
    command = ["pretraining", "--frames", str(data), "--out", str(out), "--work", str(work), *settings]
    monkeypatch.setattr("sys.argv", command)
    monkeypatch.setattr("stkvlm_lib.pretraining.__main__.set_up_torch", lambda: None)
    main()
    first = (out / "model.safetensors").read_bytes()
    rows = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["step"]) for row in rows] == [("vision", 1), ("language", 1)]
    assert "kart_right" in rows[0]["valid"] and "track" in rows[1]["valid"]
    shutil.rmtree(out)
    main()
    assert (out / "model.safetensors").read_bytes() == first
    assert len((work / "log.jsonl").read_text().splitlines()) == 2
    monkeypatch.setattr("sys.argv", [*command, "--seed", "1"])
    with pytest.raises(SystemExit):
        main()
