"""QLoRA training: frozen 4-bit base, a LoRA adapter on its text model, the loss on answers and stop tokens alone."""

import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from peft.tuners.lora import LoraLayer
from PIL import Image
from torch import nn
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from stkvlm_lib.config import EMBEDDED, FinetuneConfig, resolve
from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.files import read_json, read_jsonl, write_json, write_jsonl
from stkvlm_lib.grammar.questions import normalise
from stkvlm_lib.model_files import check_start, read_adapter
from stkvlm_lib.qa.qa_sets import Record, by_picture
from stkvlm_lib.qa.training_draw import TrainingPicture
from stkvlm_lib.runs import peak_memory_mb
from stkvlm_lib.vlm.adapter import load_answerer, new_adapter, save_adapter
from stkvlm_lib.vlm.answering import AnswerModel, image_outputs
from stkvlm_lib.vlm.base_vlm import Prompt, compute_dtype, pick_device
from stkvlm_lib.vlm.features import FeatureStore
from stkvlm_lib.vlm.packing import IGNORE, PackedExample, collate, pack
from stkvlm_lib.vlm.temperature import Labelled, fit_temperature

LogRows = list[dict]


class TrainingDiverged(RuntimeError):
    """A training whose loss or weights are no numbers any more; the message names the step and what to do."""


@dataclass(frozen=True)
class TrainingFacts:
    """What a training took: seconds and rates, interruptions left out, the step whose adapter was kept.

    valid_exact, valid_majority: shares of the valid questions that the adapter kept and each family's most frequent
    answer have right; None without valid questions.
    """

    train_seconds: float
    qa_per_second_train: float
    peak_memory_mb: float
    steps: int
    kept_step: int
    valid_exact: float | None
    valid_majority: float | None
    pictures: int
    questions: int
    trainable_parameters: int
    adapter_mb: float
    temperature: float


def build_trainable(config: FinetuneConfig) -> AnswerModel:
    """Base in 4 bit with a fresh adapter, or with the one in START_ADAPTER to go on from. The seed comes first.

    Rank and alpha of a START_ADAPTER stay; its dropout is the one set here. Raises ConfigError where another rank or
    alpha was asked for, ModelError for an adapter or base that cannot be used.
    """
    torch.manual_seed(config.seed)
    start = resolve(config.start_adapter) if config.start_adapter else None
    if start:
        lora = read_adapter(start).lora
        check_start(config, lora)
        print(f"START_ADAPTER goes on with its rank {lora.rank} and alpha {lora.alpha}")
    base = config.base_model or EMBEDDED
    answerer = load_answerer(start, base, config.base_revision, config.quantization, trainable=True)
    if start:
        set_dropout(answerer, config.lora_dropout)
    else:
        answerer.model = new_adapter(
            answerer.model,
            rank=config.lora_rank,
            alpha=config.lora_alpha,
            dropout=config.lora_dropout,
            seed=config.seed,
        )
    answerer.model.config.use_cache = False
    return answerer


def set_dropout(answerer: AnswerModel, dropout: float) -> None:
    """Drop this share of the adapter's inputs in training, in place of what it was trained with before."""
    answerer.model.peft_config["default"].lora_dropout = dropout
    for module in answerer.model.modules():
        if isinstance(module, LoraLayer):
            module.lora_dropout["default"] = nn.Dropout(dropout) if dropout else nn.Identity()


def trainable_parameters(answerer: AnswerModel) -> tuple[int, int]:
    """Numbers of trainable and of all parameters (4-bit weights counted as weights, not as bytes)."""
    return answerer.model.get_nb_trainable_parameters()


def layer_summary(answerer: AnswerModel) -> list[dict]:
    """One row a part of the model: how its weights are stored and how many it has; the adapter is left out."""
    core = answerer.core
    tied = core.lm_head.weight is core.get_input_embeddings().weight
    parts = {
        "vision tower": core.model.vision_model,
        "connector": core.model.connector,
        "text model": core.model.text_model,
        f"lm_head{' (tied to the token embeddings)' if tied else ''}": core.lm_head,
    }
    rows = []
    for name, part in parts.items():
        layers = [m for n, m in part.named_modules() if isinstance(m, nn.Linear) and "lora_" not in n]
        kinds = {
            "NF4, 4 bit" if "4bit" in type(m).__name__ else str(m.weight.dtype).removeprefix("torch.") for m in layers
        }
        weights = sum(m.in_features * m.out_features for m in layers)
        rows.append(
            {"part": name, "linear layers": len(layers), "weights in them": weights, "stored as": ", ".join(kinds)}
        )
    return rows


