"""The LoRA adapter on a base: made, saved with all that answering needs, and loaded again."""

import copy
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from PIL import Image
from safetensors import SafetensorError
from torch import nn

from stkvlm_lib.config import AUTO, EMBEDDED
from stkvlm_lib.data.pictures import BrokenFile, load_image
from stkvlm_lib.files import errors_naming, give_usual_mode, write_json, write_text
from stkvlm_lib.model_files import (
    ADAPTER_WEIGHTS,
    MEAN_IMAGE_FILE,
    RECORD_FILE,
    TARGET_LAYERS,
    AdapterFiles,
    LoraSettings,
    ModelError,
    read_adapter,
    read_weights,
)
from stkvlm_lib.vlm.answering import AnswerModel
from stkvlm_lib.vlm.base_vlm import Base, find_base, load_base, load_processor
from stkvlm_lib.vlm.plain_use import lines_of_adapter, plain_template

MAX_ADAPTER_MB = 50


def new_adapter(
    model: nn.Module, *, rank: int, alpha: int, dropout: float, seed: int, targets: str = "text"
) -> PeftModel:
    """A fresh LoRA adapter on the parts of the model that `targets` names, the same for the same seed."""
    torch.manual_seed(seed)
    return _with_lora(model, LoraSettings(rank, alpha, dropout, TARGET_LAYERS[targets]), trainable=True)


def _with_lora(model: nn.Module, lora: LoraSettings, *, trainable: bool) -> PeftModel:
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        task_type="CAUSAL_LM",
        inference_mode=not trainable,
    )
    return get_peft_model(model, config)


def put_adapter(model: nn.Module, files: AdapterFiles, *, dropout: float | None = None) -> PeftModel:
    """A base with the adapter of checked files, in eval mode. dropout: open its weights to training with this one.

    Raises ModelError where its weights are not, one for one, those of the base's layers, or hold NaN or infinities.
    """
    path, weights = files.folder / ADAPTER_WEIGHTS, read_weights(files)
    lora = files.lora if dropout is None else replace(files.lora, dropout=dropout)
    try:
        model = _with_lora(model, lora, trainable=dropout is not None)
    except ValueError as error:
        raise ModelError(f"{files.folder}: does not fit the base ({error!s:.200}); {_REMAKE}") from None
    wanted = {name: tuple(tensor.shape) for name, tensor in get_peft_model_state_dict(model).items()}
    if missing := sorted(set(wanted) - set(weights)):
        raise ModelError(f"{path}: {len(missing)} of {len(wanted)} tensors are missing, as {missing[0]}; {_REMAKE}")
    if strange := sorted(set(weights) - set(wanted)):
        raise ModelError(f"{path}: {len(strange)} tensors are of no layer of the base, as {strange[0]}; {_REMAKE}")
    for name, tensor in weights.items():
        if tuple(tensor.shape) != wanted[name]:
            raise ModelError(
                f"{path}: {name} has shape {tuple(tensor.shape)}, the base needs {wanted[name]}; {_REMAKE}"
            )
    set_peft_model_state_dict(model, weights)
    return model.eval()


_REMAKE = "restore it, or make the adapter again with notebook 03"


def save_adapter(answerer: AnswerModel, folder: Path, mean_image: Image.Image, **facts) -> float:
    """Adapter, processor and record of the base in one folder; returns its size in MB, refused from 50 MB on."""
    model = answerer.model
    for config in model.peft_config.values():
        config.base_model_name_or_path = answerer.base.name
        config.revision = answerer.base.revision or None
    with errors_naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with writing_weights(folder):
            model.save_pretrained(folder, save_embedding_layers=False)
        save_processor(answerer.processor, folder)
        write_text(folder / "README.md", _adapter_card(answerer.base))  # PEFT's own card would hold the base's path
        mean_image.save(folder / MEAN_IMAGE_FILE)
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    record = {"base": answerer.base.record(), "versions": versions, "temperature": asdict(answerer.temperatures)}
    record |= {"image_side": answerer.image_side} if answerer.image_side else {}
    write_json(folder / RECORD_FILE, record | facts)
    size = adapter_mb(folder)
    if size >= MAX_ADAPTER_MB:
        raise ModelError(f"{folder}: {size:.1f} MB, the limit is {MAX_ADAPTER_MB}; lower LORA_RANK")
    return size


