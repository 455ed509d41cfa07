"""What pretraining sees: pictures mirrored, cropped and recoloured, with dense labels from the moved boxes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.data.frames import BOX_FRAME, View
from stkvlm_lib.grammar.questions import KARTS, TRACKS
from stkvlm_lib.grammar.scene import IMAGE_SIZE, Box, Scene, mirror_box, read_scene
from stkvlm_lib.vlm.embedded import GRID, INPUT_SIZE


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
