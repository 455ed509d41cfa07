"""The Trainer as this project uses it: loss on answers alone, valid pictures answered, on one process or several."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate.data_loader import DataLoaderShard
from transformers import PrinterCallback, Trainer, TrainingArguments

from stkvlm_lib.config import FinetuneConfig
from stkvlm_lib.device import compute_dtype, pick_device
from stkvlm_lib.grammar.questions import is_exact
from stkvlm_lib.qa.drawn import TrainingPicture
from stkvlm_lib.qa.qa_sets import Record, by_picture
from stkvlm_lib.vlm.diary import TENSORBOARD, Diary, tensorboard
from stkvlm_lib.vlm.features import FeatureStore
from stkvlm_lib.vlm.packing import IGNORE
from stkvlm_lib.vlm.training_batches import Collator, PackedPictures, Shares


def answer_loss(outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None) -> torch.Tensor:
    """Mean cross-entropy of the answer and stop tokens. logits (B, K, V) and labels (B, K) of the kept positions."""
    total = F.cross_entropy(
        outputs.logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="sum"
    )
    return total / (labels != IGNORE).sum() if num_items_in_batch is None else total / num_items_in_batch


class TrainingDiverged(RuntimeError):
    """A training whose loss or weights are no numbers any more; the message names the step and what to do."""


class QloraTrainer(Trainer):
    """The Trainer with our way of scoring the valid pictures: generated answers, strict exact match.

    Every process reads its share of each global batch and answers its share of the valid pictures. It stops at the
    first loss that is no number, and saves no checkpoint whose weights are none, so that the last one on disk is good.
    Raises TrainingDiverged.
    """

    def __init__(
        self,
        config: FinetuneConfig,
        arguments: TrainingArguments,
        store: FeatureStore,
        train: Sequence[TrainingPicture],
        tokens: Sequence[torch.Tensor] | None,
        valid: list[Record],
        diary: Diary,
    ):
        """tokens: the image tokens of `train`, None to read the pictures themselves."""
        answerer = store.answerer
        super().__init__(
            answerer.model,
            arguments,
            data_collator=Collator(answerer),
            train_dataset=PackedPictures(answerer.prompt, train, store.frames, tokens),
            eval_dataset=valid,
            compute_loss_func=answer_loss,
            callbacks=[diary],
        )
        if arguments.process_index == 0 and TENSORBOARD in config.reporters:
            self.add_callback(tensorboard(config.run_path / "logs"))
        self.remove_callback(PrinterCallback)  # Diary prints
        self._loss_shifts_labels = False  # ours are in place: the Trainer would count all but the first of each row
        self.batch_size = config.batch_size
        self.valid = by_picture(valid)
        self.store = store
        if answerer.adapter_sees:  # what it kept of a picture would be outdated at the next answering
            self.store = FeatureStore(answerer, store.frames, store.batch_size, limit_mb=0)

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
        trained = ((name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad)
        for name, weight in trained:
            if not torch.isfinite(weight).all():
                self._stop(f"{name} is not finite after step {self.state.global_step}")
        super()._save_checkpoint(*args, **kwargs)

    def _stop(self, what: str) -> None:
        raise TrainingDiverged(
            f"{what}: the training has diverged and nothing of it is scored; train again with a lower LEARNING_RATE "
            f"than {self.args.learning_rate:g} (./run_all.sh with --from 03). The last good checkpoint: "
            f"{last_checkpoint(Path(self.args.output_dir)) or 'none yet'}"
        )

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
    dtype = compute_dtype(device, config.precision)
    return TrainingArguments(
        output_dir=str(config.run_path / "training"),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,  # of all processes together: QloraTrainer draws the batches
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


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end (the Trainer writes its state last)."""
    steps = {
        int(path.parent.name.rsplit("-", 1)[1]): path.parent for path in folder.glob("checkpoint-*/trainer_state.json")
    }
    return str(steps[max(steps)]) if steps else None
