"""Train the embedded base from scratch: `python -m stkvlm_lib.vlm.pretrain --frames frames --out models/embedded`.

Two stages on train races only. First the vision tower alone learns, on half of the patches at a time, which kart covers
each patch and where that kart's centre is. Then the whole model learns dense captions (the questions stay for QLoRA).
Pictures are mirrored, cropped and recoloured; the labels follow from the moved boxes by the course rule. Batches depend
on (seed, step) alone, so an interrupted training goes on from its checkpoint as if nothing had happened.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from stkvlm_lib.grammar.questions import KARTS, TRACKS
from stkvlm_lib.grammar.scene import Scene
from stkvlm_lib.runs import set_up_torch
from stkvlm_lib.vlm.embedded import GRID, build_model, build_processor, caption
from stkvlm_lib.vlm.packing import IGNORE, Segment, collate, pack
from stkvlm_lib.vlm.pretrain_data import Crop, Pictures, dense_targets


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of one pretraining; written beside the checkpoint."""

    dense_steps: int = 2600
    caption_steps: int = 1100
    batch_size: int = 32
    patches_kept: float = 0.5
    dense_lr: float = 1e-3
    caption_lr: float = 8e-4
    dense_weight: float = 0.5
    weight_decay: float = 0.05
    warmup_steps: int = 150
    first_weight: float = 0.4
    """Share of each batch drawn from the first frames folder; the others share the rest by their size."""
    seed: int = 0


class DenseHead(nn.Module):
    """Reads patch features during pretraining and is thrown away after: kart, ego flag, centre, and the track."""

    def __init__(self, width: int):
        super().__init__()
        self.patch = nn.Linear(width, len(KARTS) + 1 + 2 + 2)
        self.track = nn.Linear(width, len(TRACKS))

    def loss(self, features: torch.Tensor, targets: dict[str, torch.Tensor], index: torch.Tensor) -> dict:
        """features: (B, P, D) of the patches `index` (B, P); targets over all GRID*GRID patches."""
        patch = self.patch(features).float()
        kart, offset, flags = patch.split([len(KARTS) + 1, 2, 2], -1)
        label = targets["kart"].gather(1, index)
        weight = torch.ones(len(KARTS) + 1)
        weight[0] = 0.2
        losses = {"kart": F.cross_entropy(kart.flatten(0, 1), label.flatten(), weight, ignore_index=IGNORE)}
        covered = label > 0
        if covered.any():
            true_offset = targets["offset"].gather(1, index[..., None].expand(-1, -1, 2))
            true_flags = targets["flags"].gather(1, index[..., None].expand(-1, -1, 2))
            losses["offset"] = F.smooth_l1_loss(offset[covered], true_offset[covered])
            losses["flags"] = F.binary_cross_entropy_with_logits(flags[covered], true_flags[covered])
            with torch.no_grad():
                losses["accuracy"] = (kart[covered].argmax(-1) == label[covered]).float().mean()
        losses["track"] = F.cross_entropy(self.track(features.float().mean(1)), targets["track"])
        return losses


class Captions:
    """Turns scenes into packed captions: the image prefix and each sentence as an answer that sees only the image."""

    def __init__(self, processor):
        self.tokenizer = processor.tokenizer
        image = processor.image_token
        fake, tag = processor.fake_image_token, processor.global_image_tag
        prefix = f"<|im_start|>User:{fake}{tag}{image * processor.image_seq_len}{fake}"
        self.prefix = self.tokenizer.encode(prefix, add_special_tokens=False)
        self.lead = self.tokenizer.encode("<end_of_utterance>\nAssistant:", add_special_tokens=False)

    def __call__(self, scenes: Sequence[Scene]) -> dict[str, torch.Tensor]:
        examples = []
        for scene in scenes:
            sentences = [f" {sentence}<end_of_utterance>" for sentence in caption(scene)]
            ids = self.tokenizer(sentences, add_special_tokens=False)["input_ids"]
            examples.append(pack(self.prefix, [Segment((*self.lead, *i), len(i)) for i in ids]))
        return collate(examples, self.tokenizer.pad_token_id)


