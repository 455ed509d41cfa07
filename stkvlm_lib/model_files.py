"""Adapters and bases as files: what must lie in their folders, checked before anything of them is loaded or run.

Weights are read from safetensors files alone, never from pickles, and settings are JSON that is checked key by key.
Nothing heavy is imported here, so that a run can be refused before its first step.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stkvlm_lib.config import ConfigError, FinetuneConfig, RunConfig, resolve
from stkvlm_lib.files import read_object, sha256
from stkvlm_lib.number_text import is_finite

if TYPE_CHECKING:
    import torch

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
RECORD_FILE = "stkvlm.json"
EXPORT_RECORD = "export.json"
MEAN_IMAGE_FILE = "mean_image.png"
LORA_TARGETS = r".*text_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
_CONNECTOR = r".*\.connector\..*proj"
_VISION = r".*vision_model.*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)"
TARGET_LAYERS = {
    "text": LORA_TARGETS,
    "text+connector": f"({LORA_TARGETS}|{_CONNECTOR})",
    "text+connector+vision": f"({LORA_TARGETS}|{_CONNECTOR}|{_VISION})",
}
"""The layers that each choice of LORA_TARGETS adapts, as PEFT matches their names."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl")
"""Files that can run code when they are read, and so are not."""

Shapes = dict[str, tuple[int, ...]]
"""The tensors of a weights file by name."""

_REMAKE = "restore it, or make the adapter again with notebook 03"
_RESTORE = "restore it, or fetch the base again"
_BASE_SETTINGS = (
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
)
_MODEL_TYPES = ("idefics3", "smolvlm")
_PART = re.compile(r"(.+)\.lora_([AB])\.weight")
_USED = {"r", "lora_alpha", "lora_dropout", "target_modules"}
_MEANINGLESS = {"base_model_name_or_path", "revision", "peft_version", "inference_mode"}
"""Keys of adapter_config.json that decide nothing here: the base is that of RECORD_FILE."""
_FIXED = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "bias": "none",
    "init_lora_weights": True,
    "megatron_core": "megatron.core",
    "qalora_group_size": 16,
}


class ModelError(ValueError):
    """A base model or adapter that cannot be used; the message says which file, what of it, and what to do."""


@dataclass(frozen=True)
class LoraSettings:
    """What decides the form of an adapter. targets: the layers of one of TARGET_LAYERS."""

    rank: int
    alpha: float
    dropout: float
    targets: str


@dataclass(frozen=True)
class AdapterFiles:
    """A checked adapter folder. record: its RECORD_FILE, with `base` (name, revision, sha256)."""

    folder: Path
    record: dict
    lora: LoraSettings
    shapes: Shapes

    @property
    def temperatures(self) -> "Temperatures":
        return Temperatures.of_record(self.record, self.folder / RECORD_FILE)


def read_adapter(folder: Path) -> AdapterFiles:
    """Check an adapter's files against each other. Raises ModelError naming the file that is missing or does not fit.

    Whether the weights are finite is seen by `read_weights`, whether they are those of a base's layers only there.
    """
    record = read_adapter_record(folder)
    lora = _read_lora(folder / ADAPTER_CONFIG)
    weights = _weights_file(folder, ADAPTER_WEIGHTS, _REMAKE)
    shapes = read_shapes(weights, _REMAKE)
    _check_parts(weights, shapes, lora.rank)
    return AdapterFiles(folder, record, lora, shapes)


def read_weights(files: AdapterFiles) -> "dict[str, torch.Tensor]":
    """The weights of a checked adapter. Raises ModelError where they cannot be read, or hold NaN or infinities."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = files.folder / ADAPTER_WEIGHTS
    try:
        weights = load_file(path)
    except (ValueError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read ({error!s:.200}); {_REMAKE}") from None
    for name, tensor in weights.items():
        if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
            raise ModelError(f"{path}: {name} holds values that are no finite numbers; {_REMAKE}")
    return weights


@dataclass(frozen=True)
class Temperatures:
    """What an adapter's logits are divided by before they become confidence; its answers stay the same.

    course: for the course's ten forms in the course's wording, which ask of every kart, so that a pixel decides many of
    them. other: for all other questions, of which the doubtful ones are never asked.
    """

    course: float = 1.0
    other: float = 1.0

    @classmethod
    def of_record(cls, record: dict, path: Path) -> "Temperatures":
        """As an adapter's record says; older ones have one for both. Raises ModelError naming the file."""
        said = record.get("temperature", 1.0)
        values = (
            said if isinstance(said, dict) and set(said) == {"course", "other"} else {"course": said, "other": said}
        )
        if not all(is_finite(value) and value > 0 for value in values.values()):
            raise ModelError(f"{path}: temperature = {said!r:.60} is not a number above 0; {_REMAKE}")
        return cls(**values)


