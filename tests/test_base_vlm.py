import json
import shutil

import bitsandbytes as bnb
import pytest
import torch
from PIL import Image, ImageOps
from tiny import make_base

from stkvlm_lib import base_vlm
from stkvlm_lib.base_vlm import (
    AnswerModel,
    ModelError,
    adapter_mb,
    find_base,
    image_outputs,
    load_answerer,
    load_base,
    load_processor,
    mean_image,
    new_adapter,
    save_adapter,
)
from stkvlm_lib.config import ROOT
from stkvlm_lib.finetune import answer_loss
from stkvlm_lib.packing import collate, pack

QUESTIONS = [
    ["What track is this?", "How many karts are to the left of the ego car?", "What kart is the ego car?"],
    ["Is tux in front of or behind the ego car?"],
    [],
]


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def images():
    files = sorted((ROOT / "frames" / "test").glob("*_im.jpg"))[:3]
    return [Image.open(file).convert("RGB") for file in files]


def fresh(base_folder, quantization="nf4", seed=0) -> AnswerModel:
    """A base with a new adapter whose B matrices are not zero, so that it changes answers and passes gradients."""
    base = find_base(str(base_folder))
    model = new_adapter(load_base(base, quantization), rank=4, alpha=8, dropout=0.0, seed=seed)
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1)
    return AnswerModel(base, model, load_processor(base))


def packed_batch(answerer, images):
    questions = [
        [("What track is this?", "abyss"), ("What kart is the ego car?", "tux")],
        [("What track is this?", "mines")],
    ]
    packed = [pack(answerer.prompt.prefix, [answerer.prompt.segment(q, a) for q, a in pairs]) for pairs in questions]
    batch = collate(packed, answerer.prompt.tokenizer.pad_token_id)
    batch = {name: tensor.to(answerer.device) for name, tensor in batch.items()}
    return {**batch, "mm_encoder_outputs": image_outputs(answerer.encode(images[:2]).clone())}


def gradients(answerer, batch):
    answerer.model.train()
    answerer.model.zero_grad()
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    answer_loss(answerer.model(**inputs, use_cache=False), batch["labels"]).backward()
    return {name: p.grad.clone() for name, p in answerer.model.named_parameters() if p.requires_grad}


def test_text_layers_alone_are_in_four_bits(base_folder):
    model = load_base(find_base(str(base_folder)))
    four_bit = {name for name, module in model.named_modules() if isinstance(module, bnb.nn.Linear4bit)}
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert four_bit == {name for name in linear if name.startswith("model.text_model.")}
    assert len(four_bit) == 7 * model.config.text_config.num_hidden_layers
    state = model.get_submodule(sorted(four_bit)[0]).weight.quant_state
    assert state.quant_type == "nf4" and state.nested
    assert model.lm_head.weight is model.model.text_model.embed_tokens.weight
    assert not any(p.requires_grad for p in model.parameters())


def test_a_base_whose_layers_are_named_otherwise_is_refused(base_folder, monkeypatch):
    monkeypatch.setattr(base_vlm, "FULL_PRECISION", ["vision_model", "connector"])
    with pytest.raises(ModelError, match="layer .* is 4-bit"):
        load_base(find_base(str(base_folder)))


