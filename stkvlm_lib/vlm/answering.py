"""Answering questions about pictures: written out freely, or by the likelihood of given candidates.

Each picture is encoded once; its questions share that.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import PeftModel
from PIL import Image
from torch import nn
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPooling

from stkvlm_lib.vlm.base_vlm import Base, Prompt, pick_device
from stkvlm_lib.vlm.packing import Options, PackedOptions, collate_options, pack_options

MAX_ANSWER_TOKENS = 16
MAX_OPTION_TOKENS = 1024
"""The most tokens of questions and candidates in one sequence behind a picture (a single question may take more)."""
MAX_BATCH_TOKENS = 2048
"""The most tokens read at once when candidates are weighed, padding included."""

WithCandidates = tuple[str, Sequence[str]]
"""A question with the candidates that could answer it."""


@dataclass(frozen=True)
class Answer:
    """A generated answer and the probability of its tokens together with the stop token."""

    text: str
    confidence: float


@dataclass(frozen=True)
class Candidate:
    """A given answer: log-probability of its tokens with the stop token, and how many these are."""

    text: str
    log_probability: float
    tokens: int


class AnswerModel:
    """A base, with or without an adapter, that answers questions about pictures; each picture is encoded once."""

    def __init__(self, base: Base, model: nn.Module, processor):
        self.base = base
        self.model = model
        self.processor = processor
        self.prompt = Prompt(processor)
        self.device = pick_device()

    def answer(self, image: Image.Image, question: str) -> Answer:
        """Answer one question about one picture of any size."""
        return self.answer_encoded(self.encode([image]), [[question]])[0][0]

    @torch.inference_mode()
    def encode(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Pictures -> image tokens (B, tokens, D) in the text model's space. The adapter has no part in them."""
        inputs = self.processor.image_processor(images=[[image] for image in images], return_tensors="pt")
        inputs = {name: inputs[name].to(self.device) for name in ("pixel_values", "pixel_attention_mask")}
        with self._evaluating():
            return torch.stack(self.core.get_image_features(**inputs).pooler_output)

    @torch.inference_mode()
    def answer_encoded(self, features: torch.Tensor, questions: Sequence[Sequence[str]]) -> list[list[Answer]]:
        """Greedy answers. features: (B, tokens, D); questions: B lists -> B lists of answers.

        The image prefix runs once a picture; its key-value cache is then shared by the picture's questions, which are
        padded on the left between prefix and question.
        """
        rows = [self.prompt.question(question) for group in questions for question in group]
        if not rows:
            return [[] for _ in questions]
        owner = torch.tensor([i for i, group in enumerate(questions) for _ in group], device=self.device)
        with self._evaluating():
            cache = self._read_prefix(features)
            cache.batch_select_indices(owner)
            tokens, confidence = self._generate(cache, rows)
        texts = self.prompt.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        answers = iter([Answer(t.strip(), c) for t, c in zip(texts, confidence, strict=True)])
        return [[next(answers) for _ in group] for group in questions]

    def rank(self, image: Image.Image, question: str, candidates: Sequence[str]) -> list[Answer]:
        """The candidates as answers, the likeliest first; what they miss of 1 together is all other answers."""
        return ranked(self.likelihoods(self.encode([image]), [[(question, candidates)]])[0][0])

    @torch.inference_mode()
    def likelihoods(
        self, features: torch.Tensor, asked: Sequence[Sequence[WithCandidates]]
    ) -> list[list[list[Candidate]]]:
        """How likely the model would write each candidate. features: (B, tokens, D); asked: B lists -> B lists of
        candidates in their order.

        All questions of a picture with all their candidates share one sequence, cut where it grows too long.
        """
        parts = [(i, part) for i, group in enumerate(asked) for part in _cut([self.prompt.options(*a) for a in group])]
        rows = [pack_options(self.prompt.prefix, part) for _, part in parts]
        found: list[list[tuple[float, int]]] = [[] for _ in rows]
        with self._evaluating():
            for batch in _batches([len(row.input_ids) for row in rows]):
                owners = [parts[i][0] for i in batch]
                values = self._log_probabilities(features[owners], [rows[i] for i in batch])
                for i, value in zip(batch, values, strict=True):
                    found[i] = value
        values = iter([value for group in found for value in group])
        return [[[Candidate(text, *next(values)) for text in texts] for _, texts in group] for group in asked]

    def _log_probabilities(
        self, features: torch.Tensor, rows: Sequence[PackedOptions]
    ) -> Iterator[list[tuple[float, int]]]:
        """(log-probability, tokens) of each answer of each sequence. features: (sequences, tokens, D)."""
        batch = collate_options(rows, self.prompt.tokenizer.pad_token_id)
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        out = self.core.model(**batch, mm_encoder_outputs=image_outputs(features), use_cache=False)
        for states, row in zip(out.last_hidden_state, rows, strict=True):  # singly: a large vocabulary, many logits
            sizes = [len(places) for places in row.predictors]
            places = torch.tensor([place for group in row.predictors for place in group], device=self.device)
            targets = torch.tensor([token for group in row.targets for token in group], device=self.device)
            logits = self.core.lm_head(states[places]).float().log_softmax(-1)
            chosen = logits.gather(1, targets[:, None])[:, 0].cpu().split(sizes)
            yield [(float(part.sum()), size) for part, size in zip(chosen, sizes, strict=True)]

    @property
    def core(self) -> nn.Module:
        """The Idefics3 model itself, under PEFT's wrapper if there is one."""
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """The base alone, for comparison."""
        if isinstance(self.model, PeftModel):
            with self.model.disable_adapter():
                yield
        else:
            yield

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(training)

    def _read_prefix(self, features: torch.Tensor) -> DynamicCache:
        ids = torch.tensor([self.prompt.prefix] * len(features), device=self.device)
        cache = DynamicCache(config=self.core.config.text_config)
        self.core.model(
            input_ids=ids, mm_encoder_outputs=image_outputs(features), past_key_values=cache, use_cache=True
        )
        return cache

    def _generate(self, cache: DynamicCache, rows: Sequence[Sequence[int]]) -> tuple[list[list[int]], list[float]]:
        """Greedy decoding of all rows together, until each has stopped or MAX_ANSWER_TOKENS are written."""
        prefix, longest = len(self.prompt.prefix), max(map(len, rows))
        pads = torch.tensor([longest - len(row) for row in rows], device=self.device)[:, None]
        pad_id = self.prompt.tokenizer.pad_token_id
        ids = torch.tensor([[pad_id] * (longest - len(row)) + list(row) for row in rows], device=self.device)
        places = torch.arange(longest, device=self.device) - pads
        positions = prefix + places.clamp(min=0)
        mask = torch.cat([torch.ones(len(rows), prefix, device=self.device), (places >= 0).float()], 1).long()
        written: list[torch.Tensor] = []
        running = torch.ones(len(rows), dtype=torch.bool, device=self.device)
        log_probability = torch.zeros(len(rows), device=self.device)
        for _ in range(MAX_ANSWER_TOKENS):
            out = self.core.model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
            )
            logits = self.core.lm_head(out.last_hidden_state[:, -1]).float()
            best, token = logits.log_softmax(-1).max(-1)
            log_probability += torch.where(running, best, 0.0)
            token = torch.where(running, token, self.prompt.stop_id)
            written.append(token)
            running = running & (token != self.prompt.stop_id)
            if not running.any():
                break
            ids, positions = token[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        return torch.stack(written, 1).tolist(), log_probability.exp().tolist()


def image_outputs(features: torch.Tensor) -> dict[str, BaseModelOutputWithPooling]:
    """Image tokens (B, tokens, D) in the form in which Idefics3 takes them instead of pictures."""
    return {"image": BaseModelOutputWithPooling(pooler_output=features)}


def ranked(candidates: Sequence[Candidate]) -> list[Answer]:
    """The likeliest first; equally likely ones keep their order."""
    best = sorted(candidates, key=lambda candidate: -candidate.log_probability)
    return [Answer(candidate.text, math.exp(candidate.log_probability)) for candidate in best]


def _cut(asked: Sequence[Options]) -> Iterator[list[Options]]:
    """Questions of one picture in groups of at most MAX_OPTION_TOKENS, in their order."""
    group: list[Options] = []
    for options in asked:
        if group and sum(map(len, group)) + len(options) > MAX_OPTION_TOKENS:
            yield group
            group = []
        group.append(options)
    if group:
        yield group


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of sequences of like length together, at most MAX_BATCH_TOKENS with their padding."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if batch and lengths[index] * (len(batch) + 1) > MAX_BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