def read_adapter_record(folder: Path) -> dict:
    """What the adapter folder says of itself. Raises ModelError for a folder that is no adapter of this project."""
    if not (folder / ADAPTER_CONFIG).exists():
        raise ModelError(f"{folder}: no adapter there ({ADAPTER_CONFIG}); run notebook 03, or set ADAPTER_DIR")
    path = folder / RECORD_FILE
    record = _settings(path, "it comes with adapters made by notebook 03; make the adapter again")
    base = record.get("base")
    if not isinstance(base, dict) or not all(isinstance(base.get(k), str) for k in ("name", "revision", "sha256")):
        raise ModelError(f"{path}: does not name its base; make the adapter again with notebook 03")
    if not _is_base_name(base["name"]):
        raise ModelError(f"{path}: its base {base['name']!r:.80} is no name of a base; make the adapter again")
    Temperatures.of_record(record, path)
    side = record.get("image_side", 0)
    if type(side) is not int or side < 0:
        raise ModelError(f"{path}: image_side = {side!r:.60} is not a whole number from 0; {_REMAKE}")
    return record


def _is_base_name(name: str) -> bool:
    """Whether a recorded base is `embedded`, the name of a folder, or owner/name on a hub, but no path elsewhere."""
    parts = name.split("/")
    return len(parts) <= 2 and all(part and part[0] not in ".~" and "\0" not in part for part in parts)


def _read_lora(path: Path) -> LoraSettings:
    given = _settings(path, _REMAKE)
    for key, value in given.items():
        if key in _USED | _MEANINGLESS or value in (None, False, {}, []) or value == _FIXED.get(key):
            continue
        raise ModelError(f"{path}: {key} = {value!r:.60} is nothing that adapters of this project have; {_REMAKE}")
    if given.get("peft_type") != "LORA":
        raise ModelError(f"{path}: peft_type = {given.get('peft_type')!r:.60} is not LORA; {_REMAKE}")
    rank, alpha, dropout = given.get("r"), given.get("lora_alpha"), given.get("lora_dropout", 0.0)
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise ModelError(f"{path}: r = {rank!r:.60} is not a whole number from 1; {_REMAKE}")
    if not is_finite(alpha) or alpha <= 0:
        raise ModelError(f"{path}: lora_alpha = {alpha!r:.60} is not a number above 0; {_REMAKE}")
    if not is_finite(dropout) or not 0 <= dropout < 1:
        raise ModelError(f"{path}: lora_dropout = {dropout!r:.60} is not a share from 0 to under 1; {_REMAKE}")
    targets = given.get("target_modules")
    if targets not in TARGET_LAYERS.values():
        raise ModelError(f"{path}: target_modules = {targets!r:.60} are not those of this project; {_REMAKE}")
    return LoraSettings(rank, alpha, dropout, targets)


def _check_parts(path: Path, shapes: Shapes, rank: int) -> None:
    """Every layer has its A (rank, in) and B (out, rank), and there is nothing else."""
    if not shapes:
        raise ModelError(f"{path}: holds no weights; {_REMAKE}")
    for name, shape in shapes.items():
        found = _PART.fullmatch(name)
        if not found:
            raise ModelError(f"{path}: {name:.120} is no part of a LoRA adapter; {_REMAKE}")
        layer, part = found.groups()
        if len(shape) != 2 or shape[0 if part == "A" else 1] != rank:
            raise ModelError(f"{path}: {name:.120} has shape {shape}, but {ADAPTER_CONFIG} says r = {rank}; {_REMAKE}")
        other = f"{layer}.lora_{'B' if part == 'A' else 'A'}.weight"
        if other not in shapes:
            raise ModelError(f"{path}: {other:.120} is missing; {_REMAKE}")


def start_form(adapter: AdapterFiles) -> dict[str, Any]:
    """What training cannot change of an adapter that it goes on from, by parameter."""
    return {
        "LORA_RANK": adapter.lora.rank,
        "LORA_ALPHA": adapter.lora.alpha,
        "LORA_TARGETS": target_parts(adapter.lora.targets),
        "IMAGE_SIDE": adapter.record.get("image_side", 0),
    }


