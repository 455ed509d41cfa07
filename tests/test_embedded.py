"""The embedded base before training: tokenizer, chat format, picture settings, size, and a round trip through disk."""

import random
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, Idefics3ForConditionalGeneration

from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.grammar.questions import FAMILIES, KARTS, TRACKS
from stkvlm_lib.grammar.scene import STRICT_RULES, read_scene
from stkvlm_lib.grammar.spelling import plain
from stkvlm_lib.grammar.wordings import language
from stkvlm_lib.pretraining.embedded import (
    GRID,
    IMAGE_TOKENS,
    INPUT_SIZE,
    SPECIAL_TOKENS,
    UNREAD,
    build_model,
    build_processor,
)
from stkvlm_lib.pretraining.prompts import draw_tasks

FRAMES = Path(__file__).parent.parent / "frames"
ONE_WORD_ANSWERS = sorted(
    {a for family in FAMILIES.values() for a in family.answers if " " not in a} | {*KARTS, *TRACKS}
)
QUESTION = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What track is this?"}]}]
ANSWER = {"role": "assistant", "content": [{"type": "text", "text": "abyss"}]}


@pytest.fixture(scope="module")
def processor():
    return build_processor()


@pytest.fixture(scope="module")
def tokenizer(processor):
    return processor.tokenizer


@pytest.fixture(scope="module")
def picture():
    return read_frames(FRAMES).views("test")[0].image()


def encode(tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


# Tokenizer


@pytest.mark.parametrize("answer", ONE_WORD_ANSWERS)
def test_every_one_word_answer_is_one_token(tokenizer, answer):
    (token,) = encode(tokenizer, f" {answer}")
    assert tokenizer.decode([token]) == answer


def test_answers_have_tokens_of_their_own(tokenizer):
    assert {"1", "10", "left", "front", "sara_the_racer"} <= set(ONE_WORD_ANSWERS)
    assert len({tuple(encode(tokenizer, f" {answer}")) for answer in ONE_WORD_ANSWERS}) == len(ONE_WORD_ANSWERS)


@pytest.mark.parametrize("answer", FAMILIES["where"].answers)
def test_answers_of_three_words_are_three_tokens(tokenizer, answer):
    assert len(encode(tokenizer, f" {answer}")) == 3
    assert tokenizer.decode(encode(tokenizer, f" {answer}")) == answer


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_words_of_questions_are_one_token_each(tokenizer, family):
    for wording in range(len(family.wordings)):
        question = family.write(wording, ("sara_the_wizard", "xue")[: len(family.slots)])
        assert tokenizer.convert_ids_to_tokens(encode(tokenizer, question)) == plain(question).split()


@pytest.mark.parametrize("family", FAMILIES)
def test_words_of_the_language_are_one_token_each(tokenizer, family):
    """A slip of the keyboard is spelled with pieces; it has no two of them in most of the wordings."""
    drawn = [language().draw(family, random.Random(seed)) for seed in range(60)]
    whole = [text for text in drawn if len(encode(tokenizer, re.sub(r"\{\w+\}", "tux", text))) == len(text.split())]
    assert len(whole) > 40


def test_words_of_prompts_and_their_answers_are_one_token_each(tokenizer):
    """For every task of some bundled views; a name in pieces could not be told by one look."""
    for view in read_frames(FRAMES).views("train")[::40]:
        for task in draw_tasks(read_scene(view), read_scene(view, rules=STRICT_RULES), 99, seed=0):
            assert len(encode(tokenizer, task.prompt)) == len(task.prompt.split())
            assert len(encode(tokenizer, f" {task.answer}")) == len(task.answer.split())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("  two  Spaces \t tab\n\nlines?! ", ["two", "spaces", "tab", "lines"]),
        ("Größe café e\u0301", ["große", "cafe", "e"]),
        ("zbrqwx kartz under_score 1000000", ["zbrqwx", "kartz", "under_score", "1000000"]),
    ],
)
def test_any_text_in_latin_letters_is_spelled_from_pieces(tokenizer, text, words):
    read = tokenizer.decode(encode(tokenizer, text)).split()
    assert read == [word if "ß" not in word else UNREAD for word in words]


def test_other_scripts_are_read_as_something_unread(tokenizer):
    assert tokenizer.convert_ids_to_tokens(encode(tokenizer, "你好 Привет tux")) == [UNREAD, UNREAD, "tux"]


def test_special_tokens_are_one_token_wherever_they_stand(tokenizer):
    ids = [encode(tokenizer, f"{token}") for token in SPECIAL_TOKENS]
    assert all(len(i) == 1 for i in ids) and len({i[0] for i in ids}) == len(SPECIAL_TOKENS)
    stop = tokenizer.convert_tokens_to_ids("<end_of_utterance>")
    assert encode(tokenizer, " tux<end_of_utterance>\nAssistant:").count(stop) == 1
    assert tokenizer.eos_token_id == stop
    assert tokenizer.pad_token_id not in (stop, tokenizer.bos_token_id)
    assert tokenizer.decode(encode(tokenizer, " tux<end_of_utterance>"), skip_special_tokens=True) == "tux"


