"""What a step of training reads: packed pictures, drawn into the same batches on any number of processes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch.utils.data import Dataset

from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.qa.drawn import TrainingPicture
from stkvlm_lib.vlm.answering import AnswerModel, image_outputs
from stkvlm_lib.vlm.base_vlm import Prompt
from stkvlm_lib.vlm.packing import IGNORE, PackedExample, pack
from stkvlm_lib.vlm.row_packing import collate_rows, pairs

IDLE = -1
"""Stands for a picture of which nothing is learnt: where a batch has fewer pictures than there are processes."""
Item = tuple[PackedExample, torch.Tensor | Image.Image]


def pack_picture(prompt: Prompt, item: TrainingPicture) -> PackedExample:
    """A training picture and its questions as one sequence."""
    pairs = zip(item.questions, item.answers, strict=True)
    return pack(prompt.prefix, [prompt.segment(question, answer) for question, answer in pairs])


def packed_tokens(answerer: AnswerModel, item: TrainingPicture) -> tuple[list[str], list[bool], list[int]]:
    """One packed example for display: its tokens, whether each takes part in the loss, and its segment number."""
    packed = pack_picture(answerer.prompt, item)
    tokens = answerer.prompt.tokenizer.convert_ids_to_tokens(packed.input_ids)
    return tokens, [label != IGNORE for label in packed.labels], packed.segment_ids


class PackedPictures(Dataset):
    """One item a training picture: its packed questions, and its image tokens, or itself where there are none.

    Nothing is kept: an item is read and packed when it is asked for.
    """

    def __init__(
        self,
        prompt: Prompt,
        pictures: Sequence[TrainingPicture],
        frames: FrameSet,
        tokens: Sequence[torch.Tensor] | None,
    ):
        self.prompt, self.pictures, self.frames, self.tokens = prompt, pictures, frames, tokens

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Item:
        if index == IDLE:
            packed, seen = self[0]
            return replace(packed, labels=[IGNORE] * len(packed.labels)), seen
        picture = self.pictures[index]
        packed = pack_picture(self.prompt, picture)
        if self.tokens is not None:
            return packed, self.tokens[index]
        return packed, self.frames.by_image_file[picture.image_file].image(picture.mirrored)


@dataclass(frozen=True)
class Collator:
    """Packed pictures -> what the model's forward takes, with image tokens or with pictures for the vision tower."""

    answerer: AnswerModel

    def __call__(self, items: Sequence[Item]) -> dict:
        rows = pairs([len(packed.input_ids) for packed, _ in items])
        packed = [[items[i][0] for i in row] for row in rows]
        seen = [items[i][1] for row in rows for i in row]
        batch = collate_rows(packed, self.answerer.prompt.tokenizer.pad_token_id)
        if isinstance(seen[0], Image.Image):
            return batch | self.answerer.pixels(seen)
        return {**batch, "mm_encoder_outputs": image_outputs(torch.stack(seen))}


class Shares:
    """This process's part of each batch, as indices. Seed and epoch draw the order; `process` of `processes` takes
    every one in turn, so that all processes together read the same pictures in a step as one alone."""

    def __init__(self, pictures: int, batch_size: int, seed: int, process: int = 0, processes: int = 1):
        self.pictures, self.batch_size, self.seed = pictures, batch_size, seed
        self.process, self.processes = process, processes
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.pictures // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(self.pictures, generator=torch.Generator().manual_seed(self.seed + self.epoch))
        for batch in order.split(self.batch_size):
            yield batch[self.process :: self.processes].tolist() or [IDLE]
