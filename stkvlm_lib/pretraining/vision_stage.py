"""Stage one: the vision tower alone learns the dense labels from a part of each picture.

The part is made of whole blocks of patches: those that karts touch and random others up to a fixed number. That costs
about a third of whole pictures and shows the karts as they are; stage two sees whole pictures.
"""

import torch
from torch import nn

from stkvlm_lib.pretraining.dense_labels import DenseHeads, batch_targets
from stkvlm_lib.pretraining.embedded import GRID
from stkvlm_lib.pretraining.pictures import Batch, Pictures
from stkvlm_lib.pretraining.training import Labels, Values, hidden_matrices

BLOCK = 6
"""Side of a block in patches."""
BLOCKS_SEEN = 6
"""Blocks of a picture that are looked at, of (GRID / BLOCK)^2."""


class VisionStage:
    """Trains `vision`, an Idefics3 vision tower, with heads of its own."""

    def __init__(self, vision: nn.Module):
        self.vision = vision
        self.heads = DenseHeads(vision.config.hidden_size)
        self.trained = nn.ModuleDict({"vision": vision, "heads": self.heads})
        self.hidden = hidden_matrices(vision.encoder)

    def labels(self, pictures: Pictures, batch: Batch) -> Labels:
        return batch_targets(pictures.scenes(batch))

    def loss(self, pixels: torch.Tensor, labels: Labels, share: float) -> tuple[torch.Tensor, Values]:
        index = some_blocks(labels["kart"] > 0)
        return self.heads(encode(self.vision, pixels, index), labels, index)

    def summary(self, values: Values) -> Values:
        return values


def some_blocks(covered: torch.Tensor, blocks: int = BLOCKS_SEEN) -> torch.Tensor:
    """Patches of `blocks` blocks of each picture, first those that karts touch, then any, drawn from torch's generator.

    covered: (B, GRID * GRID) bool -> (B, blocks * BLOCK**2) int.
    """
    side = GRID // BLOCK
    patches = torch.arange(GRID * GRID, device=covered.device).view(side, BLOCK, side, BLOCK)
    patches = patches.transpose(1, 2).reshape(side**2, BLOCK**2)
    touched = covered[:, patches].any(-1)  # (B, blocks in all)
    chosen = (torch.rand(touched.shape, device=covered.device) + touched).topk(blocks, dim=1).indices
    return patches[chosen].flatten(1)


def every_patch(pictures: int, device: torch.device) -> torch.Tensor:
    return torch.arange(GRID * GRID, device=device).expand(pictures, -1)


def encode(vision: nn.Module, pixels: torch.Tensor, index: torch.Tensor | None = None) -> torch.Tensor:
    """Features of patches, as the tower has them of a whole square picture, for which its own embedding loops over the
    batch. pixels: (B, 3, INPUT_SIZE, INPUT_SIZE) in 0..1; index: (B, K) the patches to look at, None for all
    -> (B, K, D)."""
    embeddings = vision.embeddings
    patches = embeddings.patch_embedding(pixels * 2 - 1).flatten(2).transpose(1, 2)
    hidden = patches + embeddings.position_embedding.weight
    if index is not None:
        hidden = hidden.gather(1, index[..., None].expand(-1, -1, hidden.shape[-1]))
    return vision.post_layernorm(vision.encoder(inputs_embeds=hidden).last_hidden_state)
