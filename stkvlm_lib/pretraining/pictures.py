"""The pictures that pretraining sees, all in memory: mirrored, cropped and recoloured, their boxes moved along."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
    """Pictures as drawn, B of them. indices: (B,) which; seed: of all that is drawn about them besides; crops: how cut,
    and colours: (B, 4), see `recolour`, None as they are; encoded pictures were cut and coloured before."""

    indices: np.ndarray
    seed: int
    crops: Sequence[Crop] = ()
    colours: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.indices)


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
        load = Parallel(n_jobs=-1, prefer="threads")
        self.pixels = torch.from_numpy(np.stack(load(delayed(_square)(view) for view in self.views)))

    def __len__(self) -> int:
        return len(self.views)

    def to(self, device: torch.device) -> "Pictures":
        """Keep the pixels on a device, where `show` then works."""
        self.pixels = self.pixels.to(device)
        return self

    @property
    def device(self) -> torch.device:
        return self.pixels.device

    def draw(self, seed: int, step: int, size: int) -> Batch:
        """The batch of a step: the same for the same seed and step."""
        rng = np.random.default_rng((seed, step))
        indices = rng.choice(len(self), size, p=self.chances)
        crops = [draw_crop(rng) for _ in indices]
        colours = draw_colours(rng, size)
        return Batch(indices, int(rng.integers(1 << 62)), crops, colours)

    def in_order(self, size: int) -> Iterator[Batch]:
        """All pictures unaltered, in batches."""
        for start in range(0, len(self), size):
            indices = np.arange(start, min(start + size, len(self)))
            yield Batch(indices, start, [Crop()] * len(indices))

    def scenes(self, batch: Batch, rules: RuleSet = COURSE_RULES) -> list[Scene]:
        """What the pictures of a batch show, in their order."""
        return [self.scene(batch, i, rules) for i in range(len(batch))]

    def scene(self, batch: Batch, i: int, rules: RuleSet = COURSE_RULES) -> Scene:
        """What one picture of a batch shows."""
        return read_scene(self.views[batch.indices[i]], batch.crops[i], rules)

    def show(self, batch: Batch) -> torch.Tensor:
        """(B, 3, INPUT_SIZE, INPUT_SIZE) float in 0..1, on the device of the pictures."""
        device = self.pixels.device
        pixels = self.pixels[torch.from_numpy(batch.indices).to(device)].permute(0, 3, 1, 2).float() / 255
        grid = F.affine_grid(_windows(batch.crops).to(device), list(pixels.shape), align_corners=False)
        pixels = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
        if batch.colours is None:
            return pixels
        generator = torch.Generator(device).manual_seed(batch.seed)
        return recolour(pixels, torch.from_numpy(batch.colours).to(device), generator)


def _windows(crops: Sequence[Crop]) -> torch.Tensor:
    """Crops as affine maps (B, 2, 3), from places in the new picture to places in the old."""
    maps = torch.zeros(len(crops), 2, 3)
    for i, crop in enumerate(crops):
        maps[i, 0, 0] = maps[i, 1, 1] = crop.size
        maps[i, :, 2] = torch.tensor([2 * crop.x + crop.size - 1, 2 * crop.y + crop.size - 1])
        if crop.mirrored:  # the box is mirrored first, then cropped
            maps[i, 0] *= -1
    return maps


def _square(view: View) -> np.ndarray:
    """(INPUT_SIZE, INPUT_SIZE, 3) uint8, stretched as the processor stretches it."""
    return np.array(view.image().resize((INPUT_SIZE, INPUT_SIZE), Image.BILINEAR))


def draw_colours(rng: np.random.Generator, size: int) -> np.ndarray:
    """(size, 4) float: factors of saturation, contrast and brightness, and the strength of noise, none on three of
    four; hues stay, they tell karts apart."""
    saturation, contrast, brightness = rng.uniform(0.7, 1.3, size), *rng.uniform(0.75, 1.25, (2, size))
    noise = rng.uniform(0, 0.04, size) * (rng.random(size) < 0.25)
    return np.stack([saturation, contrast, brightness, noise], 1).astype(np.float32)


def recolour(pixels: torch.Tensor, colours: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Pictures (B, 3, H, W) in 0..1 with `draw_colours` (B, 4) applied; the noise comes from the generator."""
    saturation, contrast, brightness, strength = colours.T[..., None, None, None]
    grey = pixels.mean(1, keepdim=True)
    pixels = grey + (pixels - grey) * saturation
    mean = pixels.mean((1, 2, 3), keepdim=True)
    pixels = (mean + (pixels - mean) * contrast) * brightness
    noise = torch.randn(pixels.shape, generator=generator, device=pixels.device)
    return (pixels + noise * strength).clamp(0, 1)
