"""The LoRA adapter on a base: made, saved with all that answering needs, and loaded again."""

import platform
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors import SafetensorError
from torch import nn

from stkvlm_lib.config import EMBEDDED
from stkvlm_lib.files import read_json, write_json, write_text
from stkvlm_lib.vlm.answering import AnswerModel
from stkvlm_lib.vlm.base_vlm import Base, ModelError, find_base, load_base, load_processor

LORA_TARGETS = r".*text_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
MAX_ADAPTER_MB = 50
RECORD_FILE = "stkvlm.json"
MEAN_IMAGE_FILE = "mean_image.png"


def new_adapter(model: nn.Module, *, rank: int, alpha: int, dropout: float, seed: int) -> PeftModel:
    """A fresh LoRA adapter on the text model, the same for the same seed."""
    torch.manual_seed(seed)
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=LORA_TARGETS, task_type="CAUSAL_LM"
    )
    return get_peft_model(model, config)


def save_adapter(answerer: AnswerModel, folder: Path, mean_image: Image.Image, **facts) -> float:
    """Adapter, processor and record of the base in one folder; returns its size in MB, refused from 50 MB on."""
    model = answerer.model
    for config in model.peft_config.values():
        config.base_model_name_or_path = answerer.base.name
        config.revision = answerer.base.revision or None
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, save_embedding_layers=False)
    answerer.processor.save_pretrained(folder)
    write_text(folder / "README.md", _adapter_card(answerer.base))  # PEFT's own card would hold the base's path
    mean_image.save(folder / MEAN_IMAGE_FILE)
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    record = {"base": answerer.base.record(), "versions": versions, "temperature": answerer.temperature}
    write_json(folder / RECORD_FILE, record | facts)
    size = adapter_mb(folder)
    if size >= MAX_ADAPTER_MB:
        raise ModelError(f"{folder}: {size:.1f} MB, the limit is {MAX_ADAPTER_MB}; lower LORA_RANK")
    return size


def _adapter_card(base: Base) -> str:
    source = f"the hub model `{base.name}`, revision `{base.revision}`" if base.revision else f"`{base.name}`"
    hub = f"base_model: {base.name}\n" if base.revision else ""
    return f"""---
{hub}library_name: peft
tags: [lora, visual-question-answering, supertuxkart]
---

# LoRA adapter: questions about SuperTuxKart frames

Trained with stkvlm (QLoRA) on {source}, whose weights have the SHA-256 `{base.sha256}`. It loads with
`stkvlm_lib.vlm.adapter.load_answerer`, or with `PeftModel.from_pretrained` on that base and the processor settings
beside this file. `{RECORD_FILE}` records base, settings and versions, `{MEAN_IMAGE_FILE}` is the picture for the blind
score.
"""


def adapter_mb(folder: Path) -> float:
    """Size of a whole adapter folder in MB (10^6 bytes), its card left out, which changes with what is scored."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != "README.md")
    return sum(file.stat().st_size for file in files) / 1e6


def load_answerer(
    adapter_dir: Path | None,
    base_model: str | None = None,
    revision: str = "",
    quantization: str = "nf4",
    *,
    trainable: bool = False,
) -> AnswerModel:
    """A base with an adapter (None: the base alone). base_model None: the base that the adapter names.

    trainable: leave the adapter's weights open to training.
    Raises ModelError when the adapter was made on another base than the one given.
    """
    record = read_adapter_record(adapter_dir) if adapter_dir else {}
    if base_model is None:
        base_model = record["base"]["name"] if record else EMBEDDED
        revision = record["base"]["revision"] if record else revision
    base = find_base(base_model, revision)
    if record and record["base"]["sha256"] != base.sha256:
        made_on = " ".join(filter(None, (record["base"]["name"], record["base"]["revision"])))
        changed = f"train the adapter again, or restore the {base.name} that it was made on"
        remedy = changed if base.name == record["base"]["name"] else "set BASE_MODEL to the adapter's base"
        raise ModelError(
            f"{adapter_dir}: made on base {made_on} (weights {record['base']['sha256'][:12]}), "
            f"but BASE_MODEL is {base.name} (weights {base.sha256[:12]}); {remedy}"
        )
    processor = load_processor(base)
    try:
        model = load_base(base, quantization)
        if adapter_dir:
            model = PeftModel.from_pretrained(model, str(adapter_dir), is_trainable=trainable).eval()
    except SafetensorError as error:
        raise ModelError(f"{adapter_dir or base.folder}: weights cannot be read ({error}); restore them") from None
    answerer = AnswerModel(base, model, processor)
    answerer.temperature = record.get("temperature", 1.0)
    return answerer


def read_adapter_record(folder: Path) -> dict:
    """What the adapter folder says of itself. Raises ModelError for a folder that is no adapter of this project."""
    if not (folder / "adapter_config.json").exists():
        raise ModelError(f"{folder}: no adapter there (adapter_config.json); run notebook 03, or set ADAPTER_DIR")
    record = read_json(folder / RECORD_FILE, "it comes with adapters made by notebook 03; make the adapter again")
    if not isinstance(record.get("base"), dict):
        raise ModelError(f"{folder / RECORD_FILE}: does not name its base; make the adapter again with notebook 03")
    return record


def mean_image(folder: Path) -> Image.Image:
    """The mean training picture kept with an adapter, for the blind score."""
    path = folder / MEAN_IMAGE_FILE
    if not path.exists():
        raise ModelError(f"{path}: missing; it comes with adapters made by notebook 03")
    return Image.open(path).convert("RGB")
