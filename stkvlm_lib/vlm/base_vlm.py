"""The base model in NF4 with its processor, and how a question is laid out for it.

A base is `embedded` (models/embedded), a local folder, or a hub id. All three load through the same Auto classes onto
the same layers, on a CPU as on a GPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    BitsAndBytesConfig,
    PretrainedConfig,
)
from transformers.utils.logging import disable_progress_bar

from stkvlm_lib.config import AUTO, EMBEDDED, ROOT, ConfigError, resolve
from stkvlm_lib.device import compute_dtype, pick_device
from stkvlm_lib.grammar.questions import NEVER_OF_COURSE, is_of_course
from stkvlm_lib.grammar.spelling import plain
from stkvlm_lib.model_files import ModelError, base_weights, check_base, hash_weights
from stkvlm_lib.vlm.attention import faster_attention
from stkvlm_lib.vlm.packing import Options, Segment

FULL_PRECISION = ["model.vision_model", "model.connector", "lm_head"]
"""Modules that are not quantized, named from the start of the path (see `_check_layers`)."""


@dataclass(frozen=True)
class Base:
    """Which base: its recorded name (never a path), the folder its files lie in, revision and hash of the weights."""

    name: str
    folder: Path
    revision: str
    sha256: str

    def record(self) -> dict:
        return {"name": self.name, "revision": self.revision, "sha256": self.sha256}


def find_base(name: str = "", revision: str = "", *, fetch: bool = True) -> Base:
    """Resolve a base to checked files on disk, downloading a hub id once.

    fetch: whether a hub id may be downloaded; otherwise only the local cache is looked at.
    Raises ModelError when it cannot be had, or its files are broken.
    """
    if name in ("", EMBEDDED):
        return _checked_base(EMBEDDED, ROOT / "models" / EMBEDDED)
    if resolve(name).is_dir():
        return _checked_base(resolve(name).name, resolve(name))
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelError(f"BASE_MODEL={name!r}: no such folder, and not a hub id (owner/name)")
    wanted = ["*.json", "*.safetensors", "*.txt", "*.jinja"]
    try:
        found = snapshot_download(name, revision=revision or None, allow_patterns=wanted, local_files_only=not fetch)
    except Exception as error:
        if not fetch:
            raise ModelError(
                f"the adapter's base {name!r} is not in the local cache, and is fetched only when you ask for it: "
                f"name it, with --base {name} or BASE_MODEL={name}, if you trust it"
            ) from error
        raise ModelError(
            f"base model {name!r} is not in the local cache and cannot be had ({_told(error)}); "
            f"connect to the hub with HF_HUB_OFFLINE=0, give a local folder, or use BASE_MODEL={EMBEDDED}"
        ) from error
    return _checked_base(name, Path(found), Path(found).name)


def _checked_base(name: str, folder: Path, revision: str = "") -> Base:
    check_base(folder)
    return Base(name, folder, revision, hash_weights(folder))


def _told(error: Exception) -> str:
    """An error of a library in one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"


def _nf4(dtype: torch.dtype) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=FULL_PRECISION,
    )


def load_base(base: Base, quantization: str = "nf4", precision: str = AUTO) -> nn.Module:
    """The base with its text model in NF4 (or as it is, for `none`), in eval mode, everything frozen.

    precision: what it computes in, see `device.compute_dtype`.
    Raises ModelError where weights are missing, have other shapes than config.json says, or are not finite.
    """
    _check_finite(base.folder)
    disable_progress_bar()  # the weights load in a second; the bar only clutters notebooks
    device = pick_device()
    dtype = compute_dtype(device, precision)
    try:
        model, found = AutoModelForImageTextToText.from_pretrained(
            base.folder,
            dtype=dtype,
            attn_implementation=faster_attention(device, dtype),
            device_map={"": device},
            quantization_config=_nf4(dtype) if quantization == "nf4" else None,
            output_loading_info=True,
            **_FROM_DISK,
            use_safetensors=True,
        )
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # of any kind, by what is wrong with the files
        raise ModelError(f"{base.folder}: its model cannot be loaded ({_told(error)}); {_RESTORE}") from error
    for key, what in (("missing_keys", "are missing"), ("mismatched_keys", "have other shapes")):
        if strange := sorted(map(str, found[key])):
            raise ModelError(f"{base.folder}: {len(strange)} of its weights {what}, as {strange[0]}; {_RESTORE}")
    if quantization == "nf4":
        _check_layers(model)
    return model.requires_grad_(False).eval()


_FROM_DISK = {"trust_remote_code": False, "local_files_only": True}
"""A base is read from its folder, and code that it brings is never run, whatever it asks for."""
_RESTORE = "restore it, or name another BASE_MODEL"


def _check_finite(folder: Path) -> None:
    for path in base_weights(folder):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping, it only has this method
                if not torch.isfinite(file.get_tensor(name)).all():
                    raise ModelError(f"{path}: {name} holds NaN or infinities; {_RESTORE}")


