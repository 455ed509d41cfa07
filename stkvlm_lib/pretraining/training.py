"""How a stage of pretraining is trained: optimisers, schedule, checkpoints, log. The stages say what is learnt.

Batches depend on (seed, step) alone, so an interrupted training goes on from its checkpoint as if nothing had happened.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from stkvlm_lib.device import compute_dtype
from stkvlm_lib.files import whole_file
from stkvlm_lib.pretraining.pictures import Batch, Pictures

AHEAD = 6
"""Batches that a worker process prepares ahead."""

Labels = dict[str, torch.Tensor]
Values = dict[str, float | torch.Tensor]


@dataclass(frozen=True)
class StageConfig:
    """Settings of a stage, kept in its checkpoint.

    matrix_lr: peak learning rate of hidden weight matrices, which Muon trains; other_lr: of all other weights (AdamW).
    Both warm up, stay, and over the last part of the steps, `falling`, fall to nearly nothing in a straight line.
    """

    steps: int
    batch_size: int = 32
    matrix_lr: float = 2e-3
    other_lr: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 150
    falling: float = 0.0
    seed: int = 0


class CheckpointError(ValueError):
    """A checkpoint that belongs to other settings; the message says what to do."""


class Stage(Protocol):
    """What is trained. trained: the modules whose weights change, by name, which the checkpoint holds; hidden: those
    parameters of them that are matrices between hidden states, for Muon; empty for AdamW alone."""

    trained: nn.ModuleDict
    hidden: list[nn.Parameter]

    def labels(self, pictures: Pictures, batch: Batch) -> Labels:
        """What is to be learnt of a batch, on the CPU; may be made ahead in another process."""

    def loss(self, pixels: torch.Tensor, labels: Labels, share: float) -> tuple[torch.Tensor, Values]:
        """Loss and what else is worth a look (NaN: nothing to say), all on the device of the pixels. share: how much
        of the stage is over, 0 to 1. May draw from torch."""

    def summary(self, values: Values) -> Values:
        """What of the values, averaged, is worth a line in the log."""


class Steps(Dataset):
    """Step -> its batch and labels: what can be made ahead of the training, in other processes."""

    def __init__(self, stage: Stage, pictures: Pictures, config: StageConfig):
        self.stage, self.pictures, self.config = stage, pictures, config

    def __getitem__(self, step: int) -> tuple[Batch, Labels]:
        batch = self.pictures.draw(self.config.seed, step, self.config.batch_size)
        return batch, self.stage.labels(self.pictures, batch)


class StageTraining:
    """A stage on its way, on the device of its weights: optimiser states, step and clock; can be saved and restored.

    It computes in bfloat16 where the device does (`in_half`), the weights stay in float32.
    """

    def __init__(self, stage: Stage, config: StageConfig):
        self.stage, self.config = stage, config
        self.device = next(stage.trained.parameters()).device
        self.step, self.seconds = 0, 0.0
        hidden = {id(p) for p in stage.hidden}
        others = [p for p in stage.trained.parameters() if id(p) not in hidden]
        decay = [
            {"params": [p for p in others if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
        ]
        adam = torch.optim.AdamW(decay, lr=config.other_lr, betas=(0.9, 0.98), fused=True)
        self.optimizers: dict[str, tuple[torch.optim.Optimizer, float]] = {"adam": (adam, config.other_lr)}
        if stage.hidden:
            muon = torch.optim.Muon(
                stage.hidden, lr=config.matrix_lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
            )
            self.optimizers["muon"] = (muon, config.matrix_lr)

    @property
    def share(self) -> float:
        """How much of the stage is over."""
        return self.step / max(1, self.config.steps)

    def rate(self) -> float:
        """The learning rates as a share of their peaks."""
        left = (1 - self.share) / self.config.falling + 0.01 if self.config.falling else 1.0
        return min(1.0, (self.step + 1) / self.config.warmup_steps, left)

    def train_step(self, pictures: Pictures, batch: Batch, labels: Labels) -> Values:
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)
        loss, values = self._loss(pictures.show(batch), labels, self.share)
        loss.backward()
        nn.utils.clip_grad_norm_(self.stage.trained.parameters(), 1.0)
        for optimizer, peak in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = peak * self.rate()
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        return values | {"loss": loss.detach()}

    def _loss(self, pixels: torch.Tensor, labels: Labels, share: float) -> tuple[torch.Tensor, Values]:
        labels = {name: value.to(self.device, non_blocking=True) for name, value in labels.items()}
        with in_half(self.device):
            return self.stage.loss(pixels, labels, share)

    @torch.no_grad()
    def evaluate(self, pictures: Pictures, size: int = 64) -> Values:
        """Means over unaltered pictures; leaves the training as it was."""
        with torch.random.fork_rng(), torch.compiler.set_stance("force_eager"):
            torch.manual_seed(0)
            mean = Mean()
            for batch in pictures.in_order(size):
                _, values = self._loss(pictures.show(batch), self.stage.labels(pictures, batch), 1.0)
                mean.add(values, len(batch))
        return mean.take()

    def run(
        self, pictures: Pictures, valid: Pictures, work: Path, name: str, every: int = 100, workers: int = 0
    ) -> None:
        """Train to the end from where the checkpoint in `work` stands, with a line in the log now and then.

        workers: processes that prepare batches, 0 for none but this.
        """
        work.mkdir(parents=True, exist_ok=True)
        checkpoint = work / f"{name}.pt"
        if checkpoint.exists():
            self.restore(checkpoint)
        begin, before, mean = time.monotonic(), self.seconds, Mean()
        for batch, labels in self._prepared(pictures, workers):
            mean.add(self.train_step(pictures, batch, labels))
            self.seconds = before + time.monotonic() - begin
            last = self.step == self.config.steps
            if self.step % every == 0 or last:
                line = {"stage": name, "step": self.step, "minutes": round(self.seconds / 60, 1)}
                line |= _rounded(self.stage.summary(mean.take()))
                if self.step % (every * 3) == 0 or last:
                    self.save(checkpoint)
                if self.step % (every * 10) == 0 or last:
                    line["valid"] = _rounded(self.stage.summary(self.evaluate(valid)))
                print(json.dumps(line), flush=True)
                with (work / "log.jsonl").open("a") as log:
                    log.write(json.dumps(line) + "\n")

    def _prepared(self, pictures: Pictures, workers: int) -> DataLoader:
        """Batches and labels of the steps to come."""
        return DataLoader(
            Steps(self.stage, pictures, self.config),
            batch_size=None,
            sampler=range(self.step, self.config.steps),
            num_workers=workers,
            prefetch_factor=AHEAD if workers else None,
            multiprocessing_context="fork" if workers else None,  # the pictures are not copied
            pin_memory=self.device.type == "cuda",
        )

    def save(self, path: Path) -> None:
        """Whole or not at all: weights, optimiser states, step and clock."""
        state = {
            "config": asdict(self.config),
            "step": self.step,
            "seconds": self.seconds,
            "trained": self.stage.trained.state_dict(),
            "optimizers": {kind: optimizer.state_dict() for kind, (optimizer, _) in self.optimizers.items()},
        }
        with whole_file(path) as part:
            torch.save(state, part)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint. Raises CheckpointError when it was made with other settings."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["config"] != asdict(self.config):
            raise CheckpointError(f"{path}: made with other settings; use another --work folder, or remove it")
        self.stage.trained.load_state_dict(state["trained"])
        for kind, (optimizer, _) in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][kind])
        self.step, self.seconds = state["step"], state["seconds"]


def in_half(device: torch.device) -> torch.autocast:
    """Products in bfloat16 where the device has them."""
    return torch.autocast(device.type, torch.bfloat16, enabled=compute_dtype(device) is torch.bfloat16)


class Mean:
    """Running weighted means of named values, NaN left out. Numbers on a device stay there until they are taken."""

    def __init__(self):
        self.sums: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def add(self, values: Values, weight: float = 1.0) -> None:
        for name, value in values.items():
            value = torch.as_tensor(value)
            total, weights = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = total + value.nan_to_num() * weight, weights + ~value.isnan() * weight

    def take(self) -> dict[str, float]:
        """The means so far; starts anew."""
        means = {name: float(total / weights) for name, (total, weights) in self.sums.items() if weights > 0}
        self.sums.clear()
        return means


def _rounded(values: Values) -> Values:
    return {name: float(np.round(value, 3)) for name, value in values.items()}


def hidden_matrices(*stacks: nn.Module) -> list[nn.Parameter]:
    """The weights of all linear layers inside stacks of layers: those that Muon is made for."""
    return [layer.weight for stack in stacks for layer in stack.modules() if isinstance(layer, nn.Linear)]
