"""Answering questions about pictures: written out freely, or by the likelihood of given candidates.

Each picture is encoded once; its questions share that.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from PIL import Image
from torch import nn
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPooling

from stkvlm_lib.device import pick_device
from stkvlm_lib.grammar.questions import OTHER, is_of_course, read_question
from stkvlm_lib.grammar.wordings import TASK_OF, read_task
from stkvlm_lib.model_files import ModelError, Temperatures
from stkvlm_lib.vlm.answers import Answer
from stkvlm_lib.vlm.base_vlm import Base, Prompt
from stkvlm_lib.vlm.packing import Options, PackedOptions, collate_options, pack_options

MAX_ANSWER_TOKENS = 16
MAX_OPTION_TOKENS = 1024
"""The most tokens of questions and candidates in one sequence behind a picture (a single question may take more)."""
MAX_BATCH_TOKENS = 2048
"""The most tokens read at once when candidates are weighed, padding included."""
MAX_ANSWER_BATCH_TOKENS = 4096
"""The most tokens of questions read at once, padding included (a single question may take more)."""
CPU_PICTURES_AT_ONCE = 4
"""Pictures that a CPU encodes together: more of them fall out of its caches and take a fifth longer each."""

WithCandidates = tuple[str, Sequence[str]]
"""A question with the candidates that could answer it."""


@dataclass(frozen=True)
class Candidate:
    """A given answer and the log-probability of its tokens with the stop token."""

    text: str
    log_probability: float


class AnswerModel:
    """A base, with or without an adapter, that answers questions about pictures; each picture is encoded once."""

    def __init__(
        self, base: Base, model: nn.Module, processor, temperatures: Temperatures | None = None, image_side: int = 0
    ):
        """image_side: of the square that pictures are brought to, where it is not the base's own."""
        self.base = base
        self.model = model
        self.processor = processor
        self.prompt = Prompt(processor)
        self.device = pick_device()
        self.temperatures, self.image_side = temperatures or Temperatures(), image_side

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in, and image tokens are kept in."""
        return self.core.lm_head.weight.dtype

    def answer(self, image: Image.Image, question: str) -> Answer:
        """Answer one question about one picture of any size."""
        return self.answer_encoded(self.encode([image]), [[question]])[0][0]

    @torch.inference_mode()
    def encode(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Pictures -> image tokens (B, tokens, D) in the text model's space; the adapter has a part in them only where
        `adapter_sees`."""
        at_once = CPU_PICTURES_AT_ONCE if self.device.type == "cpu" else max(1, len(images))
        parts = []
        with self._evaluating():
            for start in range(0, len(images), at_once):
                pixels = self.pixels(images[start : start + at_once])
                inputs = {name: tensor.to(self.device) for name, tensor in pixels.items()}
                parts += self.core.get_image_features(**inputs).pooler_output
        return torch.stack(parts)

    def pixels(self, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        """Pictures as the vision tower takes them: pixel_values (B, 1, 3, side, side) and which of them are picture."""
        inputs = self.processor.image_processor(images=[[image] for image in images], return_tensors="pt")
        return {name: inputs[name] for name in ("pixel_values", "pixel_attention_mask")}

    @property
    def adapter_sees(self) -> bool:
        """Whether the adapter changes vision tower or connector, so that image tokens depend on it."""
        seeing = (self.core.model.vision_model, self.core.model.connector)
        return any(isinstance(module, LoraLayer) for part in seeing for module in part.modules())

    @torch.inference_mode()
    def answer_encoded(self, features: torch.Tensor, questions: Sequence[Sequence[str]]) -> list[list[Answer]]:
        """Greedy answers. features: (B, tokens, D); questions: B lists -> B lists of answers. Raises ModelError where
        the model computes NaN.

        The image prefix runs once a picture; its key-value cache is then shared by the picture's questions, each of
        which is answered once. Questions of like length are answered together, padded on the left between prefix and
        question.
        """
        asked = list(dict.fromkeys((i, question) for i, group in enumerate(questions) for question in group))
        rows = [self.prompt.question(question) for _, question in asked]
        course = torch.tensor([is_of_course(question) for _, question in asked], device=self.device)
        given: dict[tuple[int, str], Answer] = {}
        with self._evaluating():
            prefixes = self._read_prefixes(features) if asked else None
            for batch in _batches(list(map(len, rows)), MAX_ANSWER_BATCH_TOKENS):
                owners = torch.tensor([asked[i][0] for i in batch], device=self.device)
                cache = self._cache((layer.keys[owners], layer.values[owners]) for layer in prefixes.layers)
                written = self._generate(cache, [rows[i] for i in batch], course[batch])
                given.update((asked[i], answer) for i, answer in zip(batch, written, strict=True))
        return [[given[i, question] for question in group] for i, group in enumerate(questions)]

    def understood(self, features: torch.Tensor, question: str) -> tuple[str, tuple[str, ...]] | None:
        """(family id, names of the karts asked about): as the grammar reads the question, or as the model does where
        it is put in other words; None where it is taken for no question of the game. features: (1, tokens, D)."""
        family, _, names = read_question(question)
        if family != OTHER:
            return family, names
        return read_task(self.answer_encoded(features, [[f"{TASK_OF} {question}"]])[0][0].text)

    def rank(self, image: Image.Image, question: str, candidates: Sequence[str]) -> list[Answer]:
        """The candidates as answers, the likeliest first; what they miss of 1 together is all other answers."""
        return ranked(self.likelihoods(self.encode([image]), [[(question, candidates)]])[0][0])

    def likelihoods(
        self, features: torch.Tensor, asked: Sequence[Sequence[WithCandidates]]
    ) -> list[list[list[Candidate]]]:
        """How likely the model would write each candidate. features: (B, tokens, D); asked: B lists -> B lists of
        candidates in their order."""
        course, other = self.temperatures.course, self.temperatures.other
        found = iter(self.log_probabilities(features, asked, torch.tensor([other, course])))
        return [
            [
                [Candidate(text, next(found)[column].item()) for text in texts]
                for question, texts in group
                for column in [int(is_of_course(question))]
            ]
            for group in asked
        ]

    @torch.inference_mode()
    def log_probabilities(
        self, features: torch.Tensor, asked: Sequence[Sequence[WithCandidates]], temperatures: torch.Tensor
    ) -> list[torch.Tensor]:
        """The same at each of the temperatures: (temperatures,) for every candidate, all in their order in one list.

        All questions of a picture with all their candidates share one sequence, cut where it grows too long.
        """
        parts = [(i, part) for i, group in enumerate(asked) for part in _cut([self.prompt.options(*a) for a in group])]
        rows = [pack_options(self.prompt.prefix, part) for _, part in parts]
        found: list[list[torch.Tensor]] = [[] for _ in rows]
        with self._evaluating():
            for batch in _batches([len(row.input_ids) for row in rows], MAX_BATCH_TOKENS):
                owners = [parts[i][0] for i in batch]
                states = self._hidden_states(features[owners], [rows[i] for i in batch])
                for i, places in zip(batch, states, strict=True):  # singly: a large vocabulary, many logits
                    found[i] = self._of_answers(places, rows[i], temperatures)
        return [value for group in found for value in group]

    def _hidden_states(self, features: torch.Tensor, rows: Sequence[PackedOptions]) -> torch.Tensor:
        """(rows, longest, D) of the text model. features: (rows, tokens, D)."""
        batch = collate_options(rows, self.prompt.tokenizer.pad_token_id)
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        return self.core.model(**batch, mm_encoder_outputs=image_outputs(features), use_cache=False).last_hidden_state

    def _of_answers(self, states: torch.Tensor, row: PackedOptions, temperatures: torch.Tensor) -> list[torch.Tensor]:
        """(temperatures,) log-probabilities of each answer of one sequence, whose hidden states are (places, D)."""
        places = torch.tensor([place for group in row.predictors for place in group], device=self.device)
        targets = torch.tensor([token for group in row.targets for token in group], device=self.device)
        logits = self.core.lm_head(states[places]).float()
        begun = [
            (answer[:n], course)
            for answer, course in zip(row.targets, row.course, strict=True)
            for n in range(len(answer))
        ]
        for place, (tokens, course) in enumerate(begun):
            if course and (barred := self.prompt.barred(tokens)):  # as in `_generate`
                logits[place, barred] = -torch.inf
        scaled = [(logits / t).log_softmax(-1).gather(1, targets[:, None]) for t in temperatures.tolist()]
        return [part.sum(0) for part in torch.cat(scaled, 1).cpu().split(list(map(len, row.targets)))]

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

    def _read_prefixes(self, features: torch.Tensor) -> DynamicCache:
        """Keys and values of the prompt up to the end of each picture. features: (B, tokens, D)."""
        ids = torch.tensor([self.prompt.prefix] * len(features), device=self.device)
        cache = self._cache()
        self.core.model(
            input_ids=ids, mm_encoder_outputs=image_outputs(features), past_key_values=cache, use_cache=True
        )
        return cache

    def _cache(self, layers: Iterable[tuple[torch.Tensor, torch.Tensor]] = ()) -> DynamicCache:
        """Of the text model, with these keys and values (rows, heads, tokens, D) in its layers."""
        cache = DynamicCache(config=self.core.config.text_config)
        for number, (keys, values) in enumerate(layers):
            cache.update(keys, values, number)
        return cache

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows padded on the left to the longest: ids and positions (N, longest), mask (N, prefix + longest)."""
        prefix, longest = len(self.prompt.prefix), max(map(len, rows))
        pads = torch.tensor([longest - len(row) for row in rows], device=self.device)[:, None]
        pad_id = self.prompt.tokenizer.pad_token_id
        ids = torch.tensor([[pad_id] * (longest - len(row)) + list(row) for row in rows], device=self.device)
        places = torch.arange(longest, device=self.device) - pads
        mask = torch.cat([torch.ones(len(rows), prefix, device=self.device), (places >= 0).float()], 1).long()
        return ids, prefix + places.clamp(min=0), mask

    def _generate(self, cache: DynamicCache, rows: Sequence[Sequence[int]], course: torch.Tensor) -> list[Answer]:
        """Greedy decoding of all rows together, each until it has stopped or MAX_ANSWER_TOKENS are written.

        cache: of the prefix, a row for each of `rows`; rows that have stopped are taken out of it. course: (N,) bool,
        the rows in a wording of the course's, which are never answered as in NEVER_OF_COURSE.
        """
        ids, positions, mask = self._padded(rows)
        written = torch.full((len(rows), MAX_ANSWER_TOKENS), self.prompt.stop_id, device=self.device)
        log_probability = torch.zeros(len(rows), device=self.device)
        running = torch.arange(len(rows), device=self.device)
        temperatures = torch.tensor([self.temperatures.other, self.temperatures.course], device=self.device)
        for step in range(MAX_ANSWER_TOKENS):
            out = self.core.model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
            )
            logits = self.core.lm_head(out.last_hidden_state[:, -1]).float()
            if step < self.prompt.longest_never:
                for row in course.nonzero()[:, 0].tolist():
                    logits[row, self.prompt.barred(written[running[row], :step].tolist())] = -torch.inf
            best, token = (logits / temperatures[course.long(), None]).log_softmax(-1).max(-1)
            log_probability[running] += best
            written[running, step] = token
            going = (token != self.prompt.stop_id).nonzero()[:, 0]
            if not len(going):
                break
            if len(going) < len(running):
                cache.batch_select_indices(going)
                rows_left = (running, token, positions, mask, course)
                running, token, positions, mask, course = (tensor[going] for tensor in rows_left)
            ids, positions = token[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        texts = self.prompt.tokenizer.batch_decode(written.tolist(), skip_special_tokens=True)
        confidences = log_probability.exp().tolist()
        if not all(map(math.isfinite, confidences)):
            raise ModelError(f"base {self.base.name}: its answers are no numbers (NaN); restore its weights or adapter")
        return [Answer(text.strip(), sure) for text, sure in zip(texts, confidences, strict=True)]


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


def _batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Indices of sequences of like length together, at most so many tokens with their padding."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if batch and lengths[index] * (len(batch) + 1) > most:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