def pack_picture(prompt: Prompt, item: TrainingPicture) -> PackedExample:
    """A training picture and its questions as one sequence."""
    pairs = zip(item.questions, item.answers, strict=True)
    return pack(prompt.prefix, [prompt.segment(question, answer) for question, answer in pairs])


def packed_tokens(answerer: AnswerModel, item: TrainingPicture) -> tuple[list[str], list[bool], list[int]]:
    """One packed example for display: its tokens, whether each takes part in the loss, and its segment number."""
    packed = pack_picture(answerer.prompt, item)
    tokens = answerer.prompt.tokenizer.convert_ids_to_tokens(packed.input_ids)
    return tokens, [label != IGNORE for label in packed.labels], packed.segment_ids


def read_log(run: Path) -> LogRows:
    """The rows of a run's train_log.jsonl."""
    return read_jsonl(run / "train_log.jsonl", "run notebook 03_finetune_qlora to write it")


def average_picture(folder: FrameSet, names: Iterable[str]) -> Image.Image:
    """The mean of training pictures, in the size of the first: what a blind model is shown."""
    total, size, n = 0.0, None, 0
    for name in names:
        image = folder.by_image_file[name].image()
        size = size or image.size
        total = total + np.asarray(image.resize(size), np.float64)
        n += 1
    return Image.fromarray((total / n).round().astype(np.uint8))


class PackedPictures(Dataset):
    """One item a training picture: its packed questions and its image tokens."""

    def __init__(self, answerer: AnswerModel, pictures: Sequence[TrainingPicture], features: dict):
        self.features = features
        self.keys = [(p.image_file, p.mirrored) for p in pictures]
        self.packed = [pack_picture(answerer.prompt, p) for p in pictures]

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, index: int) -> tuple[PackedExample, torch.Tensor]:
        return self.packed[index], self.features[self.keys[index]]


@dataclass(frozen=True)
class Collator:
    """Packed pictures -> what the model's forward takes."""

    pad_id: int

    def __call__(self, items: Sequence[tuple[PackedExample, torch.Tensor]]) -> dict:
        packed, features = zip(*items, strict=True)
        return {**collate(packed, self.pad_id), "mm_encoder_outputs": image_outputs(torch.stack(features))}


def answer_loss(outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None) -> torch.Tensor:
    """Mean cross-entropy of the answer and stop tokens. logits (B, K, V) and labels (B, K) of the kept positions."""
    total = F.cross_entropy(
        outputs.logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="sum"
    )
    return total / (labels != IGNORE).sum() if num_items_in_batch is None else total / num_items_in_batch


class QloraTrainer(Trainer):
    """The Trainer with our way of scoring the valid pictures: generated answers, strict exact match.

    It stops at the first loss that is no number, and saves no checkpoint whose weights are none, so that the last one
    on disk is good. Raises TrainingDiverged.
    """

    def __init__(self, *args, answerer: AnswerModel, valid: list[Record], valid_features: dict, **kwargs):
        super().__init__(*args, compute_loss_func=answer_loss, **kwargs)
        self.remove_callback(PrinterCallback)  # Diary prints
        self.answerer = answerer
        self.valid = by_picture(valid)
        self.valid_features = valid_features

    def training_step(self, *args, **kwargs) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        if not math.isfinite(loss):
            raise TrainingDiverged(_diverged(f"the loss of step {self.state.global_step + 1} is {loss:.3g}", self.args))
        return loss

    def _save_checkpoint(self, *args, **kwargs) -> None:
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and not torch.isfinite(parameter).all():
                what = f"{name} is not finite after step {self.state.global_step}"
                raise TrainingDiverged(_diverged(what, self.args))
        super()._save_checkpoint(*args, **kwargs)

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        right = total = 0
        names = list(self.valid)
        for start in range(0, len(names), self.args.eval_batch_size):
            chunk = names[start : start + self.args.eval_batch_size]
            features = torch.stack([self.valid_features[name, False] for name in chunk]).to(self.answerer.device)
            answers = self.answerer.answer_encoded(features, [[r.question for r in self.valid[n]] for n in chunk])
            for name, group in zip(chunk, answers, strict=True):
                for record, answer in zip(self.valid[name], group, strict=True):
                    right += normalise(answer.text) == normalise(record.answer)
                    total += 1
        metrics = {"eval_exact": right / total}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def _diverged(what: str, arguments: TrainingArguments) -> str:
    kept = last_checkpoint(Path(arguments.output_dir))
    return (
        f"{what}: the training has diverged and nothing of it is scored; train again with a lower LEARNING_RATE than "
        f"{arguments.learning_rate:g} (./run_all.sh with --from 03). The last good checkpoint: {kept or 'none yet'}"
    )