def target_parts(targets: str) -> str:
    """The choice of LORA_TARGETS that these layers are."""
    return next(parts for parts, layers in TARGET_LAYERS.items() if layers == targets)


def check_start(config: FinetuneConfig, adapter: AdapterFiles) -> None:
    """Raises ConfigError where LORA_RANK, LORA_ALPHA, LORA_TARGETS or IMAGE_SIDE are set to what START_ADAPTER does not
    have.

    A value that is the default counts as not set: then the adapter's own is used, and recorded.
    """
    plain, has = FinetuneConfig(), start_form(adapter)
    for name in has:
        value, default = getattr(config, name.lower()), getattr(plain, name.lower())
        if value not in (default, has[name]):
            raise ConfigError(
                f"{name}={value}: START_ADAPTER {config.start_adapter} has {has[name]}, which training cannot change; "
                f"leave {name} out, or start a new adapter"
            )


def started_form(config: RunConfig) -> dict[str, Any]:
    """The same of a step that goes on from START_ADAPTER; empty for others. Raises ModelError for one that cannot be
    used."""
    start = getattr(config, "start_adapter", "")
    return start_form(read_adapter(resolve(start))) if start else {}


def check_base(folder: Path) -> None:
    """Check a base's files, without loading it. Raises ModelError naming the file and what is wrong with it."""
    weights = base_weights(folder)
    for name in _BASE_SETTINGS:
        if name == "config.json" or (folder / name).exists():
            _settings(folder / name, _RESTORE)
    config = read_object(folder / "config.json")
    if config.get("model_type") not in _MODEL_TYPES:
        kind = config.get("model_type")
        raise ModelError(f"{folder / 'config.json'}: model_type {kind!r:.60} is not idefics3; name another BASE_MODEL")
    if config.get("quantization_config"):
        raise ModelError(f"{folder / 'config.json'}: the base is quantized already; give the original as BASE_MODEL")
    for file in weights:
        read_shapes(file, _RESTORE)
    _check_index(folder)


def _check_index(folder: Path) -> None:
    """The index of weights in several files names files of the folder, and all of them are there."""
    path = folder / "model.safetensors.index.json"
    if not path.exists():
        return
    named = read_object(path).get("weight_map")
    if not isinstance(named, dict):
        raise ModelError(f"{path}: has no weight_map; {_RESTORE}")
    for name in sorted(set(map(str, named.values()))):
        if Path(name).name != name or not (folder / name).is_file():
            raise ModelError(f"{path}: names {name!r:.80}, which is no file of {folder}; {_RESTORE}")


def base_weights(folder: Path) -> list[Path]:
    """The weights files of a base, sorted. Raises ModelError where there are none."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        what = f"no *.safetensors there{_pickles(folder)}"
        raise ModelError(f"{folder}: {what}; give a folder in the Hugging Face layout")
    return [_weights_file(folder, path.name, _RESTORE) for path in weights]


def hash_weights(folder: Path) -> str:
    """SHA-256 of a base's weights, by which adapters know it."""
    return sha256(base_weights(folder))


def read_shapes(path: Path, remedy: str) -> Shapes:
    """The shapes that a safetensors file promises, of which every byte is there.

    Raises ModelError for a file that is cut, is another kind of file, or whose header does not fit its size.
    """
    from safetensors import SafetensorError, safe_open  # here, as commands are checked where no package is installed

    try:
        with safe_open(path, "np") as file:  # checks header against size; "np", as "pt" would import torch
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise ModelError(f"{path.parent}: weights cannot be read ({path.name}: {error!s:.200}); {remedy}") from None


def _weights_file(folder: Path, name: str, remedy: str) -> Path:
    path = folder / name
    if not path.is_file():
        what = "is not a file" if path.exists() else f"not there{_pickles(folder)}"
        raise ModelError(f"{path}: {what}; {remedy}")
    return path


def _pickles(folder: Path) -> str:
    """Says of pickled weights in a folder that they are passed over, empty where there are none."""
    found = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    return f" ({found[0]} is a pickle, which is never read)" if found else ""


def _settings(path: Path, remedy: str) -> dict:
    """A JSON object. Raises ModelError for any other file, a folder, or none."""
    try:
        return read_object(path, remedy)
    except (ValueError, FileNotFoundError) as error:
        raise ModelError(str(error)) from None
