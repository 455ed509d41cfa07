"""The straightforward loop: what Transformers and PEFT give by themselves for questions about pictures.

One question a sequence, whose picture is processed and encoded each time: the Trainer to train, `generate` to answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

import torch
from flops import timed
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainingArguments

from stkvlm_lib.config import FinetuneConfig
from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.grammar.spelling import plain
from stkvlm_lib.qa.training_draw import TrainingPicture
from stkvlm_lib.vlm.answering import MAX_ANSWER_TOKENS, AnswerModel
from stkvlm_lib.vlm.finetune import build_trainable
from stkvlm_lib.vlm.packing import IGNORE

MICRO_BATCH = 8
"""About how many sequences the straightforward loop reads at once; an optimiser step gathers several of them."""


@dataclass
class Times:
    """Seconds of one side, summed over the rounds; losses: mean training loss of each round's first pass.

    cpu: whether they are those that this process computed, not those on the wall.
    """

    cpu: bool = False
    one_pass: float = 0.0
    two_passes: float = 0.0
    encoding: float = 0.0
    steps: float = 0.0
    answering: float = 0.0
    losses: list[float] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)


class Questions(Dataset):
    """One item a question: its picture, itself, its answer."""

    def __init__(self, frames: FrameSet, pictures: Sequence[TrainingPicture]):
        self.frames = frames
        self.items = [(p, q, a) for p in pictures for q, a in zip(p.questions, p.answers, strict=True)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Any, str, str]:
        picture, question, answer = self.items[index]
        return self.frames.by_image_file[picture.image_file].image(picture.mirrored), question, answer


class StraightCollator:
    """Pictures and texts through the processor, the loss on the answers and their stop tokens."""

    def __init__(self, processor):
        self.processor = processor
        processor.tokenizer.padding_side = "right"

    def __call__(self, items: Sequence[tuple[Any, str, str]]) -> dict[str, torch.Tensor]:
        answers = [f" {answer}<end_of_utterance>" for _, _, answer in items]
        texts = [chat(self.processor, item[1]) + answer for item, answer in zip(items, answers, strict=True)]
        batch = self.processor(text=texts, images=[[item[0]] for item in items], padding=True, return_tensors="pt")
        labels = torch.full_like(batch["input_ids"], IGNORE)
        for row, answer in enumerate(answers):
            end = int(batch["attention_mask"][row].sum())
            begin = end - len(self.processor.tokenizer.encode(answer, add_special_tokens=False))
            labels[row, begin:end] = batch["input_ids"][row, begin:end]
        return {**batch, "labels": labels}


def chat(processor, question: str) -> str:
    content = [{"type": "image"}, {"type": "text", "text": plain(question)}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


def train_straight(config: FinetuneConfig, frames: FrameSet, pictures: Sequence[TrainingPicture], times: Times) -> None:
    """One pass of the Trainer over the questions of the pictures, one a sequence."""
    answerer, data = build_trainable(config), Questions(frames, pictures)
    steps = -(-len(pictures) // config.batch_size)
    gathered = max(1, round(len(data) / steps / MICRO_BATCH))
    arguments = TrainingArguments(
        output_dir=str(config.run_path / "straight"),
        num_train_epochs=1,
        per_device_train_batch_size=-(-len(data) // (steps * gathered)),
        gradient_accumulation_steps=gathered,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        bf16=answerer.dtype is torch.bfloat16,
        fp16=answerer.dtype is torch.float16,
        use_cpu=answerer.device.type == "cpu",
        logging_steps=1,
        save_strategy="no",
        seed=config.seed,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to=[],
    )
    collator = StraightCollator(answerer.processor)
    trainer = Trainer(answerer.model, arguments, data_collator=collator, train_dataset=data)
    trainer.remove_callback(PrinterCallback)
    _, seconds = timed(trainer.train, cpu=times.cpu)
    times.one_pass += seconds
    times.steps += seconds
    times.losses.append(mean(row["loss"] for row in trainer.state.log_history if "loss" in row))


def answer_straight(answerer: AnswerModel, frames: FrameSet, asked: Sequence, times: Times) -> None:
    """Each question by itself through the processor and `generate`."""
    processor, model, written = answerer.processor, answerer.model, []

    def answer(image, question: str) -> str:
        inputs = processor(text=chat(processor, question), images=[image], return_tensors="pt").to(answerer.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(answerer.dtype)
        new = model.generate(
            **inputs,
            max_new_tokens=MAX_ANSWER_TOKENS,
            do_sample=False,
            use_cache=True,
            eos_token_id=answerer.prompt.stop_id,
            pad_token_id=processor.tokenizer.pad_token_id,
        )[0, inputs["input_ids"].shape[1] :]
        return processor.tokenizer.decode(new, skip_special_tokens=True).strip()

    def answer_all() -> None:
        for name, questions in asked:
            written.extend(answer(frames.by_image_file[name].image(), question) for question in questions)

    with torch.inference_mode():
        _, seconds = timed(answer_all, cpu=times.cpu)
    times.answering += seconds
    times.answers += written
