"""SmolVLM-256M-Instruct and 500M as published, but with random weights and the embedded base's small tokenizer.

It stands in for the real one where no hub is at hand: what it costs, and that the code runs on it, are the same; what
it answers is noise.
"""

from pathlib import Path

import torch
from transformers import Idefics3ForConditionalGeneration, Idefics3Processor
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from stkvlm_lib.pretraining import embedded

CROP_SIZE = 512
IMAGE_TOKENS = 64
"""Tokens of a crop: (512 px / 16 px a patch / pixel shuffle 4) squared."""
PARAMETERS = 256_484_928
"""Of the published weights, embeddings and head counted apart: they are not tied."""
VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": CROP_SIZE,
    "patch_size": 16,
}
TEXT = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "vocab_size": 49280,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100_000.0,
    "tie_word_embeddings": False,
}

TEXT_500M = TEXT | {
    "hidden_size": 960,
    "intermediate_size": 2560,
    "num_hidden_layers": 32,
    "num_attention_heads": 15,
    "num_key_value_heads": 5,
}
PARAMETERS_500M = 507_482_304
"""Its tower is that of 256M; embeddings and head counted apart."""


def write_random_smolvlm(folder: Path, seed: int = 0, text: dict | None = None, vision: dict | None = None) -> Path:
    """Weights (fp16, 0.5 GB), configuration and processor in the Hugging Face layout, as a base to load from. text,
    vision: settings of another text model and tower than those of 256M."""
    processor = build_processor()
    torch.manual_seed(seed)
    build_model(processor, text, vision).half().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def build_processor() -> Idefics3Processor:
    """With the published picture settings, which would cut a picture into 13 or 17 crops."""
    return Idefics3Processor(
        image_processor=Idefics3ImageProcessorPil(
            size={"longest_edge": 2048},
            max_image_size={"longest_edge": CROP_SIZE},
            do_image_splitting=True,
            resample=1,  # Lanczos
        ),
        tokenizer=embedded.build_processor().tokenizer,
        image_seq_len=IMAGE_TOKENS,
        chat_template=embedded.CHAT_TEMPLATE,
    )


def build_model(
    processor: Idefics3Processor, text: dict | None = None, vision: dict | None = None
) -> Idefics3ForConditionalGeneration:
    """The untrained model; seed torch before calling. Its vocabulary is larger than the tokenizer uses."""
    return embedded.idefics3(processor, vision or VISION, text or TEXT, scale=4)