def _check_layers(model: nn.Module) -> None:
    """Assert that the text model's linear layers, and they alone, are 4-bit, and keep them fit for training.

    Their weights are packed, so that their shapes are compared with those of the configuration here.

    On CPUs with AVX512-BF16 bitsandbytes repacks a layer's weights in place at its first evaluation, after which
    gradients through it are wrong; switching that off keeps one layer type for evaluation and training.
    """
    import bitsandbytes as bnb

    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        wanted = name.startswith("model.text_model.")
        if isinstance(module, bnb.nn.Linear4bit) != wanted:
            state = "not 4-bit" if wanted else "4-bit"
            raise ModelError(f"layer {name} is {state}; this base's layers are not named as in Idefics3")
        if wanted:
            shape, said = tuple(module.weight.quant_state.shape), (module.out_features, module.in_features)
            if shape != said:
                raise ModelError(f"layer {name} has weights of shape {shape}, but config.json says {said}; {_RESTORE}")
            module.support_avx512bf16_for_cpu = False


def load_processor(base: Base, image_side: int = 0) -> AutoProcessor:
    """The base's processor, set to one square crop a picture: splitting would cut a small frame into 13 crops.

    image_side: of the crop, in pixels; 0 for the base's own. The number of image tokens follows from it.
    Raises ModelError where its files do not make one that lays out a question in tokens that the weights have,
    ConfigError for a side that cannot be.
    """
    try:
        processor = AutoProcessor.from_pretrained(base.folder, **_FROM_DISK)
        config = AutoConfig.from_pretrained(base.folder, **_FROM_DISK)
        processor.image_processor.do_image_splitting = False
        _set_side(processor, config, base, image_side)
        Prompt(processor)
    except ConfigError:
        raise
    except Exception as error:  # of any kind, by what is wrong with the files
        raise ModelError(f"{base.folder}: its processor cannot be loaded ({_told(error)}); {_RESTORE}") from error
    known, tokenizer = config.text_config.vocab_size, processor.tokenizer
    if len(tokenizer) > known:  # the processor adds the tokens of its class that lack
        lacking = ", ".join(tokenizer.convert_ids_to_tokens(range(known, len(tokenizer)))[:5])
        raise ModelError(
            f"{base.folder}: its weights have {known:,} tokens, but its processor {len(tokenizer):,} (with {lacking}); "
            "resize its embeddings to the tokenizer's length and save it anew, or name another BASE_MODEL"
        )
    return processor


def _set_side(processor: AutoProcessor, config: PretrainedConfig, base: Base, image_side: int) -> None:
    """One image token stands for a square of patches; positions of patches are fractions of the side in Idefics3."""
    token = config.vision_config.patch_size * config.scale_factor
    own = dict(processor.image_processor.max_image_size)["longest_edge"]
    side = image_side or own
    if side % token:
        raise ConfigError(f"IMAGE_SIDE={side}: must be a multiple of {token} px for {base.name}, 0 for its own {own}")
    processor.image_processor.size = processor.image_processor.max_image_size = {"longest_edge": side}
    processor.image_seq_len = (side // token) ** 2


class Prompt:
    """Token ids of the chat format, cut so that image prefix, question and answer can be laid out apart."""

    def __init__(self, processor):
        self.tokenizer = processor.tokenizer
        self._template = processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "{question}"}]}],
            add_generation_prompt=True,
        )
        head, _, self._tail = self._template.partition(processor.image_token)
        if "{question}" not in self._tail:
            raise ModelError("its chat template lays out no picture with a question after it")
        fake, tag = processor.fake_image_token, processor.global_image_tag
        self.prefix: list[int] = self._ids(f"{head}{fake}{tag}{processor.image_token * processor.image_seq_len}{fake}")
        self.stop_id: int = self._ids("<end_of_utterance>")[0]
        self._never = [self.answer(text)[:-1] for text in NEVER_OF_COURSE]
        self.longest_never = max(map(len, self._never))

    def question(self, question: str) -> list[int]:
        """Ids from the end of the image to `Assistant:`, the question in its plain form."""
        return self._ids(self._tail.replace("{question}", plain(question)))

    def answer(self, answer: str) -> list[int]:
        """Ids of the answer and the stop token, the part that is learnt."""
        return [*self._ids(f" {answer}"), self.stop_id]

    def barred(self, begun: Sequence[int]) -> list[int]:
        """Tokens that would make of an answer begun so one of NEVER_OF_COURSE."""
        return [ids[-1] for ids in self._never if ids[:-1] == list(begun)]

    def segment(self, question: str, answer: str) -> Segment:
        learnt = self.answer(answer)
        return Segment((*self.question(question), *learnt), len(learnt))

    def options(self, question: str, candidates: Sequence[str]) -> Options:
        answers = tuple(tuple(self.answer(text)) for text in candidates)
        return Options(tuple(self.question(question)), answers, is_of_course(question))

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)
