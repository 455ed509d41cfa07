"""The base model in NF4 with its processor, the LoRA adapter on it, and answering.

A base is `embedded` (models/embedded), a local folder, or a hub id. All three load through the same Auto classes onto
the same layers, on a CPU as on a GPU.
"""

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig, DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.logging import disable_progress_bar

from stkvlm_lib.config import EMBEDDED, ROOT, resolve
from stkvlm_lib.files import read_json, sha256, write_json, write_text
from stkvlm_lib.packing import Segment

LORA_TARGETS = r".*text_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
FULL_PRECISION = ["model.vision_model", "model.connector", "lm_head"]
"""Modules that are not quantized, named from the start of the path (see `_check_layers`)."""
MAX_ANSWER_TOKENS = 16
MAX_ADAPTER_MB = 50
RECORD_FILE = "stkvlm.json"
MEAN_IMAGE_FILE = "mean_image.png"


class ModelError(ValueError):
    """A base model or adapter that cannot be used; the message says which and what to do."""


@dataclass(frozen=True)
class Base:
    """Which base: its recorded name (never a path), the folder its files lie in, revision and hash of the weights."""

    name: str
    folder: Path
    revision: str
    sha256: str

    def record(self) -> dict:
        return {"name": self.name, "revision": self.revision, "sha256": self.sha256}


@dataclass(frozen=True)
class Answer:
    """A generated answer and the probability of its tokens together with the stop token."""

    text: str
    confidence: float


def find_base(name: str = "", revision: str = "") -> Base:
    """Resolve a base to files on disk, downloading a hub id once. Raises ModelError when it cannot be had."""
    if name in ("", EMBEDDED):
        folder = ROOT / "models" / EMBEDDED
        if not (folder / "config.json").exists():
            raise ModelError(f"{folder}: the embedded base is missing; restore it, or make it with stkvlm_lib.pretrain")
        return _local_base(EMBEDDED, folder)
    if resolve(name).is_dir():
        return _local_base(resolve(name).name, resolve(name))
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelError(f"BASE_MODEL={name!r}: no such folder, and not a hub id (owner/name)")
    try:
        folder = Path(
            snapshot_download(
                name, revision=revision or None, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja"]
            )
        )
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"base model {name!r} is not in the local cache and cannot be had ({type(error).__name__}: {reason}); "
            f"connect to the hub with HF_HUB_OFFLINE=0, give a local folder, or use BASE_MODEL={EMBEDDED}"
        ) from error
    return Base(name, folder, folder.name, _hash_weights(folder))


def _local_base(name: str, folder: Path) -> Base:
    return Base(name, folder, "", _hash_weights(folder))


def _hash_weights(folder: Path) -> str:
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ModelError(f"{folder}: no *.safetensors there; give a folder in the Hugging Face layout")
    return sha256(weights)


def pick_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def compute_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the GPU computes in it, float16 on older ones, float32 on a CPU."""
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def load_base(base: Base, quantization: str = "nf4") -> nn.Module:
    """The base with its text model in NF4 (or as it is, for `none`), in eval mode, everything frozen."""
    disable_progress_bar()  # the weights load in a second; the bar only clutters notebooks
    device = pick_device()
    dtype = compute_dtype(device)
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=FULL_PRECISION,
    )
    model = AutoModelForImageTextToText.from_pretrained(
        base.folder,
        dtype=dtype,
        attn_implementation="sdpa",
        device_map={"": device},
        quantization_config=nf4 if quantization == "nf4" else None,
    )
    if quantization == "nf4":
        _check_layers(model)
    return model.requires_grad_(False).eval()


def _check_layers(model: nn.Module) -> None:
    """Assert that the text model's linear layers, and they alone, are 4-bit, and keep them fit for training.

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
            module.support_avx512bf16_for_cpu = False


def load_processor(base: Base) -> AutoProcessor:
    """The base's processor, set to one square crop a picture: splitting would cut a small frame into 13 crops."""
    processor = AutoProcessor.from_pretrained(base.folder)
    pictures = processor.image_processor
    pictures.do_image_splitting = False
    pictures.size = {"longest_edge": dict(pictures.max_image_size)["longest_edge"]}
    return processor


class Prompt:
    """Token ids of the chat format, cut so that image prefix, question and answer can be laid out apart."""

    def __init__(self, processor):
        self.tokenizer = processor.tokenizer
        self._template = processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "{question}"}]}],
            add_generation_prompt=True,
        )
        head, _, self._tail = self._template.partition(processor.image_token)
        fake, tag = processor.fake_image_token, processor.global_image_tag
        self.prefix: list[int] = self._ids(f"{head}{fake}{tag}{processor.image_token * processor.image_seq_len}{fake}")
        self.stop_id: int = self._ids("<end_of_utterance>")[0]

    def question(self, question: str) -> list[int]:
        """Ids from the end of the image to `Assistant:`."""
        return self._ids(self._tail.replace("{question}", question.strip()))

    def answer(self, answer: str) -> list[int]:
        """Ids of the answer and the stop token, the part that is learnt."""
        return [*self._ids(f" {answer}"), self.stop_id]

    def segment(self, question: str, answer: str) -> Segment:
        learnt = self.answer(answer)
        return Segment((*self.question(question), *learnt), len(learnt))

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)


