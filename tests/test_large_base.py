"""The path to SmolVLM-256M-Instruct, walked with its architecture and random weights: 4 bit, LoRA, packing, answers."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny import copy_frames, pictures
from torch import nn

from stkvlm_lib.config import PROFILES, FinetuneConfig
from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.parameters import make_config
from stkvlm_lib.pretraining import random_smolvlm
from stkvlm_lib.qa.generate import frames_by_split, write_qa_sets
from stkvlm_lib.qa.training_draw import read_questions
from stkvlm_lib.vlm.adapter import load_answerer, new_adapter
from stkvlm_lib.vlm.base_vlm import find_base, load_base
from stkvlm_lib.vlm.finetune import build_trainable, finetune, layer_summary
from stkvlm_lib.vlm.packing import IGNORE

ADAPTER_MB = {8: 9.8, 16: 19.5, 32: 39.1}
"""Rank -> fp32 weights of an adapter on all seven linear layers of each of the 30 blocks, MB of 10^6 bytes."""


def adapter_weights(rank: int) -> int:
    """rank x (inputs + outputs) of q, k, v, o, gate, up and down, in 30 blocks."""
    width, keys, inner = 576, 192, 1536
    return 30 * rank * (2 * (width + width) + 2 * (width + keys) + 3 * (width + inner))


def test_the_configuration_is_the_published_one():
    with torch.device("meta"):
        model = random_smolvlm.build_model(random_smolvlm.build_processor())
    assert sum(p.numel() for p in model.parameters()) == random_smolvlm.PARAMETERS
    vision, text = model.config.vision_config, model.config.text_config
    assert (vision.image_size // vision.patch_size // model.config.scale_factor) ** 2 == random_smolvlm.IMAGE_TOKENS
    assert text.hidden_size // text.num_attention_heads == text.head_dim == 64
    assert model.lm_head.out_features == 49280 and not model.config.tie_word_embeddings


def test_the_larger_one_has_as_many_weights_as_published():
    with torch.device("meta"):
        model = random_smolvlm.build_model(random_smolvlm.build_processor(), random_smolvlm.TEXT_500M)
    assert sum(p.numel() for p in model.parameters()) == random_smolvlm.PARAMETERS_500M


@pytest.mark.parametrize("rank", ADAPTER_MB)
def test_an_adapter_has_the_size_that_is_said(rank):
    with torch.device("meta"):
        model = new_adapter(
            random_smolvlm.build_model(random_smolvlm.build_processor()), rank=rank, alpha=rank, dropout=0.0, seed=0
        )
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trainable == adapter_weights(rank)
    assert round(4 * trainable / 1e6, 1) == ADAPTER_MB[rank]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return random_smolvlm.write_random_smolvlm(tmp_path_factory.mktemp("large"))


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    """Two steps of one picture each with the settings of the profile `gpu`; -> run folder, facts of the training."""
    run, frames = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("frames")
    for split in ("train", "valid"):
        copy_frames(frames, split, 1)
    settings = PROFILES["gpu"] | {"BASE_MODEL": str(base), "RUN_DIR": str(run), "FRAMES_DIR": str(frames)}
    settings |= {"TRAIN_VIEWS": 2, "VALID_VIEWS": 1, "EPOCHS": 1, "BATCH_SIZE": 1, "EVALUATIONS": 1, "MIRROR": False}
    config = make_config(settings, FinetuneConfig)
    folder = read_frames(config.frames_paths)
    write_qa_sets(frames_by_split(folder, 0), run / "qa")
    train, valid = read_questions(config, folder)
    return run, finetune(build_trainable(config), config, folder, train, valid[:2])


@pytest.mark.slow
def test_the_text_model_alone_is_in_4_bit(base):
    model = load_base(find_base(str(base)))
    four_bit = [name for name, m in model.named_modules() if type(m).__name__ == "Linear4bit"]
    assert len(four_bit) == 30 * 7 and all(name.startswith("model.text_model.") for name in four_bit)
    assert type(model.lm_head) is nn.Linear


@pytest.mark.slow
def test_it_trains_is_saved_with_its_picture_settings_and_answers_as_before(base, trained):
    run, facts = trained
    assert facts.steps == 2 and facts.questions > 4
    assert facts.trainable_parameters == adapter_weights(16)
    weights = load_file(run / "adapter" / "adapter_model.safetensors")
    assert sum(w.numel() for w in weights.values()) == adapter_weights(16)
    assert any(w.abs().sum() > 0 for name, w in weights.items() if "lora_B" in name), "it has learnt something"
    assert ADAPTER_MB[16] < facts.adapter_mb < ADAPTER_MB[16] + 1

    saved = json.loads((run / "adapter" / "processor_config.json").read_text())
    picture = saved["image_processor"]
    assert picture["do_image_splitting"] is False and saved["image_seq_len"] == 64
    assert picture["size"] == picture["max_image_size"] == {"longest_edge": 512}

    answerer = load_answerer(run / "adapter", str(base))
    image = pictures(1)[0]
    given = answerer.processor.image_processor(images=[[image]], return_tensors="pt")
    assert given["pixel_values"].shape == (1, 1, 3, 512, 512)
    features = answerer.encode([image])
    assert features.shape == (1, 64, 576)
    assert answerer.prompt.prefix.count(answerer.processor.image_token_id) == 64
    questions = [["What track is this?", "What kart is the ego car?"]]
    answers = answerer.answer_encoded(features, questions)
    assert [len(group) for group in answers] == [2] and all(0 <= a.confidence <= 1 for a in answers[0])
    ranked = answerer.likelihoods(features, [[("What track is this?", ("abyss", "minigolf"))]])[0][0]
    assert {candidate.text for candidate in ranked} == {"abyss", "minigolf"}
    parts = {row["part"]: row["stored as"] for row in layer_summary(answerer)}
    assert parts["text model"] == "NF4, 4 bit" and "4 bit" not in parts["vision tower"]


@pytest.mark.slow
def test_packed_questions_read_as_if_each_stood_alone(base):
    from stkvlm_lib.vlm.answering import image_outputs
    from stkvlm_lib.vlm.packing import collate, pack

    answerer = load_answerer(None, str(base))
    features = answerer.encode(pictures(1))
    pairs = [("What track is this?", "abyss"), ("What kart is the ego car?", "tux")]
    segments = [answerer.prompt.segment(*pair) for pair in pairs]

    def losses(rows):
        batch = collate([pack(answerer.prompt.prefix, rows)], answerer.prompt.tokenizer.pad_token_id)
        batch = {name: tensor.to(answerer.device) for name, tensor in batch.items()}
        labels = batch.pop("labels")
        with torch.inference_mode():
            out = answerer.model(**batch, mm_encoder_outputs=image_outputs(features), use_cache=False)
        chances = out.logits.float().log_softmax(-1)[0]
        return [float(chances[i, label]) for i, label in enumerate(labels[0].tolist()) if label != IGNORE]

    together = losses(segments)
    alone = [value for segment in segments for value in losses([segment])]
    assert together == pytest.approx(alone, abs=1e-3 if answerer.device.type == "cpu" else 5e-2)
