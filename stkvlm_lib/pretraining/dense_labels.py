"""What the vision tower learns of a picture, patch by patch and as a whole, and the heads that read it off.

The labels follow from the boxes of a scene: which kart covers a patch, where its edges are, whether it is the ego kart
and on which side of the ego kart it is; and of the whole picture the track, the ego kart, the counts and who is in
view. The heads are thrown away after training; what they needed stays in the features.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from stkvlm_lib.grammar.questions import KARTS, TRACKS
from stkvlm_lib.grammar.scene import IMAGE_SIZE, Scene, depth, side
from stkvlm_lib.pretraining.embedded import GRID

MOST = 10
"""The largest count that is told apart; more are counted as this many."""
COUNTS = ("total", "left", "right", "front", "back")
FLAGS = ("ego", "centre", "right", "front")
"""Of a patch: it shows the ego kart; it holds a kart's centre; its kart is right of, in front of the ego kart."""
GLOBAL_WEIGHT = 0.25
"""Weight of the whole picture's losses beside those of the patches."""
EDGE_ERROR = 0.125
"""Errors of edges under this many patches (a pixel of the input) weigh less the smaller they are."""
_BACKGROUND_WEIGHT = 0.2

Targets = dict[str, torch.Tensor]


def dense_targets(scene: Scene) -> dict[str, np.ndarray]:
    """Labels of one scene, P = GRID * GRID patches in rows.

    kart: (P,) 0 background, else 1 + index in KARTS. edges: (P, 4) float, from the patch's middle to the kart's left,
    top, right and lower edge, in patches. flags: (P, 4) float, see FLAGS; relations of the ego kart itself are NaN.
    track, ego (0 none, else 1 + index): (). counts: (5,) see COUNTS. present: (KARTS,) float.
    """
    kart = np.zeros((GRID, GRID), np.int64)
    edges = np.zeros((GRID, GRID, 4), np.float32)
    flags = np.zeros((GRID, GRID, len(FLAGS)), np.float32)
    scale = np.array([GRID / IMAGE_SIZE[0], GRID / IMAGE_SIZE[1]] * 2)
    middle = np.arange(GRID) + 0.5
    middles = np.stack(np.broadcast_arrays(middle, middle[:, None]) * 2, -1)  # (row, column, x y x y)
    for item in sorted(scene.karts, key=lambda k: k.box[3]):  # nearer karts reach lower in the picture: paint them last
        box = np.array(item.box) * scale
        column, row = (min(GRID - 1, int(c * s)) for c, s in zip(item.centre, scale, strict=False))
        inside = np.outer((middle >= box[1]) & (middle <= box[3]), (middle >= box[0]) & (middle <= box[2]))
        inside[row, column] = True
        kart[inside] = KARTS.index(item.name) + 1
        edges[inside] = (box - middles)[inside]
        relations = (np.nan, np.nan)
        if item is not scene.ego:
            relations = side(item, scene.ego) == "right", depth(item, scene.ego) == "front"
        flags[inside] = (item is scene.ego, 0, *relations)
        flags[row, column, 1] = 1
    present = np.zeros(len(KARTS), np.float32)
    present[[KARTS.index(item.name) for item in scene.karts]] = 1
    return {
        "kart": kart.reshape(-1),
        "edges": edges.reshape(-1, 4),
        "flags": flags.reshape(-1, len(FLAGS)),
        "track": np.int64(TRACKS.index(scene.track)),
        "ego": np.int64(KARTS.index(scene.ego.name) + 1 if scene.ego else 0),
        "counts": np.minimum(_counts(scene), MOST),
        "present": present,
    }


def _counts(scene: Scene) -> np.ndarray:
    sides = [side(kart, scene.ego) for kart in scene.others] if scene.ego else []
    depths = [depth(kart, scene.ego) for kart in scene.others] if scene.ego else []
    told = [len(scene.karts), *map(sides.count, COUNTS[1:3]), *map(depths.count, COUNTS[3:])]
    return np.array(told, np.int64)


