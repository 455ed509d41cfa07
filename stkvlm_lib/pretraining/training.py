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
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from stkvlm_lib.files import whole_file
from stkvlm_lib.pretraining.pictures import Batch, Pictures

FALLING = 0.45
"""Share of a stage over which the learning rates fall in a straight line: its end sees other pictures than its start,
and must still learn from them."""

Values = dict[str, float]


@dataclass(frozen=True)
class StageConfig:
    """Settings of a stage, kept in its checkpoint.

    matrix_lr: peak learning rate of hidden weight matrices, which Muon trains; other_lr: of all other weights (AdamW).
    Both warm up, stay, and over the last FALLING of the steps fall to nearly nothing.
    """

    steps: int
    batch_size: int = 32
    matrix_lr: float = 2e-3
    other_lr: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 150
    seed: int = 0


class CheckpointError(ValueError):
    """A checkpoint that belongs to other settings; the message says what to do."""


class Stage(Protocol):
    """What is trained. trained: the modules whose weights change, by name, which the checkpoint holds; hidden: those
    parameters of them that are matrices between hidden states."""

    trained: nn.ModuleDict
    hidden: list[nn.Parameter]

    def loss(self, batch: Batch, share: float) -> tuple[torch.Tensor, Values]:
        """Loss and what else is worth a look; share: how much of the stage is over, 0 to 1. May draw from torch."""

    def summary(self, values: Values) -> Values:
        """What of the values, averaged, is worth a line in the log."""


class StageTraining:
    """A stage on its way: weights, optimiser states, step and clock; can be saved and restored."""

    def __init__(self, stage: Stage, config: StageConfig):
        self.stage, self.config = stage, config
        self.step, self.seconds = 0, 0.0
        hidden = {id(p) for p in stage.hidden}
        others = [p for p in stage.trained.parameters() if id(p) not in hidden]
        decay = [
            {"params": [p for p in others if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
        ]
        muon = torch.optim.Muon(
            stage.hidden, lr=config.matrix_lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        adam = torch.optim.AdamW(decay, lr=config.other_lr, betas=(0.9, 0.98), fused=True)
        self.optimizers = {"muon": (muon, config.matrix_lr), "adam": (adam, config.other_lr)}

    @property
    def share(self) -> float:
        """How much of the stage is over."""
        return self.step / max(1, self.config.steps)

    def rate(self) -> float:
        """The learning rates as a share of their peaks."""
        return min(1.0, (self.step + 1) / self.config.warmup_steps, (1 - self.share) / FALLING + 0.01)

    def train_step(self, pictures: Pictures) -> Values:
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)
        loss, values = self.stage.loss(pictures.draw(self.config.seed, self.step, self.config.batch_size), self.share)
        loss.backward()
        nn.utils.clip_grad_norm_(self.stage.trained.parameters(), 1.0)
        for optimizer, peak in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = peak * self.rate()
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        return values | {"loss": float(loss.detach())}

    @torch.no_grad()
    def evaluate(self, pictures: Pictures, size: int = 64) -> Values:
        """Means over unaltered pictures; leaves the training as it was."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            mean = Mean()
            for make in pictures.in_order(size):
                batch = make()
                _, values = self.stage.loss(batch, 1.0)
                mean.add(values, len(batch.views))
        return mean.take()

    def run(self, pictures: Pictures, valid: Pictures, work: Path, name: str, every: int = 100) -> None:
        """Train to the end from where the checkpoint in `work` stands, with a line in the log now and then."""
        work.mkdir(parents=True, exist_ok=True)
        checkpoint = work / f"{name}.safetensors"
        if checkpoint.exists():
            self.restore(checkpoint)
        begin, before, mean = time.monotonic(), self.seconds, Mean()
        while self.step < self.config.steps:
            mean.add(self.train_step(pictures))
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

    def save(self, path: Path) -> None:
        """Whole or not at all: weights and optimiser states, with the position in the file's metadata."""
        tensors = {f"trained.{name}": value for name, value in self.stage.trained.state_dict().items()}
        for kind, (optimizer, _) in self.optimizers.items():
            for i, state in optimizer.state_dict()["state"].items():
                tensors |= {f"{kind}.{i}.{name}": torch.as_tensor(value) for name, value in state.items()}
        meta = {"step": str(self.step), "seconds": str(self.seconds), "config": json.dumps(asdict(self.config))}
        with whole_file(path) as part:
            save_file({name: value.clone().contiguous() for name, value in tensors.items()}, part, metadata=meta)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint. Raises CheckpointError when it was made with other settings."""
        with safe_open(path, "pt") as file:
            meta = file.metadata()
            if json.loads(meta["config"]) != asdict(self.config):
                raise CheckpointError(f"{path}: made with other settings; use another --work folder, or remove it")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        parts: dict[str, dict] = {"trained": {}, "muon": {}, "adam": {}}
        for key, value in tensors.items():
            part, _, name = key.partition(".")
            parts[part][name] = value
        self.stage.trained.load_state_dict(parts["trained"])
        for kind, (optimizer, _) in self.optimizers.items():
            state: dict[int, dict] = {}
            for key, value in parts[kind].items():
                i, _, name = key.partition(".")
                state.setdefault(int(i), {})[name] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        self.step, self.seconds = int(meta["step"]), float(meta["seconds"])


class Mean:
    """Running weighted means of named values."""

    def __init__(self):
        self.sums: dict[str, tuple[float, float]] = {}

    def add(self, values: Values, weight: float = 1.0) -> None:
        for name, value in values.items():
            total, weights = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = total + value * weight, weights + weight

    def take(self) -> Values:
        """The means so far; starts anew."""
        means = {name: total / weights for name, (total, weights) in self.sums.items()}
        self.sums.clear()
        return means


def _rounded(values: Values) -> Values:
    return {name: float(np.round(value, 3)) for name, value in values.items()}


def hidden_matrices(modules: nn.Module) -> list[nn.Parameter]:
    """The weights of all linear layers inside a stack of layers: those that Muon is made for."""
    return [layer.weight for layer in modules.modules() if isinstance(layer, nn.Linear)]
