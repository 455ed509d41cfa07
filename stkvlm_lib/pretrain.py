"""Train the embedded base from scratch: `python -m stkvlm_lib.pretrain --frames frames --out models/embedded`.

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
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from stkvlm_lib.embedded import GRID, INPUT_SIZE, build_model, build_processor, caption
from stkvlm_lib.frames import BOX_FRAME, View, read_frames
from stkvlm_lib.packing import IGNORE, Segment, collate, pack
from stkvlm_lib.questions import KARTS, TRACKS
from stkvlm_lib.runs import set_up_torch
from stkvlm_lib.scene import IMAGE_SIZE, Box, Scene, mirror_box, read_scene


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


@dataclass(frozen=True)
class Crop:
    """A window of the picture in shares of its width and height, mirrored or not; maps 600x400 boxes into it."""

    x: float = 0.0
    y: float = 0.0
    size: float = 1.0
    mirrored: bool = False

    def __call__(self, box: Box) -> Box:
        x1, y1, x2, y2 = mirror_box(box) if self.mirrored else box
        w, h = BOX_FRAME

        def move(value: float, start: float, full: int) -> int:
            return min(full - 1, max(0, round((value - start * full) / self.size)))

        return move(x1, self.x, w), move(y1, self.y, h), move(x2, self.x, w), move(y2, self.y, h)


def draw_crop(rng: np.random.Generator) -> Crop:
    mirrored = bool(rng.random() < 0.5)
    if rng.random() < 0.5:
        return Crop(mirrored=mirrored)
    size = float(rng.uniform(0.6, 1.0))
    x, y = rng.uniform(0, 1 - size, 2)
    return Crop(float(x), float(y), size, mirrored)


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


def dense_targets(scene: Scene) -> dict[str, np.ndarray]:
    """Per patch: kart (0 background, 1.. KARTS), offset of its centre in patches, flags (is ego, holds the centre)."""
    kart = np.zeros((GRID, GRID), np.int64)
    offset = np.zeros((GRID, GRID, 2), np.float32)
    flags = np.zeros((GRID, GRID, 2), np.float32)
    sx, sy = GRID / IMAGE_SIZE[0], GRID / IMAGE_SIZE[1]
    middle = np.arange(GRID) + 0.5
    for item in sorted(scene.karts, key=lambda k: k.box[3]):  # nearer karts reach lower in the picture: paint them last
        x1, y1, x2, y2 = item.box
        cx, cy = item.centre[0] * sx, item.centre[1] * sy
        column, row = min(GRID - 1, int(cx)), min(GRID - 1, int(cy))
        inside = np.outer(
            (middle >= y1 * sy) & (middle <= y2 * sy),
            (middle >= x1 * sx) & (middle <= x2 * sx),
        )
        inside[row, column] = True
        kart[inside] = KARTS.index(item.name) + 1
        offset[inside, 0] = (cx - np.broadcast_to(middle, (GRID, GRID)))[inside]
        offset[inside, 1] = (cy - np.broadcast_to(middle[:, None], (GRID, GRID)))[inside]
        flags[inside, 0] = item is scene.ego
        flags[inside, 1] = 0
        flags[row, column, 1] = 1
    return {
        "kart": kart.reshape(-1),
        "offset": offset.reshape(-1, 2),
        "flags": flags.reshape(-1, 2),
        "track": np.int64(TRACKS.index(scene.track)),
    }


class Pictures:
    """All train pictures in memory with their views; draws augmented batches."""

    def __init__(self, folders: Sequence[str], first_weight: float, split: str = "train"):
        self.views: list[View] = []
        weights: list[np.ndarray] = []
        sizes = []
        for folder in folders:
            views = [view for view in read_frames(folder).views(split) if read_scene(view).karts]
            self.views += views
            weights.append(np.sqrt([len(read_scene(view).karts) for view in views]))
            sizes.append(len(views))
        for i, w in enumerate(weights):
            if len(folders) > 1:
                share = first_weight if i == 0 else (1 - first_weight) * sizes[i] / sum(sizes[1:])
                weights[i] = w / w.sum() * share
        self.chances = np.concatenate(weights) / np.concatenate(weights).sum()
        square = (INPUT_SIZE, INPUT_SIZE)
        self.pixels = torch.stack(
            [torch.from_numpy(np.array(v.image().resize(square, Image.BILINEAR))) for v in self.views]
        )

    def __len__(self) -> int:
        return len(self.views)

    def batch(self, indices: Sequence[int], crops: Sequence[Crop]) -> tuple[torch.Tensor, list[Scene]]:
        """-> pixels (B, 3, INPUT_SIZE, INPUT_SIZE) in 0..1 and the scenes as seen in the crops."""
        pixels = self.pixels[torch.as_tensor(indices)].permute(0, 3, 1, 2).float() / 255
        theta = torch.zeros(len(crops), 2, 3)
        for i, crop in enumerate(crops):
            theta[i, 0, 0] = crop.size
            theta[i, 1, 1] = crop.size
            theta[i, 0, 2] = 2 * crop.x + crop.size - 1
            theta[i, 1, 2] = 2 * crop.y + crop.size - 1
            if crop.mirrored:  # the box is mirrored first, then cropped
                theta[i, 0] *= -1
        grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
        pixels = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return pixels, [read_scene(self.views[i], crop) for i, crop in zip(indices, crops, strict=True)]

    def draw(self, seed: int, step: int, size: int) -> tuple[torch.Tensor, list[Scene]]:
        rng = np.random.default_rng((seed, step))
        indices = rng.choice(len(self), size, p=self.chances)
        pixels, scenes = self.batch(indices, [draw_crop(rng) for _ in indices])
        return recolour(pixels, rng), scenes


def recolour(pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Random brightness, contrast, saturation and noise per picture; hues stay, they tell karts apart."""

    def factor(low: float, high: float) -> torch.Tensor:
        return torch.from_numpy(rng.uniform(low, high, (len(pixels), 1, 1, 1))).float()

    grey = pixels.mean(1, keepdim=True)
    pixels = grey + (pixels - grey) * factor(0.7, 1.3)
    mean = pixels.mean((1, 2, 3), keepdim=True)
    pixels = (mean + (pixels - mean) * factor(0.75, 1.25)) * factor(0.75, 1.25)
    noise = torch.from_numpy(rng.standard_normal(pixels.shape, dtype=np.float32)) * factor(0, 0.03)
    return (pixels + noise).clamp(0, 1)


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
