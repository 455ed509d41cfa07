"""The embedded base: a small Idefics3 (the class of SmolVLM-256M-Instruct) with its own tokenizer and processor.

It exists so that a machine without a hub or a GPU runs the same code on a model that can really see.
`python -m stkvlm_lib.pretraining` makes it.
"""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor, PreTrainedTokenizerFast
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from stkvlm_lib.grammar.questions import FAMILIES, KARTS, TRACKS
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
SPECIAL_TOKENS = ("<|im_start|>", "<end_of_utterance>", "<pad>", "<fake_token_around_image>", "<global-img>", "<image>")


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
    """Byte-level BPE in which every word of prompts and questions is one token and any other text still encodes."""
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(r" ?[A-Za-z0-9_]+| ?[^\sA-Za-z0-9_]+|\s+"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2048,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_vocabulary_text(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<pad>",
        additional_special_tokens=list(SPECIAL_TOKENS[3:]),
    )


def _vocabulary_text() -> Iterable[str]:
    yield from (f" {word} {word}" for text in prompts.vocabulary() for word in text.split())
    yield from prompts.vocabulary()
    for name in (*KARTS, *TRACKS):
        yield from (f" {name} {name}", name)
    for family in FAMILIES.values():
        for wording in family.wordings:
            yield from (wording, f"User: {wording}\nAssistant:")
        yield from (f" {answer}" for answer in family.answers)


def special_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """Ids of padding, begin and end, as a text model's configuration names them."""
    return {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}


def build_model(processor: Idefics3Processor) -> Idefics3ForConditionalGeneration:
    """The untrained model, under 10 M parameters; seed torch before calling."""
    tokenizer = processor.tokenizer
    special = special_ids(tokenizer)
    config = Idefics3Config(
        vision_config={
            "hidden_size": 256,
            "intermediate_size": 1024,
            "num_hidden_layers": 7,
            "num_attention_heads": 4,
            "image_size": INPUT_SIZE,
            "patch_size": PATCH_SIZE,
        },
        text_config={
            "model_type": "llama",
            "hidden_size": 256,
            "intermediate_size": 704,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 1024,
            "tie_word_embeddings": True,
            **special,
        },
        scale_factor=PIXEL_SHUFFLE,
        image_token_id=processor.image_token_id,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Idefics3ForConditionalGeneration(config)