def test_a_prompt_and_its_answer_tokenise_apart_as_together(tokenizer):
    prompt, answer = "User:What track is this?<end_of_utterance>\nAssistant:", " abyss<end_of_utterance>"
    assert encode(tokenizer, prompt + answer) == encode(tokenizer, prompt) + encode(tokenizer, answer)


def test_the_tokenizer_is_the_same_whenever_it_is_built(tokenizer):
    again = build_processor().tokenizer
    assert again.get_vocab() == tokenizer.get_vocab()
    text = "Is amanda in front of or behind the ego car? Größe, unsegmented"
    assert encode(again, text) == encode(tokenizer, text)


# Chat format and picture settings


def test_chat_format_is_that_of_smolvlm(processor):
    prompt = "<|im_start|>User:<image>What track is this?<end_of_utterance>\nAssistant:"
    assert processor.apply_chat_template(QUESTION, add_generation_prompt=True) == prompt
    assert processor.apply_chat_template([*QUESTION, ANSWER]) == f"{prompt} abyss<end_of_utterance>\n"


def test_a_message_without_a_picture_has_a_space_before_its_text(processor):
    message = {"role": "user", "content": [{"type": "text", "text": "Hello"}]}
    assert processor.apply_chat_template([message]) == "<|im_start|>User: Hello<end_of_utterance>\n"


@pytest.mark.parametrize("size", [(150, 100), (600, 400), (64, 300), (192, 192)])
def test_a_picture_becomes_one_square_crop(processor, size):
    text = processor.apply_chat_template(QUESTION, add_generation_prompt=True)
    batch = processor(text=[text], images=[[Image.new("RGB", size, (200, 30, 90))]], return_tensors="pt")
    assert batch["pixel_values"].shape == (1, 1, 3, INPUT_SIZE, INPUT_SIZE)
    assert batch["pixel_attention_mask"].all()
    expected = torch.tensor([200, 30, 90]) / 255 * 2 - 1
    assert torch.allclose(batch["pixel_values"][0, 0, :, 96, 96], expected, atol=0.01)
    assert (batch["input_ids"] == processor.image_token_id).sum() == IMAGE_TOKENS == 64


def test_the_whole_picture_is_stretched_over_the_square(processor):
    """Left third red, the rest blue, top row of the picture green: nothing is cut off or padded."""
    image = Image.new("RGB", (150, 100), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, 50, 100))
    image.paste((0, 255, 0), (0, 0, 150, 25))
    pixels = processor(text=["<image>"], images=[[image]], return_tensors="pt")["pixel_values"][0, 0]
    channel = pixels.argmax(0)  # 0 red, 1 green, 2 blue
    assert (channel[:44] == 1).all()
    assert (channel[52:, :60] == 0).all()
    assert (channel[52:, 68:] == 2).all()


# Model


@pytest.fixture(scope="module")
def model(processor):
    torch.manual_seed(0)
    return build_model(processor).eval()


def test_the_model_is_a_small_idefics3(model, processor):
    assert type(model) is Idefics3ForConditionalGeneration
    count = sum(parameter.numel() for parameter in model.parameters())
    assert 1e6 < count < 12e6
    assert model.config.image_token_id == processor.image_token_id
    assert model.get_input_embeddings().weight.shape[0] == len(processor.tokenizer)
    assert model.lm_head.weight is not model.get_input_embeddings().weight
    assert model.model.vision_model.embeddings.num_patches == GRID**2
    assert model.generation_config.eos_token_id == processor.tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == processor.tokenizer.pad_token_id


def test_the_model_has_room_for_a_picture_with_all_its_questions(model, processor):
    """Positions restart after the prefix, so the longest single question bounds them."""
    questions = [f.write(n, KARTS[: len(f.slots)]) for f in FAMILIES.values() for n in range(len(f.wordings))]
    longest = max(len(encode(processor.tokenizer, question)) for question in questions)
    assert IMAGE_TOKENS + longest + 50 < model.config.text_config.max_position_embeddings


def test_saved_and_loaded_it_gives_the_same_logits(model, processor, picture, tmp_path):
    processor.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    other = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    text = processor.apply_chat_template(QUESTION, add_generation_prompt=True)
    assert loaded.apply_chat_template(QUESTION, add_generation_prompt=True) == text
    assert loaded.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    before = processor(text=[text], images=[[picture]], return_tensors="pt")
    after = loaded(text=[text], images=[[picture]], return_tensors="pt")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    with torch.no_grad():
        assert torch.equal(model(**before).logits, other(**after).logits)
        black = before | {"pixel_values": torch.full_like(before["pixel_values"], -1.0)}
        assert not torch.allclose(model(**before).logits, model(**black).logits)  # the picture matters