class Diary(TrainerCallback):
    """Writes train_log.jsonl whole at each log, keeps the clock across interruptions, and shows the curve if asked."""

    def __init__(self, folder: Path, show: Callable[[LogRows], None] | None):
        self.folder, self.show = folder, show
        self.clock_file = folder / "training" / "clock.json"
        self.before = read_json(self.clock_file)["seconds"] if self.clock_file.exists() else 0.0
        self.begin = time.monotonic()
        self.shown = 0

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.begin

    def on_log(self, args, state, control, **kwargs) -> None:
        rows = log_rows(state.log_history)
        if len(rows) == self.shown:
            return
        self.shown = len(rows)
        write_jsonl(self.folder / "train_log.jsonl", rows)
        last = rows[-1]
        value = f"valid exact {last['valid_exact']:.3f}" if "valid_exact" in last else f"loss {last['loss']:.3f}"
        left = self.seconds / max(1, state.global_step) * (state.max_steps - state.global_step)
        print(f"step {last['step']:>5} of {state.max_steps}  {value}  about {left / 60:.1f} min left", flush=True)
        if self.show:
            self.show(rows)

    def on_save(self, args, state, control, **kwargs) -> None:
        write_json(self.clock_file, {"seconds": self.seconds})


def log_rows(history: Sequence[dict]) -> LogRows:
    """The Trainer's log as rows of step, epoch and either loss and learning_rate or valid_exact."""
    names = {"loss": "loss", "learning_rate": "learning_rate", "eval_exact": "valid_exact"}
    rows = []
    for entry in history:
        found = {names[key]: entry[key] for key in names if key in entry}
        if found:
            rows.append({"step": entry["step"], "epoch": entry.get("epoch", 0.0), **found})
    return rows


def finetune(
    answerer: AnswerModel,
    config: FinetuneConfig,
    folder: FrameSet,
    train: Sequence[TrainingPicture],
    valid: list[Record],
    calibration: Mapping[str, Labelled] | None = None,
    *,
    resume: bool = False,
    show: Callable[[LogRows], None] | None = None,
    features: FeatureStore | None = None,
) -> TrainingFacts:
    """Train the adapter and save it to RUN_DIR/adapter.

    The adapter kept is the one that answers the valid questions best; without valid questions, the last one.
    calibration: questions about valid pictures by which the temperature is fitted that comes with the adapter.
    resume: go on from the last checkpoint in RUN_DIR/training; otherwise what lies there is removed first.
    show: called with the rows of the log so far, each time one is added.
    features: a store that knows pictures already, or shall keep them for other trainings.
    """
    run = config.run_path
    if not resume:
        shutil.rmtree(run / "training", ignore_errors=True)
    features = features or FeatureStore(answerer, folder, config.eval_batch_size)
    train_features = features.of([(p.image_file, p.mirrored) for p in train], "encode train pictures")
    calibration = calibration or {}
    held_out = dict.fromkeys((*by_picture(valid), *calibration))
    valid_features = features.of([(name, False) for name in held_out], "encode valid pictures")
    diary = Diary(run, show)
    trainer = QloraTrainer(
        answerer.model,
        training_arguments(config, len(train), bool(valid)),
        data_collator=Collator(answerer.prompt.tokenizer.pad_token_id),
        train_dataset=PackedPictures(answerer, train, train_features),
        eval_dataset=valid,
        callbacks=[diary],
        answerer=answerer,
        valid=valid,
        valid_features=valid_features,
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(run / "training"))
    answerer.temperature = fit_temperature(answerer, valid_features, calibration, config.eval_batch_size)
    seconds, state, questions = diary.seconds, trainer.state, sum(len(p.questions) for p in train)
    kept = int(state.best_model_checkpoint.rsplit("-", 1)[1]) if state.best_model_checkpoint else state.global_step
    mean = average_picture(folder, sorted({p.image_file for p in train}))
    size = save_adapter(answerer, run / "adapter", mean, settings=_settings(config, answerer), kept_step=kept)
    majority = majority_share(valid)
    facts = TrainingFacts(
        train_seconds=seconds,
        qa_per_second_train=questions * config.epochs / seconds,
        peak_memory_mb=peak_memory_mb(),
        steps=state.global_step,
        kept_step=kept,
        valid_exact=state.best_metric,
        valid_majority=majority,
        pictures=len(train),
        questions=questions,
        trainable_parameters=trainable_parameters(answerer)[0],
        adapter_mb=size,
        temperature=answerer.temperature,
    )
    write_json(run / "training.json", asdict(facts))
    if warning := majority_warning([row["valid_exact"] for row in read_log(run) if "valid_exact" in row], majority):
        print(warning, flush=True)
    return facts


