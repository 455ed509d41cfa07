"""The examples of a training step laid into rows: two pictures a row, and what predicts an answer's tokens at its end.

Pictures with many questions share a row with those that have few, so that little is padding; a picture sees nothing of
its neighbour. Logits are computed for the end of the rows alone, where every place predicts a token of some answer.

    token       prefix q1 q1 prefix q2 | q1 a1 q2
    position    0      1  2  0      1  | 3  4  2
    segment     1      2  2  3      4  | 2  2  4
    parent      1      1  1  3      3  | 1  1  3
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from stkvlm_lib.vlm.packing import IGNORE, PackedExample, padded, segment_mask


class _Place(NamedTuple):
    """A token with its position, its segment, that segment's prefix, and the token that it predicts."""

    id: int
    position: int
    segment: int
    parent: int
    target: int


def collate_rows(rows: Sequence[Sequence[PackedExample]], pad_id: int) -> dict[str, torch.Tensor]:
    """What the model takes, see `packing.collate`; image tokens must come row by row, in each in the order of its
    examples. labels: (rows, K), IGNORE where a row predicts fewer than K tokens."""
    read, predicting = zip(*map(_laid_out, rows), strict=True)

    def filled(name: str, value: int) -> torch.Tensor:
        halves = [[[getattr(place, name) for place in row] for row in half] for half in (read, predicting)]
        return torch.cat([padded(lists, value) for lists in halves], 1)

    positions, segments = filled("position", 0), filled("segment", -1)
    labels = padded([[place.target for place in row] for row in predicting], IGNORE)
    length = segments.shape[1]
    return {
        "input_ids": filled("id", pad_id),
        "position_ids": positions,
        "attention_mask": segment_mask(segments, filled("parent", -1), positions),
        "logits_to_keep": torch.arange(length - labels.shape[1], length),
        "labels": labels,
    }


def _laid_out(examples: Sequence[PackedExample]) -> tuple[list[_Place], list[_Place]]:
    """The examples of a row as what is only read, and what predicts."""
    read: list[_Place] = []
    predicting: list[_Place] = []
    first = 1
    for example in examples:
        targets = [*example.labels[1:], IGNORE]
        places = zip(example.input_ids, example.position_ids, example.segment_ids, targets, strict=True)
        for token, position, segment, target in places:
            part = read if target == IGNORE else predicting
            part.append(_Place(token, position, first + segment, first, target))
        first += example.segment_ids[-1] + 1
    return read, predicting


def pairs(lengths: Sequence[int]) -> list[list[int]]:
    """Indices in twos, the longest with the shortest; with an odd number one stays alone."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    half = len(order) // 2
    together = [[order[-1 - i], order[i]] for i in range(half)]
    return together + ([[order[half]]] if len(order) % 2 else [])
