"""An adapter for those without this library: merged into its base as one plain Transformers folder, or beside its base.

What is written is what answers here: of a base in 4 bit the rounded values, written out in 32 bit, so that answers are
the same without bitsandbytes.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import ModelCard, ModelCardData
from torch import nn
from transformers.utils import logging

from stkvlm_lib.files import errors_naming, read_json, write_json, write_text
from stkvlm_lib.model_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    EXPORT_RECORD,
    AdapterFiles,
    ModelError,
    check_base,
    read_adapter,
)
from stkvlm_lib.vlm.adapter import base_of, put_adapter, save_processor, writing_weights
from stkvlm_lib.vlm.answering import MAX_ANSWER_TOKENS
from stkvlm_lib.vlm.base_vlm import Base, Prompt, load_base, load_processor
from stkvlm_lib.vlm.plain_use import lines_of_adapter, lines_of_merged

BASE, ADAPTER = "base", "adapter"
"""The two folders of an export that is not merged."""


def export_adapter(adapter: Path, folder: Path, *, merge: bool, base_model: str | None = None) -> Path:
    """Write an adapter with its base, processor, chat template and card to a new folder, whole or not at all.

    merge: one model in one folder; otherwise PEFT's adapter in `adapter/` beside the base in `base/`.
    base_model: the adapter's base, where that is a local folder or has to be fetched.
    Raises ModelError for files that cannot be used, and where the folder is there already.
    """
    folder = folder.absolute()
    if folder.is_file() or folder.is_symlink() or (folder.is_dir() and any(folder.iterdir())):
        raise ModelError(f"{folder}: is there already; remove it, or name another folder to export to")
    files = read_adapter(adapter)
    base = base_of(files, base_model)
    processor = load_processor(base)
    model = _written_out(base, files)
    with _whole_folder(folder) as part:
        if merge:
            _save_model(put_adapter(model, files).merge_and_unload(), processor, part)
        else:
            _save_model(model, processor, part / BASE)
            _save_adapter(files, processor, model, part / ADAPTER, folder / BASE)
        kept = {name: files.record[name] for name in ("base", "temperature", "settings") if name in files.record}
        stored = {"merged": merge, "weights": "float32", "quantization": _quantization(files)}
        write_json(part / EXPORT_RECORD, stored | kept)
        write_text(part / "README.md", _card(files, base, merge))
    return folder


def _quantization(files: AdapterFiles) -> str:
    settings = files.record.get("settings")
    return settings.get("quantization", "nf4") if isinstance(settings, dict) else "nf4"


def _written_out(base: Base, files: AdapterFiles) -> nn.Module:
    """The base as the adapter was trained on it, its 4-bit values written out in 32 bit."""
    quantization = _quantization(files)
    logging.set_verbosity_error()  # else Transformers tells on stderr into which dtype it dequantizes
    model = load_base(base, quantization, "fp32")
    return (model.dequantize() if quantization == "nf4" else model).float()


def _save_model(model: nn.Module, processor, folder: Path) -> None:
    prompt = Prompt(processor)
    stops = {"eos_token_id": prompt.stop_id, "pad_token_id": prompt.tokenizer.pad_token_id}
    model.generation_config.update(**stops, max_new_tokens=MAX_ANSWER_TOKENS, do_sample=False)
    folder.mkdir(parents=True, exist_ok=True)
    with writing_weights(folder):
        model.save_pretrained(folder)
    save_processor(processor, folder)
    check_base(folder)


def _save_adapter(files: AdapterFiles, processor, model: nn.Module, folder: Path, base: Path) -> None:
    """The adapter with what PEFT needs to find its base by itself: the folder that it will lie in, and its class."""
    folder.mkdir(parents=True)
    kind = {"base_model_class": type(model).__name__, "parent_library": type(model).__module__}
    put_adapter(model, files)  # refuses weights that do not fit
    config = read_json(files.folder / ADAPTER_CONFIG)
    config |= {"base_model_name_or_path": str(base), "revision": None, "task_type": None, "auto_mapping": kind}
    write_json(folder / ADAPTER_CONFIG, config)
    shutil.copyfile(files.folder / ADAPTER_WEIGHTS, folder / ADAPTER_WEIGHTS)
    save_processor(processor, folder)


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside it, which takes its place only when the block ends without an error."""
    with errors_naming(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent) as part:
            made = Path(part) / "made"  # the temporary folder itself is closed to others, whatever the umask
            made.mkdir()
            try:
                yield made
                made.replace(folder)
            except OSError as error:
                if error.errno is None:  # this project's own words, which name where it was written to
                    raise OSError(str(error).replace(str(made), str(folder))) from error
                raise


def _card(files: AdapterFiles, base: Base, merge: bool) -> str:
    """What is exported and how to ask it, and then what the adapter's own card says of data, figures and limits."""
    path = files.folder / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    card = ModelCard(text, ignore_metadata_errors=True)
    data = ModelCardData(**card.data.to_dict() if text else {}, ignore_metadata_errors=True)
    data.library_name = "transformers" if merge else "peft"
    data.pipeline_tag = "image-text-to-text"
    data.tags = [tag for tag in data.tags or () if not (merge and tag in ("lora", "qlora"))] or None
    data.base_model = base.name if base.revision else None
    parts = [f"---\n{data.to_yaml()}\n---", _head(files, base, merge), *_told(card.text)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _told(text: str) -> list[str]:
    """The sections of a card but for the one on how it is loaded."""
    _, *sections = text.split("\n## ")
    return [f"## {section}" for section in sections if not section.startswith("Load it and ask")]


def _head(files: AdapterFiles, base: Base, merge: bool) -> str:
    rounded = _quantization(files) == "nf4"
    stored = "rounded to 4 bit (NF4) as in training, and written out" if rounded else "as published"
    name = f"{base.name}, revision {base.revision}" if base.revision else base.name
    what = "the adapter merged into it" if merge else f"the adapter beside it, in `{BASE}/` and `{ADAPTER}/`"
    lines = lines_of_merged("FOLDER") if merge else lines_of_adapter(f"FOLDER/{BASE}", f"FOLDER/{ADAPTER}")
    auto = "" if merge else _AUTO
    temperatures = files.temperatures
    return f"""# Questions about SuperTuxKart frames

The base `{name}` (weights of SHA-256 `{base.sha256}`), its text model {stored}, with {what}; all weights in 32 bit.
It answers one question about one picture at a time, as the library that trained it does.

## Load it and ask

With `transformers`, `peft`, `torch` and `pillow` alone; FOLDER is where this file lies:

```python
{lines}```
{auto}
Capitals, punctuation, contractions and ways to write a name make no difference: the chat template puts a question into
the form of the training. A picture of any size becomes one square. `backend="pil"` resizes as in training; torchvision
rounds otherwise. The confidence of the library is the product of the probabilities of the answer's tokens and the stop
token, with all logits divided by a temperature: {temperatures.course:g} for the ten forms of the course in their own
wording, {temperatures.other:g} for all other questions. The library never answers `unknown` to the former; these lines
may."""


_AUTO = f"""
`AutoPeftModel.from_pretrained("FOLDER/{ADAPTER}")` finds the base by itself, as long as the folder is not moved:
`{ADAPTER_CONFIG}` names where it was written to. Where `bitsandbytes` is installed, PEFT loads it as well; what it then
says of `kernels` does not matter, as nothing here is in 4 bit.
"""