def batch_targets(scenes: Sequence[Scene]) -> Targets:
    """`dense_targets` of all scenes, stacked."""
    rows = [dense_targets(scene) for scene in scenes]
    return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}


class DenseHeads(nn.Module):
    """Linear heads on patch features and on their mean. width: of the features."""

    def __init__(self, width: int):
        super().__init__()
        self.patch = nn.Linear(width, len(KARTS) + 1 + 4 + len(FLAGS))
        self.whole = nn.Linear(width, len(TRACKS) + len(KARTS) + 1 + len(COUNTS) * (MOST + 1) + len(KARTS))

    def forward(self, features: torch.Tensor, targets: Targets, index: torch.Tensor) -> tuple[torch.Tensor, dict]:
        """Loss, and its parts and accuracies (NaN where the pictures give no occasion).

        features: (B, K, D) of the patches `index` (B, K); targets: of all patches.
        """
        parts, seen = self._patch_losses(features, targets, index)
        whole, seen_whole = self._whole_losses(features, targets)
        loss = sum(parts.values()) + GLOBAL_WEIGHT * sum(whole.values())
        return loss, {name: value.detach() for name, value in (parts | whole | seen | seen_whole).items()}

    def _patch_losses(self, features: torch.Tensor, targets: Targets, index: torch.Tensor) -> tuple[dict, dict]:
        kart, edges, flags = self.patch(features).float().split([len(KARTS) + 1, 4, len(FLAGS)], -1)
        label = targets["kart"].gather(1, index)
        covered = label > 0

        def true(name: str) -> torch.Tensor:
            values = targets[name]
            return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))

        weight = torch.ones(len(KARTS) + 1, device=features.device)
        weight[0] = _BACKGROUND_WEIGHT
        off = F.smooth_l1_loss(edges, true("edges"), reduction="none", beta=EDGE_ERROR)
        truth = true("flags")
        told = covered[..., None] & ~truth.isnan()
        truth = truth.nan_to_num()
        doubt = F.binary_cross_entropy_with_logits(flags, truth, reduction="none")
        losses = {
            "kart": F.cross_entropy(kart.flatten(0, 1), label.flatten(), weight),
            "edges": _loss_where(covered, off.mean(-1)),
            "flags": _loss_where(told, doubt),
        }
        right = (flags > 0) == (truth > 0)
        seen = {"kart_right": _share_where(covered, kart.argmax(-1) == label)}
        return losses, seen | {
            f"{name}_right": _share_where(told[..., n], right[..., n]) for n, name in enumerate(FLAGS)
        }

    def _whole_losses(self, features: torch.Tensor, targets: Targets) -> tuple[dict, dict]:
        sizes = [len(TRACKS), len(KARTS) + 1, len(COUNTS) * (MOST + 1), len(KARTS)]
        track, ego, counts, present = self.whole(features.float().mean(1)).split(sizes, -1)
        counts = counts.unflatten(-1, (len(COUNTS), MOST + 1))
        losses = {
            "track": F.cross_entropy(track, targets["track"]),
            "ego": F.cross_entropy(ego, targets["ego"]),
            "counts": F.cross_entropy(counts.flatten(0, 1), targets["counts"].flatten()),
            "present": F.binary_cross_entropy_with_logits(present, targets["present"]) * 4,
        }
        seen = {"ego_named": (ego.argmax(-1) == targets["ego"]).float().mean()}
        right = (counts.argmax(-1) == targets["counts"]).float().mean(0)
        return losses, seen | {f"count_{name}": value for name, value in zip(COUNTS, right, strict=True)}


def _loss_where(mask: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
    """The mean where the mask is set, 0 where it nowhere is."""
    return (losses * mask).sum() / mask.sum().clamp(min=1)


def _share_where(mask: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The share that is right where the mask is set, NaN where it nowhere is."""
    return (right & mask).sum() / mask.sum()
