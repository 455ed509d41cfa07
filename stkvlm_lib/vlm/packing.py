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


@dataclass(frozen=True)
class Options:
    """Token ids of one question and of every answer that it could have. course: whether it is in the course's own
    wording."""

    question: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    course: bool = False

    def __len__(self) -> int:
        """Tokens in the sequence: an answer's last one is only predicted."""
        return len(self.question) + sum(len(answer) - 1 for answer in self.answers)


@dataclass(frozen=True)
class PackedOptions:
    """One image with questions and their possible answers, each answer a segment that sees its own question besides.

        token       prefix prefix | q1 q1 | a1 | b1 b1 | q2 | a2
        position    0      1      | 2  3  | 4  | 4  5  | 2  | 3
        segment     0      0      | 1  1  | 2  | 3  3  | 4  | 5
        parent      0      0      | 0  0  | 1  | 1  1  | 0  | 4

    The last token of an answer (its stop token) is predicted, but nothing follows it, so it is left out.

    targets: for each answer in order, its tokens; predictors: the places in the sequence whose logits predict them;
    course: of its question.
    """

    input_ids: list[int]
    position_ids: list[int]
    segment_ids: list[int]
    parent_ids: list[int]
    predictors: list[list[int]]
    targets: list[tuple[int, ...]]
    course: list[bool]


def pack_options(prefix: Sequence[int], asked: Sequence[Options]) -> PackedOptions:
    """Lay the prefix, each question and each of its answers out in one sequence."""
    ids, positions = list(prefix), list(range(len(prefix)))
    segments, parents, predictors = [0] * len(prefix), [0] * len(prefix), []

    def add(part: Sequence[int], begin: int, parent: int) -> int:
        number = segments[-1] + 1
        ids.extend(part)
        positions.extend(range(begin, begin + len(part)))
        segments.extend([number] * len(part))
        parents.extend([parent] * len(part))
        return number

    for options in asked:
        begin = len(prefix) + len(options.question)
        question = add(options.question, len(prefix), 0)
        last = len(ids) - 1
        for answer in options.answers:
            predictors.append([last, *range(len(ids), len(ids) + len(answer) - 1)])
            add(answer[:-1], begin, question)
    targets = [answer for options in asked for answer in options.answers]
    course = [options.course for options in asked for _ in options.answers]
    return PackedOptions(ids, positions, segments, parents, predictors, targets, course)


def segment_mask(
    segment_ids: torch.Tensor, parent_ids: torch.Tensor | None = None, position_ids: torch.Tensor | None = None
) -> torch.Tensor:
    """Who sees whom. segment_ids, parent_ids: (B, T) int, -1 for padding -> (B, 1, T, T) bool, True where row may see
    column: the prefix (segment 0), its own segment and its segment's parent, all of them up to itself: by place in the
    sequence, or by position where segments do not stand in one piece."""
    rows, columns = segment_ids[:, :, None], segment_ids[:, None, :]
    places = torch.arange(segment_ids.shape[1], device=segment_ids.device)[None]
    order = places if position_ids is None else position_ids
    causal = order[:, :, None] >= order[:, None, :]
    visible = (columns == 0) | (columns == rows)
    if parent_ids is not None:
        visible |= columns == parent_ids[:, :, None]
    return (causal & visible)[:, None]


def collate(examples: Sequence[PackedExample], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad to the longest and build what the model takes.

    -> input_ids, position_ids: (B, T); attention_mask: (B, 1, T, T) bool; logits_to_keep: (K,) positions whose logits
    are needed; labels: (B, K) the token each of these must predict, IGNORE where a row needs none there.
    """
    labels = padded([e.labels for e in examples], IGNORE)
    keep = (labels[:, 1:] != IGNORE).any(0).nonzero().squeeze(1)
    return {
        "input_ids": padded([e.input_ids for e in examples], pad_id),
        "position_ids": padded([e.position_ids for e in examples], 0),
        "attention_mask": segment_mask(padded([e.segment_ids for e in examples], -1)),
        "logits_to_keep": keep,
        "labels": labels[:, keep + 1],
    }


def collate_options(examples: Sequence[PackedOptions], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad to the longest and build what the text model takes: input_ids, position_ids (B, T) and the 4-D mask."""
    segments, parents = (padded([getattr(e, name) for e in examples], -1) for name in ("segment_ids", "parent_ids"))
    return {
        "input_ids": padded([e.input_ids for e in examples], pad_id),
        "position_ids": padded([e.position_ids for e in examples], 0),
        "attention_mask": segment_mask(segments, parents),
    }


def padded(rows: Sequence[list[int]], value: int) -> torch.Tensor:
    """Lists of different lengths -> (B, T) int, filled up with `value` on the right."""
    length = max(map(len, rows))
    return torch.tensor([row + [value] * (length - len(row)) for row in rows], dtype=torch.long)