def test_the_adapter_reaches_the_text_model_alone_and_is_seeded(base_folder):
    first = new_adapter(load_base(find_base(str(base_folder))), rank=4, alpha=8, dropout=0.0, seed=1)
    again = new_adapter(load_base(find_base(str(base_folder))), rank=4, alpha=8, dropout=0.0, seed=1)
    other = new_adapter(load_base(find_base(str(base_folder))), rank=4, alpha=8, dropout=0.0, seed=2)
    names = [name for name, p in first.named_parameters() if p.requires_grad]
    assert names and all("text_model" in name and "lora_" in name for name in names)
    weights = [dict(model.named_parameters())[names[0]] for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_gradients_after_an_evaluation_equal_those_before(base_folder, images):
    answerer = fresh(base_folder)
    batch = packed_batch(answerer, images)
    before = gradients(answerer, batch)
    answerer.answer_encoded(answerer.encode(images[:2]), QUESTIONS[:2])
    after = gradients(answerer, batch)
    assert before.keys() == after.keys() and all(g.abs().sum() > 0 for g in before.values())
    for name, gradient in before.items():
        assert torch.allclose(gradient, after[name], rtol=1e-4, atol=1e-7), name


def test_batched_answers_equal_generate_one_by_one(base_folder, images):
    """The shared image prefix and the padding change nothing against the library's own generation."""
    answerer = fresh(base_folder, "none")
    answers = answerer.answer_encoded(answerer.encode(images), QUESTIONS)
    assert [len(group) for group in answers] == [3, 1, 0]
    for image, questions, group in zip(images, QUESTIONS, answers, strict=True):
        for question, answer in zip(questions, group, strict=True):
            chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
            text = answerer.processor.apply_chat_template(chat, add_generation_prompt=True)
            inputs = answerer.processor(text=text, images=[image], return_tensors="pt")
            generated = answerer.model.generate(
                **inputs,
                max_new_tokens=base_vlm.MAX_ANSWER_TOKENS,
                do_sample=False,
                eos_token_id=answerer.prompt.stop_id,
                pad_token_id=answerer.prompt.tokenizer.pad_token_id,
                output_scores=True,
                return_dict_in_generate=True,
            )
            new = generated.sequences[0, inputs["input_ids"].shape[1] :]
            expected = answerer.prompt.tokenizer.decode(new, skip_special_tokens=True).strip()
            assert answer.text == expected
            steps = [scores[0].log_softmax(-1)[token] for scores, token in zip(generated.scores, new, strict=True)]
            assert answer.confidence == pytest.approx(float(torch.stack(steps).sum().exp()), rel=1e-3)


def test_prompt_is_the_chat_template_of_the_processor(base_folder):
    answerer = fresh(base_folder)
    question = "Where is tux relative to the ego car?"
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    text = answerer.processor.apply_chat_template(chat, add_generation_prompt=True)
    ids = answerer.processor(text=text, images=[Image.new("RGB", (150, 100))])["input_ids"][0]
    assert answerer.prompt.prefix + answerer.prompt.question(question) == list(ids)
    segment = answerer.prompt.segment(question, "front and left")
    learnt = segment.ids[-segment.n_answer :]
    assert answerer.prompt.tokenizer.decode(learnt) == " front and left<end_of_utterance>"


def test_one_picture_of_any_size_is_answered(base_folder, images):
    answerer = fresh(base_folder)
    tall = ImageOps.exif_transpose(images[0].resize((90, 333)))
    answer = answerer.answer(tall, "What track is this?")
    assert isinstance(answer.text, str) and 0 <= answer.confidence <= 1


def test_a_saved_adapter_answers_as_before_and_names_its_base(base_folder, images, tmp_path):
    answerer = fresh(base_folder)
    features = answerer.encode(images)
    before = answerer.answer_encoded(features, QUESTIONS)
    size = save_adapter(answerer, tmp_path / "adapter", images[0], note="here")
    assert size == adapter_mb(tmp_path / "adapter") < 50
    record = json.loads((tmp_path / "adapter" / "stkvlm.json").read_text())
    assert record["base"]["name"] == base_folder.name and record["note"] == "here"
    saved = "".join(f.read_text() for f in (tmp_path / "adapter").iterdir() if f.suffix in (".json", ".md", ".jinja"))
    assert str(base_folder) not in saved
    assert mean_image(tmp_path / "adapter").size == images[0].size
    again = load_answerer(tmp_path / "adapter", str(base_folder))
    assert again.answer_encoded(features, QUESTIONS) == before
    with again.without_adapter():
        assert again.answer_encoded(features, QUESTIONS) != before


def test_an_adapter_of_another_base_is_refused(base_folder, images, tmp_path):
    save_adapter(fresh(base_folder), tmp_path / "adapter", images[0])
    other = make_base(tmp_path / "other", seed=5)
    with pytest.raises(ModelError, match="made on base .* set BASE_MODEL"):
        load_answerer(tmp_path / "adapter", str(other))


def test_truncated_weights_are_named(base_folder, images, tmp_path):
    save_adapter(fresh(base_folder), tmp_path / "adapter", images[0])
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="adapter: weights cannot be read"):
        load_answerer(tmp_path / "adapter", str(base_folder))


def test_an_oversized_adapter_is_refused(base_folder, images, tmp_path, monkeypatch):
    monkeypatch.setattr(base_vlm, "MAX_ADAPTER_MB", 0.1)
    with pytest.raises(ModelError, match="lower LORA_RANK"):
        save_adapter(fresh(base_folder), tmp_path / "adapter", images[0])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere/at-all", ["nowhere/at-all", "HF_HUB_OFFLINE", "local folder"]),
        ("no_such_folder", ["no such folder", "hub id"]),
        ("tests", ["no *.safetensors"]),
    ],
)
def test_a_base_that_cannot_be_had_says_why_and_what_to_do(name, words):
    with pytest.raises(ModelError) as error:
        find_base(name)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("missing", ["adapter_config.json", "stkvlm.json", "mean_image.png"])
def test_an_incomplete_adapter_folder_is_named(base_folder, images, tmp_path, missing):
    save_adapter(fresh(base_folder), tmp_path / "adapter", images[0])
    (tmp_path / "adapter" / missing).unlink()
    with pytest.raises((ModelError, FileNotFoundError), match="adapter"):
        load_answerer(tmp_path / "adapter", str(base_folder))
        mean_image(tmp_path / "adapter")


def test_the_processor_makes_one_crop_of_a_frame_whatever_the_base_says(base_folder, tmp_path):
    shutil.copytree(base_folder, tmp_path / "splitting")
    path = tmp_path / "splitting" / "processor_config.json"
    settings = json.loads(path.read_text())
    settings["image_processor"] |= {"do_image_splitting": True, "size": {"longest_edge": 1456}}
    path.write_text(json.dumps(settings))
    processor = load_processor(find_base(str(tmp_path / "splitting")))
    pixels = processor.image_processor(images=[[Image.new("RGB", (600, 400))]], return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 1, 3, 192, 192)
