"""One image and all its questions as one sequence.

The image prefix stands once; each question (with its answer) is a segment that sees the prefix and itself and nothing
of the other segments, so that every segment reads as if it stood alone behind the image:

    token       prefix prefix prefix | q1 q1 a1 | q2 q2 q2 a2
    position    0      1      2      | 3  4  5  | 3  4  5  6
    segment     0      0      0      | 1  1  1  | 2  2  2  2
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

IGNORE = -100
"""The label of a position that takes no part in the loss."""


@dataclass(frozen=True)
class Segment:
    """Token ids of one question and its answer; the loss is taken on the last `n_answer` tokens.

    Raises ValueError where nothing stands before the answer: its first token would be predicted from another segment.
    """

    ids: tuple[int, ...]
    n_answer: int

    def __post_init__(self):
        if not 0 <= self.n_answer < len(self.ids):
            raise ValueError(f"a segment of {len(self.ids)} tokens cannot have an answer of {self.n_answer}")


@dataclass(frozen=True)
class PackedExample:
    """One image with its questions. All lists have length T: ids, positions, segment numbers, labels (unshifted)."""

    input_ids: list[int]
    position_ids: list[int]
    segment_ids: list[int]
    labels: list[int]


def pack(prefix: Sequence[int], segments: Sequence[Segment]) -> PackedExample:
    """Lay the prefix and the segments out in one sequence."""
    ids, labels = list(prefix), [IGNORE] * len(prefix)
    positions, numbers = list(range(len(prefix))), [0] * len(prefix)
    for number, segment in enumerate(segments, start=1):
        n = len(segment.ids)
        ids += segment.ids
        labels += [IGNORE] * (n - segment.n_answer) + list(segment.ids[n - segment.n_answer :])
        positions += range(len(prefix), len(prefix) + n)
        numbers += [number] * n
    return PackedExample(ids, positions, numbers, labels)


def segment_mask(segment_ids: torch.Tensor) -> torch.Tensor:
    """Who sees whom. segment_ids: (B, T) int, -1 for padding -> (B, 1, T, T) bool, True where row may see column."""
    rows, columns = segment_ids[:, :, None], segment_ids[:, None, :]
    order = torch.arange(segment_ids.shape[1], device=segment_ids.device)
    causal = order[:, None] >= order[None, :]
    visible = causal & ((columns == 0) | (columns == rows))
    return visible[:, None]


def collate(examples: Sequence[PackedExample], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad to the longest and build what the model takes.

    -> input_ids, position_ids: (B, T); attention_mask: (B, 1, T, T) bool; logits_to_keep: (K,) positions whose logits
    are needed; labels: (B, K) the token each of these must predict, IGNORE where a row needs none there.
    """
    length = max(len(example.input_ids) for example in examples)

    def padded(rows: list[list[int]], value: int) -> torch.Tensor:
        return torch.tensor([row + [value] * (length - len(row)) for row in rows])

    segments = padded([e.segment_ids for e in examples], -1)
    labels = padded([e.labels for e in examples], IGNORE)
    keep = (labels[:, 1:] != IGNORE).any(0).nonzero().squeeze(1)
    return {
        "input_ids": padded([e.input_ids for e in examples], pad_id),
        "position_ids": padded([e.position_ids for e in examples], 0),
        "attention_mask": segment_mask(segments),
        "logits_to_keep": keep,
        "labels": labels[:, keep + 1],
    }