class AnswerModel:
    """A base, with or without an adapter, that answers questions about pictures; each picture is encoded once."""

    def __init__(self, base: Base, model: nn.Module, processor):
        self.base = base
        self.model = model
        self.processor = processor
        self.prompt = Prompt(processor)
        self.device = pick_device()

    def answer(self, image: Image.Image, question: str) -> Answer:
        """Answer one question about one picture of any size."""
        return self.answer_encoded(self.encode([image]), [[question]])[0][0]

    @torch.inference_mode()
    def encode(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Pictures -> image tokens (B, tokens, D) in the text model's space. The adapter has no part in them."""
        inputs = self.processor.image_processor(images=[[image] for image in images], return_tensors="pt")
        inputs = {name: inputs[name].to(self.device) for name in ("pixel_values", "pixel_attention_mask")}
        with self._evaluating():
            return torch.stack(self.core.get_image_features(**inputs).pooler_output)

    @torch.inference_mode()
    def answer_encoded(self, features: torch.Tensor, questions: Sequence[Sequence[str]]) -> list[list[Answer]]:
        """Greedy answers. features: (B, tokens, D); questions: B lists -> B lists of answers.

        The image prefix runs once a picture; its key-value cache is then shared by the picture's questions, which are
        padded on the left between prefix and question.
        """
        rows = [self.prompt.question(question) for group in questions for question in group]
        if not rows:
            return [[] for _ in questions]
        owner = torch.tensor([i for i, group in enumerate(questions) for _ in group], device=self.device)
        with self._evaluating():
            cache = self._read_prefix(features)
            cache.batch_select_indices(owner)
            tokens, confidence = self._generate(cache, rows)
        texts = self.prompt.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        answers = iter([Answer(t.strip(), c) for t, c in zip(texts, confidence, strict=True)])
        return [[next(answers) for _ in group] for group in questions]

    @property
    def core(self) -> nn.Module:
        """The Idefics3 model itself, under PEFT's wrapper if there is one."""
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """The base alone, for comparison."""
        if isinstance(self.model, PeftModel):
            with self.model.disable_adapter():
                yield
        else:
            yield

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(training)

    def _read_prefix(self, features: torch.Tensor) -> DynamicCache:
        ids = torch.tensor([self.prompt.prefix] * len(features), device=self.device)
        cache = DynamicCache(config=self.core.config.text_config)
        self.core.model(
            input_ids=ids, mm_encoder_outputs=image_outputs(features), past_key_values=cache, use_cache=True
        )
        return cache

    def _generate(self, cache: DynamicCache, rows: Sequence[Sequence[int]]) -> tuple[list[list[int]], list[float]]:
        """Greedy decoding of all rows together, until each has stopped or MAX_ANSWER_TOKENS are written."""
        prefix, longest = len(self.prompt.prefix), max(map(len, rows))
        pads = torch.tensor([longest - len(row) for row in rows], device=self.device)[:, None]
        pad_id = self.prompt.tokenizer.pad_token_id
        ids = torch.tensor([[pad_id] * (longest - len(row)) + list(row) for row in rows], device=self.device)
        places = torch.arange(longest, device=self.device) - pads
        positions = prefix + places.clamp(min=0)
        mask = torch.cat([torch.ones(len(rows), prefix, device=self.device), (places >= 0).float()], 1).long()
        written: list[torch.Tensor] = []
        running = torch.ones(len(rows), dtype=torch.bool, device=self.device)
        log_probability = torch.zeros(len(rows), device=self.device)
        for _ in range(MAX_ANSWER_TOKENS):
            out = self.core.model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
            )
            logits = self.core.lm_head(out.last_hidden_state[:, -1]).float()
            best, token = logits.log_softmax(-1).max(-1)
            log_probability += torch.where(running, best, 0.0)
            token = torch.where(running, token, self.prompt.stop_id)
            written.append(token)
            running = running & (token != self.prompt.stop_id)
            if not running.any():
                break
            ids, positions = token[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        return torch.stack(written, 1).tolist(), log_probability.exp().tolist()


def image_outputs(features: torch.Tensor) -> dict[str, BaseModelOutputWithPooling]:
    """Image tokens (B, tokens, D) in the form in which Idefics3 takes them instead of pictures."""
    return {"image": BaseModelOutputWithPooling(pooler_output=features)}


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
    write_json(folder / RECORD_FILE, {"base": answerer.base.record(), "versions": versions, **facts})
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
`stkvlm_lib.base_vlm.load_answerer`, or with `PeftModel.from_pretrained` on that base and the processor settings beside
this file. `{RECORD_FILE}` records base, settings and versions, `{MEAN_IMAGE_FILE}` is the picture for the blind score.
"""


def adapter_mb(folder: Path) -> float:
    """Size of a whole adapter folder in MB (10^6 bytes)."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


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
        raise ModelError(
            f"{adapter_dir}: made on base {made_on} (weights {record['base']['sha256'][:12]}), "
            f"but BASE_MODEL is {base.name} (weights {base.sha256[:12]}); set BASE_MODEL to the adapter's base"
        )
    processor = load_processor(base)
    try:
        model = load_base(base, quantization)
        if adapter_dir:
            model = PeftModel.from_pretrained(model, str(adapter_dir), is_trainable=trainable).eval()
    except SafetensorError as error:
        raise ModelError(f"{adapter_dir or base.folder}: weights cannot be read ({error}); restore them") from None
    return AnswerModel(base, model, processor)


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
