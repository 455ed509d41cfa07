import contextlib
import json
import shutil

import bitsandbytes as bnb
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from stkvlm_lib.vlm import base_vlm
from stkvlm_lib.vlm.base_vlm import ModelError, Prompt, find_base, load_base, load_processor


def test_text_layers_alone_are_in_four_bits(base_folder):
    model = load_base(find_base(str(base_folder)))
    four_bit = {name for name, module in model.named_modules() if isinstance(module, bnb.nn.Linear4bit)}
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert four_bit == {name for name in linear if name.startswith("model.text_model.")}
    assert len(four_bit) == 7 * model.config.text_config.num_hidden_layers
    state = model.get_submodule(sorted(four_bit)[0]).weight.quant_state
    assert state.quant_type == "nf4" and state.nested
    assert model.lm_head.weight.dtype == torch.float32
    assert not any(p.requires_grad for p in model.parameters())


def test_a_base_whose_layers_are_named_otherwise_is_refused(base_folder, monkeypatch):
    monkeypatch.setattr(base_vlm, "FULL_PRECISION", ["vision_model", "connector"])
    with pytest.raises(ModelError, match="layer .* is 4-bit"):
        load_base(find_base(str(base_folder)))


def test_prompt_is_the_chat_template_of_the_processor(base_folder):
    processor = load_processor(find_base(str(base_folder)))
    prompt = Prompt(processor)
    question = "Where is tux relative to the ego car?"
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    ids = processor(text=text, images=[Image.new("RGB", (150, 100))])["input_ids"][0]
    assert prompt.prefix + prompt.question(question) == list(ids)
    segment = prompt.segment(question, "front and left")
    learnt = segment.ids[-segment.n_answer :]
    assert prompt.tokenizer.decode(learnt) == "front and left <end_of_utterance>"
    options = prompt.options(question, ["front and left", "back and left"])
    assert options.question == segment.ids[: -segment.n_answer] and options.answers[0] == learnt


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


def test_the_processor_makes_one_crop_of_a_frame_whatever_the_base_says(base_folder, tmp_path):
    shutil.copytree(base_folder, tmp_path / "splitting")
    path = tmp_path / "splitting" / "processor_config.json"
    settings = json.loads(path.read_text())
    settings["image_processor"] |= {"do_image_splitting": True, "size": {"longest_edge": 1456}}
    path.write_text(json.dumps(settings | {"image_seq_len": 169}))
    processor = load_processor(find_base(str(tmp_path / "splitting")))
    assert processor.image_seq_len == 64, "as the weights make, whatever the file says"
    pixels = processor.image_processor(images=[[Image.new("RGB", (600, 400))]], return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 1, 3, 192, 192)


@pytest.fixture
def copied(base_folder, tmp_path):
    return shutil.copytree(base_folder, tmp_path / "copied")


def change(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def spoil(path, change):
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def test_weights_of_a_base_that_are_missing_or_no_numbers_are_named(copied):
    path = copied / "model.safetensors"
    spoil(path, lambda weights: weights.pop("model.text_model.norm.weight"))
    with pytest.raises(ModelError, match="copied: 1 of its weights are missing, as model.text_model.norm.weight"):
        load_base(find_base(str(copied)))
    spoil(path, lambda weights: weights["model.text_model.embed_tokens.weight"].fill_(float("nan")))
    with pytest.raises(ModelError, match="model.safetensors: model.text_model.embed_tokens.weight holds NaN"):
        load_base(find_base(str(copied)))


def test_a_base_of_other_shapes_than_it_says_is_refused(copied):
    config = json.loads((copied / "config.json").read_text())
    config["text_config"]["intermediate_size"] += 32
    change(copied / "config.json", **config)
    with pytest.raises(ModelError, match=r"layer .*mlp.* has weights of shape .*, but config.json says"):
        load_base(find_base(str(copied)))
    with pytest.raises(ModelError, match="copied: (its model cannot be loaded|.*have other shapes).*BASE_MODEL"):
        load_base(find_base(str(copied)), "none")


@pytest.mark.parametrize("template", ["{{ messages[0]['role'] }}", "{question}<image>", "no question: <image>"])
def test_a_chat_template_without_a_picture_before_the_question_is_named(copied, template):
    (copied / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelError, match="copied: its processor .*template lays out no picture with a question after"):
        load_processor(find_base(str(copied)))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("tokenizer.json", {"model": {"type": "Unheard"}}),
        ("tokenizer.json", {"model": None, "version": 7}),
        ("processor_config.json", {"image_processor": []}),
        ("processor_config.json", {"processor_class": "Unheard", "image_processor": {"max_image_size": 3}}),
    ],
)
def test_a_processor_that_cannot_be_made_is_named_in_one_line(copied, name, changes):
    change(copied / name, **changes)
    with pytest.raises(ModelError, match="copied: its processor cannot be loaded") as error:
        load_processor(find_base(str(copied)))
    assert "\n" not in str(error.value)


def test_a_tokenizer_without_the_tokens_of_the_class_is_refused(copied):
    """The processor adds them at the end, where the weights have nothing."""
    config = json.loads((copied / "config.json").read_text())
    config["text_config"]["vocab_size"] = len(load_processor(find_base(str(copied))).tokenizer) - 1
    change(copied / "config.json", **config)
    with pytest.raises(ModelError, match=r"copied: its weights have .*, but its processor .* \(with .+\); resize"):
        load_processor(find_base(str(copied)))


def test_code_that_comes_with_a_base_is_never_run_nor_asked_about(copied, tmp_path, monkeypatch):
    """As a person who answers every question with yes would have it run."""
    sprung = tmp_path / "sprung"
    (copied / "trap.py").write_text(f"import pathlib; pathlib.Path({str(sprung)!r}).touch(); Trap = object")
    classes = ("AutoConfig", "AutoModelForImageTextToText", "AutoProcessor", "AutoTokenizer", "AutoImageProcessor")
    for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
        change(copied / name, auto_map=dict.fromkeys(classes, "trap.Trap"))
    monkeypatch.setattr("builtins.input", lambda *question: pytest.fail("asked"))
    base = find_base(str(copied))
    for load in (load_base, load_processor):
        with contextlib.suppress(ModelError):
            load(base)
    assert not sprung.exists()