class Pretraining:
    """Model, head, optimiser and position in the schedule; can be saved and restored."""

    def __init__(self, config: PretrainConfig):
        self.config = config
        torch.manual_seed(config.seed)
        self.processor = build_processor()
        self.model = build_model(self.processor)
        self.head = DenseHead(self.model.config.vision_config.hidden_size)
        self.captions = Captions(self.processor)
        self.step = 0
        self.seconds = 0.0
        parameters = [*self.model.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
                {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
            ],
            betas=(0.9, 0.98),
            fused=True,
        )

    @property
    def total(self) -> int:
        return self.config.dense_steps + self.config.caption_steps

    def learning_rate(self) -> float:
        """Warm-up at the start of each stage; constant then cosine over the stage."""
        c, step = self.config, self.step
        dense = step < c.dense_steps
        begin, length = (0, c.dense_steps) if dense else (c.dense_steps, c.caption_steps)
        done = (step - begin) / max(1, length)
        floor = 0.3 if dense else 0.02
        shape = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))
        return (c.dense_lr if dense else c.caption_lr) * shape * min(1, (step - begin + 1) / c.warmup_steps)

    def train_step(self, pictures: Pictures) -> dict[str, float]:
        c = self.config
        pixels, scenes = pictures.draw(c.seed, self.step, c.batch_size)
        dense = self.step < c.dense_steps
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        torch.manual_seed(c.seed * 1_000_003 + self.step)
        losses = self.losses(pixels * 2 - 1, scenes, c.patches_kept if dense else 1.0, captions=not dense)
        parts = [losses[name] for name in ("kart", "offset", "flags", "track") if name in losses]
        loss = sum(parts) if dense else losses["caption"] + c.dense_weight * sum(parts)
        loss.backward()
        nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        return {name: float(value.detach()) for name, value in losses.items()}

    def losses(self, pixels: torch.Tensor, scenes: Sequence[Scene], kept: float, captions: bool) -> dict:
        rows = [dense_targets(scene) for scene in scenes]
        targets = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
        vision = self.model.model.vision_model
        with torch.autocast("cpu", dtype=torch.bfloat16):
            index = torch.rand(len(scenes), GRID * GRID).argsort(1)[:, : int(kept * GRID * GRID)]
            if kept == 1.0:
                index = torch.arange(GRID * GRID).expand(len(scenes), -1)
            every = torch.ones(len(scenes), GRID, GRID, dtype=torch.bool)
            hidden = vision.embeddings(pixel_values=pixels, patch_attention_mask=every)
            hidden = hidden.gather(1, index[..., None].expand(-1, -1, hidden.shape[-1]))
            hidden = vision.post_layernorm(vision.encoder(inputs_embeds=hidden).last_hidden_state)
            losses = self.head.loss(hidden, targets, index)
            if captions:
                losses["caption"] = self.caption_loss(hidden, scenes)
        return losses

    def caption_loss(self, hidden: torch.Tensor, scenes: Sequence[Scene]) -> torch.Tensor:
        batch = self.captions(scenes)
        labels = batch.pop("labels")
        core = self.model.model
        embeds = core.get_input_embeddings()(batch["input_ids"])
        embeds = core.inputs_merger(batch["input_ids"], embeds, core.connector(hidden).flatten(0, 1))
        out = core.text_model(
            inputs_embeds=embeds,
            attention_mask=batch["attention_mask"],
            position_ids=batch["position_ids"],
            use_cache=False,
        )
        logits = self.model.lm_head(out.last_hidden_state[:, batch["logits_to_keep"]])
        return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE)

    def state_path(self, folder: Path) -> Path:
        return folder / "checkpoint.safetensors"

    def save(self, folder: Path) -> None:
        """Whole or not at all: model, head and optimiser moments, with the position in the file's metadata."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items() if k != "lm_head.weight"}
        tensors |= {f"head.{k}": v for k, v in self.head.state_dict().items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": value for name, value in state.items()}
        meta = {"step": str(self.step), "seconds": str(self.seconds), "config": json.dumps(asdict(self.config))}
        folder.mkdir(parents=True, exist_ok=True)
        part = self.state_path(folder).with_suffix(".part")
        save_file({k: v.contiguous() for k, v in tensors.items()}, part, metadata=meta)
        part.replace(self.state_path(folder))

    def restore(self, folder: Path) -> None:
        from safetensors import safe_open

        with safe_open(self.state_path(folder), "pt") as file:
            meta = file.metadata()
            if json.loads(meta["config"]) != asdict(self.config):
                raise SystemExit(f"{folder}: the checkpoint was made with other settings; use another --work folder")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        parts: dict[str, dict] = {"model": {}, "head": {}, "optimizer": {}}
        for key, value in tensors.items():
            part, _, name = key.partition(".")
            parts[part][name] = value
        self.model.load_state_dict(parts["model"], strict=False)
        self.model.tie_weights()
        self.head.load_state_dict(parts["head"])
        state: dict[int, dict] = {}
        for key, value in parts["optimizer"].items():
            i, _, name = key.partition(".")
            state.setdefault(int(i), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.step, self.seconds = int(meta["step"]), float(meta["seconds"])

    @torch.no_grad()
    def evaluate(self, pictures: Pictures, size: int = 64) -> dict[str, float]:
        """Mean losses and patch accuracy on unaltered pictures of the valid races."""
        sums: dict[str, float] = {}
        captions = self.step > self.config.dense_steps
        count = 0
        for start in range(0, len(pictures), size):
            indices = range(start, min(start + size, len(pictures)))
            pixels, scenes = pictures.batch(list(indices), [Crop()] * len(indices))
            for name, value in self.losses(pixels * 2 - 1, scenes, 1.0, captions).items():
                sums[name] = sums.get(name, 0) + float(value) * len(indices)
            count += len(indices)
        return {name: value / count for name, value in sums.items()}

    def export(self, folder: Path) -> None:
        """Model (fp16 safetensors), tokenizer, processor and chat template in the Hugging Face layout."""
        self.processor.save_pretrained(folder)
        half = build_model(self.processor)
        half.load_state_dict(self.model.state_dict())
        half.half().save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the embedded base from scratch; resumes if interrupted.")
    parser.add_argument(
        "--frames", nargs="+", default=["frames"], help="data folders with train/ (and valid/ in the first)"
    )
    parser.add_argument("--out", type=Path, default=Path("models/embedded"), help="where the finished model goes")
    parser.add_argument("--work", type=Path, default=Path("outputs/pretrain"), help="checkpoint and log")
    for name, value in asdict(PretrainConfig()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    args = parser.parse_args()
    config = PretrainConfig(**{name: getattr(args, name) for name in asdict(PretrainConfig())})
    set_up_torch()
    training = Pretraining(config)
    if training.state_path(args.work).exists():
        training.restore(args.work)
    pictures = Pictures(args.frames, config.first_weight)
    valid = Pictures(args.frames[:1], 1.0, "valid")
    print(f"{len(pictures)} train pictures, step {training.step} of {training.total}", flush=True)
    args.work.mkdir(parents=True, exist_ok=True)
    begin, before = time.monotonic(), training.seconds
    sums: dict[str, list[float]] = {}
    while training.step < training.total:
        for name, value in training.train_step(pictures).items():
            sums.setdefault(name, []).append(value)
        training.seconds = before + time.monotonic() - begin
        last = training.step == training.total
        if training.step % 50 == 0 or last:
            means = {name: round(float(np.mean(values)), 3) for name, values in sums.items()}
            sums.clear()
            if training.step % 400 == 0 or last:
                means["valid"] = {k: round(v, 3) for k, v in training.evaluate(valid).items()}
            if training.step % 100 == 0 or last:
                training.save(args.work)
            line = {"step": training.step, "minutes": round(training.seconds / 60, 1), **means}
            print(json.dumps(line), flush=True)
            with (args.work / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
    training.export(args.out)


if __name__ == "__main__":
    main()
