"""What LORA_TARGETS and IMAGE_SIDE train: gradients reach the wanted parts alone, and the adapter answers as before."""

import pytest
import torch
from tiny import copy_frames, fresh, pictures

from stkvlm_lib.config import ConfigError, FinetuneConfig
from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.qa.generate import frames_by_split, write_qa_sets
from stkvlm_lib.vlm.adapter import load_answerer, save_adapter
from stkvlm_lib.vlm.diary import read_log
from stkvlm_lib.vlm.finetune import build_trainable
from stkvlm_lib.vlm.packing import pack
from stkvlm_lib.vlm.train_run import draw_material, train
from stkvlm_lib.vlm.trainer import answer_loss
from stkvlm_lib.vlm.training_batches import Collator

PARTS = {
    "text": {"text_model"},
    "text+connector": {"text_model", "connector"},
    "text+connector+vision": {"text_model", "connector", "vision_model"},
}
QUESTIONS = ["What kart is the ego car?", "What track is this?"]


def part_of(name):
    return next(part for part in ("text_model", "connector", "vision_model") if part in name)


@pytest.mark.parametrize("targets", PARTS)
def test_gradients_reach_these_parts_and_no_other(base_folder, targets):
    answerer = fresh(base_folder, targets=targets)
    asked = [answerer.prompt.segment(QUESTIONS[0], "tux")]
    example, image = pack(answerer.prompt.prefix, asked), pictures(1)[0]
    seen = image if answerer.adapter_sees else answerer.encode([image])[0].clone()
    batch = Collator(answerer)([(example, seen)])
    labels = batch.pop("labels")
    answer_loss(answerer.model(**batch, use_cache=False), labels).backward()
    moved = {part_of(n) for n, p in answerer.model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    open_ = {part_of(n) for n, p in answerer.model.named_parameters() if p.requires_grad}
    assert moved == open_ == PARTS[targets]
    assert answerer.adapter_sees == (targets != "text")


def test_only_the_linear_layers_of_a_part_are_adapted(base_folder):
    answerer = fresh(base_folder, targets="text+connector+vision")
    adapted = {n.split(".lora_A")[0].rsplit(".", 1)[1] for n, _ in answerer.model.named_parameters() if "lora_A" in n}
    text = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert adapted == text | {"proj", "out_proj", "fc1", "fc2"}
    layers = sum("vision_model" in n and "lora_A" in n for n, _ in answerer.model.named_parameters())
    assert layers == 6 * answerer.core.config.vision_config.num_hidden_layers


@pytest.mark.parametrize("targets", PARTS)
def test_an_adapter_answers_as_before_when_it_is_loaded_again(base_folder, tmp_path, targets):
    answerer = fresh(base_folder, targets=targets)
    image = pictures(1)[0]
    before = [answerer.rank(image, question, ["tux", "gnu", "abyss"]) for question in QUESTIONS]
    save_adapter(answerer, tmp_path / "adapter", image)
    again = load_answerer(tmp_path / "adapter", str(base_folder))
    assert again.adapter_sees == (targets != "text")
    for question, ranked in zip(QUESTIONS, before, strict=True):
        now = again.rank(image, question, ["tux", "gnu", "abyss"])
        assert [a.text for a in now] == [a.text for a in ranked]
        assert [a.confidence for a in now] == pytest.approx([a.confidence for a in ranked], rel=1e-4)
        assert again.answer(image, question) == answerer.answer(image, question)


@pytest.fixture(scope="module")
def frames_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for split in ("train", "valid", "test"):
        copy_frames(folder, split, 1)
    return folder


def test_training_what_sees_keeps_no_tokens_and_its_adapter_has_the_picture_size(
    tmp_path, frames_dir, base_folder, monkeypatch
):
    """From the drawing to the adapter, with the smallest pictures."""
    monkeypatch.setenv("STKVLM_FEATURES", str(tmp_path / "features"))
    config = FinetuneConfig(
        run_dir=str(tmp_path),
        frames_dir=str(frames_dir),
        base_model=str(base_folder),
        lora_targets="text+connector+vision",
        image_side=48,
        lora_rank=4,
        batch_size=5,
        epochs=1,
        valid_views=2,
        evaluations=1,
    )
    write_qa_sets(frames_by_split(read_frames(frames_dir), 0), tmp_path / "qa")
    material = draw_material(config)
    facts = train(material, model := build_trainable(config), resume=False)
    assert facts.steps == 2 and not (tmp_path / "features").exists()
    assert {"grad_norm", "loss"} <= read_log(tmp_path)[0].keys()
    moved = {part_of(n) for n, p in model.model.named_parameters() if "lora_B" in n and p.abs().sum() > 0}
    assert moved == PARTS["text+connector+vision"]
    again = load_answerer(tmp_path / "adapter", str(base_folder))
    assert again.image_side == 48 and again.encode(pictures(1)).shape[1] == 4
    assert again.answer(pictures(1)[0], QUESTIONS[0]) == model.answer(pictures(1)[0], QUESTIONS[0])


def test_a_side_that_does_not_fit_is_refused_with_those_that_do(base_folder):
    with pytest.raises(ConfigError, match="IMAGE_SIDE=100: must be a multiple of 24 px .* 0 for its own 192"):
        load_answerer(None, str(base_folder), image_side=100)


def test_the_base_sees_the_same_picture_smaller_in_fewer_tokens(base_folder):
    smaller, own = (load_answerer(None, str(base_folder), image_side=side) for side in (96, 0))
    assert [len(model.encode(pictures(1))[0]) for model in (smaller, own)] == [16, 64]
    assert len(own.prompt.prefix) - len(smaller.prompt.prefix) == 48
    same = load_answerer(None, str(base_folder), image_side=192)
    torch.testing.assert_close(same.encode(pictures(1)), own.encode(pictures(1)))