def majority_share(records: Sequence[Record]) -> float | None:
    """The share of questions that each family's most frequent answer has right; None for no questions."""
    answers: dict[str, Counter] = {}
    for record in records:
        answers.setdefault(record.family, Counter())[normalise(record.answer)] += 1
    return sum(max(counts.values()) for counts in answers.values()) / len(records) if records else None


def majority_warning(exact: Sequence[float], majority: float | None) -> str:
    """What to say where the last or the best of the valid scores is no better than guessing; empty otherwise."""
    if majority is None or not exact or min(max(exact), exact[-1]) > majority:
        return ""
    return (
        f"warning: valid exact was {max(exact):.3f} at best and {exact[-1]:.3f} at last, where each family's most "
        f"frequent answer has {majority:.3f}: this adapter has learnt little or has diverged; lower LEARNING_RATE"
    )


def _settings(config: FinetuneConfig, answerer: AnswerModel) -> dict:
    """What the adapter records of its training: everything but paths, which mean nothing elsewhere. Its form is that
    which it has, also where it goes on from another's."""
    paths = ("run_dir", "frames_dir", "base_model", "start_adapter")
    lora = answerer.model.peft_config["default"]
    form = {"lora_rank": lora.r, "lora_alpha": lora.lora_alpha, "lora_dropout": lora.lora_dropout}
    return {name: value for name, value in asdict(config).items() if name not in paths} | form


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end (the Trainer writes its state last)."""
    steps = {
        int(path.parent.name.rsplit("-", 1)[1]): path.parent for path in folder.glob("checkpoint-*/trainer_state.json")
    }
    return str(steps[max(steps)]) if steps else None


def training_arguments(config: FinetuneConfig, pictures: int, has_valid: bool) -> TrainingArguments:
    """Our settings in the Trainer's terms."""
    steps = -(-pictures // config.batch_size) * config.epochs
    every = max(1, -(-steps // config.evaluations))
    device = pick_device()
    dtype = compute_dtype(device)
    return TrainingArguments(
        output_dir=str(config.run_path / "training"),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.eval_batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, steps // 30),
        max_grad_norm=1.0,
        weight_decay=0.0,
        optim="adamw_torch_fused",
        bf16=dtype is torch.bfloat16,
        fp16=dtype is torch.float16,
        use_cpu=device.type == "cpu",
        logging_steps=max(1, min(20, steps // 20)),
        logging_nan_inf_filter=False,  # QloraTrainer stops at such a loss
        save_strategy="steps",
        save_steps=every,
        eval_strategy="steps" if has_valid else "no",
        eval_steps=every,
        load_best_model_at_end=has_valid,
        metric_for_best_model="eval_exact" if has_valid else None,
        greater_is_better=True if has_valid else None,
        save_total_limit=2,
        seed=config.seed,
        data_seed=config.seed,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to=[],
    )
