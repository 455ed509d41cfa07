"""The pictures that pretraining sees, all in memory: mirrored, cropped and recoloured, their boxes moved along."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from joblib import Parallel, delayed
from PIL import Image

from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.data.frames import BOX_FRAME, View
from stkvlm_lib.grammar.scene import COURSE_RULES, Box, RuleSet, Scene, mirror_box, read_scene
from stkvlm_lib.pretraining.embedded import INPUT_SIZE

TIGHTEST, WIDEST = 0.5, 1.7
"""Sides of windows in those of the picture. Karts are up to twice as large, as those of the course's frames are beside
the game's, or as small as the farthest, which are hard to tell; what a wide window shows beyond the picture repeats its
border."""


@dataclass(frozen=True)
class Crop:
    """A window in shares of the picture's width and height, mirrored or not; maps 600x400 boxes into it."""

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
    """A third of the windows is the picture, a third a part of it, and a third reaches beyond it."""
    mirrored, kind = bool(rng.random() < 0.5), rng.integers(3)
    if kind == 0:
        return Crop(mirrored=mirrored)
    size = float(rng.uniform(TIGHTEST, 1.0) if kind == 1 else rng.uniform(1.0, WIDEST))
    x, y = rng.uniform(min(0, 1 - size), max(0, 1 - size), 2)
    return Crop(float(x), float(y), size, mirrored)


@dataclass(frozen=True)
class Batch:
    """Pictures as drawn. pixels: (B, 3, INPUT_SIZE, INPUT_SIZE) float in 0..1; read: scenes by a set of rules."""

    pixels: torch.Tensor
    views: Sequence[View]
    crops: Sequence[Crop]

    def scenes(self, rules: RuleSet = COURSE_RULES) -> list[Scene]:
        """What the crops show, in the order of the pictures."""
        return [read_scene(view, crop, rules) for view, crop in zip(self.views, self.crops, strict=True)]


class Pictures:
    """All pictures of a split that show a countable kart, with their views; draws augmented batches.

    Each folder has its share of a batch; inside it, views with more karts come a little more often.
    """

    def __init__(self, folders: Sequence[str], shares: Sequence[float] | None = None, split: str = "train"):
        shares = shares or [1.0] * len(folders)
        if len(shares) != len(folders):
            raise ValueError(f"{len(shares)} shares for {len(folders)} folders of frames; give one each")
        self.views: list[View] = []
        chances = []
        for folder, share in zip(folders, shares, strict=True):
            karts = [(view, len(read_scene(view).karts)) for view in read_frames(folder).views(split)]
            karts = [(view, n) for view, n in karts if n]
            if not karts:
                raise ValueError(f"{folder}: no picture of the split {split} shows a kart")
            self.views += [view for view, _ in karts]
            weights = np.sqrt([n for _, n in karts])
            chances.append(weights / weights.sum() * share)
        self.chances = np.concatenate(chances) / sum(shares)
        load = Parallel(n_jobs=2, prefer="threads")
        self.pixels = torch.from_numpy(np.stack(load(delayed(_square)(view) for view in self.views)))

    def __len__(self) -> int:
        return len(self.views)

    def batch(self, indices: Sequence[int], crops: Sequence[Crop]) -> Batch:
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
        return Batch(pixels, [self.views[i] for i in indices], crops)

    def draw(self, seed: int, step: int, size: int) -> Batch:
        """The batch of a step: the same for the same seed and step."""
        rng = np.random.default_rng((seed, step))
        indices = rng.choice(len(self), size, p=self.chances)
        batch = self.batch(indices, [draw_crop(rng) for _ in indices])
        return Batch(recolour(batch.pixels, rng), batch.views, batch.crops)

    def in_order(self, size: int) -> "list[Callable[[], Batch]]":
        """All pictures unaltered, in batches that are made when called."""
        starts = range(0, len(self), size)
        return [partial(self._plain, range(s, min(s + size, len(self)))) for s in starts]

    def _plain(self, indices: range) -> Batch:
        return self.batch(list(indices), [Crop()] * len(indices))


def _square(view: View) -> np.ndarray:
    """(INPUT_SIZE, INPUT_SIZE, 3) uint8, stretched as the processor stretches it."""
    return np.array(view.image().resize((INPUT_SIZE, INPUT_SIZE), Image.BILINEAR))


def recolour(pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Random brightness, contrast and saturation of each picture, and noise on one in four; hues stay, they tell karts
    apart."""

    def factor(low: float, high: float) -> torch.Tensor:
        return torch.from_numpy(rng.uniform(low, high, (len(pixels), 1, 1, 1))).float()

    grey = pixels.mean(1, keepdim=True)
    pixels = grey + (pixels - grey) * factor(0.7, 1.3)
    mean = pixels.mean((1, 2, 3), keepdim=True)
    pixels = (mean + (pixels - mean) * factor(0.75, 1.25)) * factor(0.75, 1.25)
    for i in np.flatnonzero(rng.random(len(pixels)) < 0.25):
        noise = rng.standard_normal(pixels[i].shape, dtype=np.float32) * rng.uniform(0, 0.04)
        pixels[i] += torch.from_numpy(noise.astype(np.float32))
    return pixels.clamp(0, 1)
