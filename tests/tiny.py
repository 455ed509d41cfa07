"""A small random base of the embedded class in the Hugging Face layout, with an adapter, and a few bundled frames."""

import shutil
from pathlib import Path

import torch
from PIL import Image
from transformers import Idefics3ForConditionalGeneration, Idefics3Processor

from stkvlm_lib.config import ROOT
from stkvlm_lib.evaluation.predictions import Prediction, is_prefix
from stkvlm_lib.grammar.questions import is_exact
from stkvlm_lib.pretraining.embedded import build_model, build_processor
from stkvlm_lib.vlm.adapter import new_adapter
from stkvlm_lib.vlm.answering import AnswerModel
from stkvlm_lib.vlm.base_vlm import find_base, load_base, load_processor


def make_base(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    processor = build_processor()
    make_model(processor).half().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def make_model(processor: Idefics3Processor) -> Idefics3ForConditionalGeneration:
    """The embedded one's form, with two layers each in tower and text model: all others only take time."""
    model = build_model(processor)
    del model.model.vision_model.encoder.layers[2:], model.model.text_model.layers[2:]
    model.config.vision_config.num_hidden_layers = model.config.text_config.num_hidden_layers = 2
    return model


def copy_frames(folder: Path, split: str, n: int, into: str | None = None) -> Path:
    """The first n frames of a bundled split, `into` a split of their own or flat (into="")."""
    target = folder / (split if into is None else into)
    target.mkdir(parents=True, exist_ok=True)
    for info in sorted((ROOT / "frames" / split).glob("*_info.json"))[:n]:
        for file in info.parent.glob(info.name.removesuffix("_info.json") + "_*"):
            shutil.copy(file, target)
    return folder


def fresh(base_folder, quantization="nf4", seed=0, targets="text") -> AnswerModel:
    """A base with a new adapter whose B matrices are not zero, so that it changes answers and passes gradients."""
    base = find_base(str(base_folder))
    model = new_adapter(load_base(base, quantization), rank=4, alpha=8, dropout=0.0, seed=seed, targets=targets)
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1)
    return AnswerModel(base, model, load_processor(base))


def pictures(n: int) -> list[Image.Image]:
    """The first n bundled test pictures."""
    files = sorted((ROOT / "frames" / "test").glob("*_im.jpg"))[:n]
    return [Image.open(file).convert("RGB") for file in files]


def prediction(race="a", answer="1", prediction="1", family="count", picture=0, **changes) -> Prediction:
    """One scored question, right where prediction and answer are the same."""
    values = {
        "image_file": f"test/{race}{picture}_00_im.jpg",
        "question": "How many karts are there in the scenario?",
        "answer": answer,
        "prediction": prediction,
        "family": family,
        "correct": is_exact(prediction, answer),
        "prefix_correct": is_prefix(prediction, answer),
        "confidence": 0.5,
        "race": race,
        "track": "abyss",
        "blind_prediction": "1",
        "blind_correct": answer == "1",
    }
    return Prediction(**{**values, **changes})
