"""The Trainer as this project uses it: loss on answers alone, valid pictures answered, on one process or several."""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate.data_loader import DataLoaderShard
from transformers import PrinterCallback, Trainer, TrainingArguments

from stkvlm_lib.config import FinetuneConfig
from stkvlm_lib.grammar.questions import is_exact
from stkvlm_lib.qa.qa_sets import Record, by_picture
from stkvlm_lib.vlm.base_vlm import compute_dtype, pick_device
from stkvlm_lib.vlm.diary import TENSORBOARD
from stkvlm_lib.vlm.divergence import diverged, strange_weight
from stkvlm_lib.vlm.features import FeatureStore
from stkvlm_lib.vlm.packing import IGNORE
from stkvlm_lib.vlm.training_batches import Shares


def answer_loss(outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None) -> torch.Tensor:
    """Mean cross-entropy of the answer and stop tokens. logits (B, K, V) and labels (B, K) of the kept positions."""
    total = F.cross_entropy(
        outputs.logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="sum"
    )
    return total / (labels != IGNORE).sum() if num_items_in_batch is None else total / num_items_in_batch


class QloraTrainer(Trainer):
    """The Trainer with our way of scoring the valid pictures: generated answers, strict exact match.

    Every process reads its share of each global batch and answers its share of the valid pictures. It stops at the
    first loss that is no number, and saves no checkpoint whose weights are none, so that the last one on disk is good.
    Raises TrainingDiverged.
    """

    def __init__(self, *args, batch_size: int, valid: list[Record], store: FeatureStore, **kwargs):
        super().__init__(*args, compute_loss_func=answer_loss, **kwargs)
        self.remove_callback(PrinterCallback)  # Diary prints
        self._loss_shifts_labels = False  # ours are in place: the Trainer would count all but the first of each row
        self.batch_size = batch_size
        self.valid = by_picture(valid)
        self.store = store

    def get_train_dataloader(self) -> DataLoaderShard:
        shares = Shares(
            len(self.train_dataset), self.batch_size, self.args.data_seed, self.args.process_index, self.args.world_size
        )
        return DataLoaderShard(
            self.train_dataset, device=self.accelerator.device, batch_sampler=shares, collate_fn=self.data_collator
        )

    def training_step(self, *args, **kwargs) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        if not math.isfinite(loss):
            self._stop(f"the loss of step {self.state.global_step + 1} is {loss:.3g}")
        return loss

    def _save_checkpoint(self, *args, **kwargs) -> None:
        if name := strange_weight(self.model):
            self._stop(f"{name} is not finite after step {self.state.global_step}")
        super()._save_checkpoint(*args, **kwargs)

    def _stop(self, what: str) -> None:
        raise diverged(what, self.args.learning_rate, Path(self.args.output_dir))

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        names = list(self.valid)[self.args.process_index :: self.args.world_size]
        counts = torch.zeros(2, dtype=torch.long, device=self.accelerator.device)  # right, all
        for chunk, features in self.store.batches([(name, False) for name in names]):
            asked = [self.valid[name] for name, _ in chunk]
            answers = self.store.answerer.answer_encoded(features, [[r.question for r in group] for group in asked])
            for group, given in zip(asked, answers, strict=True):
                right = sum(is_exact(a.text, r.answer) for r, a in zip(group, given, strict=True))
                counts += torch.tensor([right, len(group)], device=counts.device)
        right, every = self.accelerator.reduce(counts).tolist()
        metrics = {"eval_exact": right / every}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def training_arguments(config: FinetuneConfig, pictures: int, has_valid: bool) -> TrainingArguments:
    """Our settings in the Trainer's terms."""
    steps = -(-pictures // config.batch_size) * config.epochs
    every = max(1, -(-steps // config.evaluations))
    device = pick_device()
    dtype = compute_dtype(device)
    return TrainingArguments(
        output_dir=str(config.run_path / "training"),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,  # of all processes together: QloraTrainer draws the batches
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
        ddp_find_unused_parameters=False,
        disable_tqdm=True,
        report_to=[name for name in config.reporters if name != TENSORBOARD],
    )
