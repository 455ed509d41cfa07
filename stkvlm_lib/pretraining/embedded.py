"""The embedded base: a small Idefics3 (the class of SmolVLM-256M-Instruct) with its own tokenizer and processor.

It exists so that a machine without a hub or a GPU runs the same code on a model that can really see.
`python -m stkvlm_lib.pretraining` makes it.
"""

import re
import string
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor, PreTrainedTokenizerFast
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from stkvlm_lib.grammar.questions import FAMILIES, KARTS, TRACKS
from stkvlm_lib.grammar.wordings import common_words, language
from stkvlm_lib.pretraining import prompts

INPUT_SIZE = 192
"""Side in px of the square that a picture is stretched to."""
PATCH_SIZE = 8
"""Side of a patch in px: its 8x8x3 values fit the width of the tower, so that none is lost at its entrance."""
GRID = INPUT_SIZE // PATCH_SIZE
PIXEL_SHUFFLE = 3
IMAGE_TOKENS = (GRID // PIXEL_SHUFFLE) ** 2

CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""The chat format of SmolVLM-256M-Instruct, so that prompts look the same for both bases."""
UNREAD = "<unread>"
"""Stands for what no piece of the vocabulary spells, such as words in other scripts."""
SPECIAL_TOKENS = (
    *("<|im_start|>", "<end_of_utterance>", "<pad>", "<fake_token_around_image>", "<global-img>", "<image>"),
    UNREAD,
)
CONTINUES = "##"
"""Begins a token that goes on with a word."""


def build_processor() -> Idefics3Processor:
    """Tokenizer, picture settings (one square crop, no splitting) and chat template; the same on every machine."""
    return Idefics3Processor(
        image_processor=Idefics3ImageProcessorPil(
            size={"longest_edge": INPUT_SIZE},
            max_image_size={"longest_edge": INPUT_SIZE},
            do_image_splitting=False,
            resample=2,  # bilinear, as pretraining crops are sampled
        ),
        tokenizer=_tokenizer(),
        image_seq_len=IMAGE_TOKENS,
        chat_template=CHAT_TEMPLATE,
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    """WordPiece in which every word of prompts, questions and answers and some thousands of common English words are
    one token each, and pieces of words, down to letters, make up any other text in Latin letters."""
    words = list(dict.fromkeys((*SPECIAL_TOKENS, *map(str.lower, vocabulary()))))
    listed = Path(__file__).with_name("pieces.txt").read_text("utf-8").split()
    pieces = [CONTINUES + piece for piece in (*listed, "_")]
    letters = [*string.ascii_lowercase, *string.digits, "_"]
    tokens = list(dict.fromkeys((*words, *letters, *pieces)))
    tokenizer = Tokenizer(
        models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token=UNREAD, max_input_chars_per_word=40)
    )
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=True
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|:"), "removed", invert=True)  # no other punctuation
    tokenizer.decoder = decoders.WordPiece(CONTINUES, cleanup=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<pad>",
        unk_token=UNREAD,
        additional_special_tokens=list(SPECIAL_TOKENS[3:6]),
    )


def vocabulary() -> Iterator[str]:
    """Every word that is one token, the same may come again: first those of answers and prompts."""
    for text in prompts.vocabulary():
        yield from text.split()
    yield from (*KARTS, *TRACKS)
    for family in FAMILIES.values():
        yield from (word for answer in family.answers for word in answer.split())
        for wording in family.wordings:
            yield from re.findall(r"\w+", re.sub(r"\{\w+\}", " ", wording))
    yield from ("user", "assistant", ":")
    yield from language().vocabulary()
    yield from common_words()


def written_tokens(tokenizer: PreTrainedTokenizerFast) -> set[int]:
    """Ids of all tokens that prompts and answers hold."""
    texts = [*prompts.vocabulary(), *KARTS, *TRACKS, "User: Assistant:", *SPECIAL_TOKENS]
    texts += [answer for family in FAMILIES.values() for answer in family.answers]
    return {token for text in texts for token in tokenizer.encode(text, add_special_tokens=False)}


def build_model(processor: Idefics3Processor) -> Idefics3ForConditionalGeneration:
    """The untrained model, under 12 M parameters; seed torch before calling.

    Its head is not tied to the embeddings: a word that is only read, never written, is pushed away in the head alone,
    and keeps its place among the words that it resembles.
    """
    vision = {
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 7,
        "num_attention_heads": 4,
        "image_size": INPUT_SIZE,
        "patch_size": PATCH_SIZE,
    }
    text = {
        "model_type": "llama",
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": len(processor.tokenizer),
        "max_position_embeddings": 1024,
        "tie_word_embeddings": False,
    }
    return idefics3(processor, vision, text, PIXEL_SHUFFLE)


def idefics3(processor: Idefics3Processor, vision: dict, text: dict, scale: int) -> Idefics3ForConditionalGeneration:
    """A model of SmolVLM's class with random weights. vision, text: of its configurations; scale: of pixel shuffle."""
    tokenizer = processor.tokenizer
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    config = Idefics3Config(
        vision_config=vision,
        text_config=text | special,
        scale_factor=scale,
        image_token_id=processor.image_token_id,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Idefics3ForConditionalGeneration(config)