@contextmanager
def writing_weights(folder: Path) -> Iterator[None]:
    """Weights written to a folder are readable as the umask says. Raises OSError where they could not be written."""
    try:
        yield
    except SafetensorError as error:  # how safetensors tells of a full disk
        raise OSError(f"{folder}: the weights could not be written ({error}); make room there") from error
    give_usual_mode(folder.glob("*.safetensors"))


def save_processor(processor, folder: Path) -> None:
    """The processor, its chat template putting what is asked into its plain form, as others know of none."""
    processor = copy.copy(processor)
    processor.chat_template = plain_template(processor.chat_template)
    for how_it_was_read in ("is_local", "local_files_only"):
        processor.tokenizer.init_kwargs.pop(how_it_was_read, None)
    processor.save_pretrained(folder)


def _adapter_card(base: Base) -> str:
    source = f"the hub model `{base.name}`, revision `{base.revision}`" if base.revision else f"`{base.name}`"
    hub = f"base_model: {base.name}\n" if base.revision else ""
    lines = lines_of_adapter(base.name if base.revision else "BASE_DIR", "ADAPTER_DIR")
    return f"""---
{hub}library_name: peft
tags: [lora, visual-question-answering, supertuxkart]
---

# LoRA adapter: questions about SuperTuxKart frames

Trained with stkvlm (QLoRA) on {source}, whose weights have the SHA-256 `{base.sha256}`. It loads with
`stkvlm_lib.vlm.adapter.load_answerer`, or without that library on the base's folder:

```python
{lines}```

`{RECORD_FILE}` records base, settings and versions, `{MEAN_IMAGE_FILE}` is the picture for the blind score.
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
    precision: str = AUTO,
    *,
    dropout: float | None = None,
    image_side: int = 0,
) -> AnswerModel:
    """A base with an adapter (None: the base alone). base_model None: the base that the adapter names, which is then
    not fetched from a hub, as nobody has asked for it.

    dropout: open the adapter's weights to training with this one. image_side: of a base without an adapter; an adapter
    has its own.
    Raises ModelError for files that are missing, broken or do not fit each other, and when the adapter was made on
    another base than the one given.
    """
    files = read_adapter(adapter_dir) if adapter_dir else None
    base = base_of(files, base_model, revision) if files else find_base(base_model or EMBEDDED, revision)
    side = files.record.get("image_side", 0) if files else image_side
    processor = load_processor(base, side)
    model = load_base(base, quantization, precision)
    if not files:
        return AnswerModel(base, model, processor, image_side=side)
    model = put_adapter(model, files, dropout=dropout)
    return AnswerModel(base, model, processor, files.temperatures, side)


def base_of(files: AdapterFiles, base_model: str | None = None, revision: str = "") -> Base:
    """The base that an adapter was made on, by the name given (None: the one that it records, never fetched).

    Raises ModelError where it cannot be had, or is another.
    """
    made_on = files.record["base"]
    if base_model is None:
        base = find_base(made_on["name"], made_on["revision"], fetch=False)
    else:
        base = find_base(base_model, revision)
    if made_on["sha256"] != base.sha256:
        name = " ".join(filter(None, (made_on["name"], made_on["revision"])))
        changed = f"train the adapter again, or restore the {base.name} that it was made on"
        remedy = changed if base.name == made_on["name"] else "set BASE_MODEL to the adapter's base"
        raise ModelError(
            f"{files.folder}: made on base {name} (weights {made_on['sha256'][:12]}), "
            f"but BASE_MODEL is {base.name} (weights {base.sha256[:12]}); {remedy}"
        )
    return base


def mean_image(folder: Path) -> Image.Image:
    """The mean training picture kept with an adapter, for the blind score."""
    path = folder / MEAN_IMAGE_FILE
    remedy = "it comes with adapters made by notebook 03"
    if not path.is_file():
        raise ModelError(f"{path}: missing; {remedy}")
    try:
        return load_image(path)
    except BrokenFile:
        raise ModelError(f"{path}: no picture that can be read; {remedy}") from None
