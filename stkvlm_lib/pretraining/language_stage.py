"""Stage two: the model learns to answer prompts about whole pictures, and its tower goes on with the dense labels.

A picture and all its tasks are one sequence, in the chat format of the processor, as fine-tuning and answering use it.
"""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from stkvlm_lib.grammar.questions import COURSE_FAMILIES
from stkvlm_lib.grammar.scene import STRICT_RULES
from stkvlm_lib.pretraining.dense_labels import DenseHeads, batch_targets
from stkvlm_lib.pretraining.pictures import Batch, Pictures
from stkvlm_lib.pretraining.prompts import TASKS, Task, draw_tasks
from stkvlm_lib.pretraining.training import Labels, Values, hidden_matrices
from stkvlm_lib.pretraining.vision_stage import encode, every_patch
from stkvlm_lib.vlm.base_vlm import Prompt
from stkvlm_lib.vlm.packing import IGNORE, Segment, collate, pack, padded

MOST_TASKS = 20
"""Tasks about a picture in one sequence."""
APART_UNTIL = 0.15
"""Until this share of the steps the tower does not feel the answers: a text model that knows nothing yet would only
disturb it."""


class LanguageStage:
    """Trains all of `model`, an Idefics3, whose tower has been through stage one with `heads`."""

    def __init__(self, model: nn.Module, processor, heads: DenseHeads):
        core = model.model
        self.model, self.heads = model, heads
        self.prompt = Prompt(processor)
        self._segment = cache(self.prompt.segment)
        parts = {"vision": core.vision_model, "heads": heads, "connector": core.connector, "text": core.text_model}
        self.trained = nn.ModuleDict(parts)
        self.hidden = hidden_matrices(core.vision_model.encoder, core.connector, core.text_model.layers)

    def labels(self, pictures: Pictures, batch: Batch) -> Labels:
        """Dense targets, and what `pack_tasks` gives."""
        scenes, strict = pictures.scenes(batch), pictures.scenes(batch, STRICT_RULES)
        seeds = np.random.default_rng(batch.seed).integers(1 << 62, size=len(batch)).tolist()
        tasks = [draw_tasks(*row, MOST_TASKS, seed) for *row, seed in zip(scenes, strict, seeds, strict=True)]
        return batch_targets(scenes) | pack_tasks(tasks, self.prompt, self._segment)

    def loss(self, pixels: torch.Tensor, labels: Labels, share: float) -> tuple[torch.Tensor, Values]:
        features = encode(self.model.model.vision_model, pixels)
        dense, seen = self.heads(features, labels, every_patch(len(pixels), pixels.device))
        core = self.model.model
        pictures = core.connector(features.detach() if share < APART_UNTIL else features)
        embeds = core.get_input_embeddings()(labels["input_ids"])
        logits = self.model.lm_head(kept_states(core, embeds, pictures, labels)).float()
        answers = F.cross_entropy(logits.flatten(0, 1), labels["labels"].flatten(), ignore_index=IGNORE)
        right = right_answers(logits.argmax(-1), labels["labels"], labels["segments"], labels["tasks"])
        dense_values = {f"dense_{name}": value for name, value in seen.items()}
        return dense + answers, right | dense_values | {"answers": answers.detach(), "dense": dense.detach()}

    def summary(self, values: Values) -> Values:
        return shown_values(values, ("loss", "answers", "dense", "dense_kart_right", "dense_edges"))


def kept_states(core: nn.Module, embeds: torch.Tensor, pictures: torch.Tensor, labels: Labels) -> torch.Tensor:
    """Hidden states (B, K, D) of the text model at the places whose logits are needed. core: an Idefics3Model; embeds:
    (B, T, D) of the tokens; pictures: (B, tokens, D) image tokens."""
    out = core.text_model(
        inputs_embeds=core.inputs_merger(labels["input_ids"], embeds, pictures.flatten(0, 1).to(embeds.dtype)),
        attention_mask=labels["attention_mask"],
        position_ids=labels["position_ids"],
        use_cache=False,
    )
    return out.last_hidden_state[:, labels["logits_to_keep"]]


def pack_tasks(tasks: Sequence[Sequence[Task]], prompt: Prompt, segment: Callable[[str, str], Segment]) -> Labels:
    """The tasks of each picture as one sequence. segment: prompt and answer of a task -> its tokens.

    -> `collate`'s inputs; segments: (B, K) numbers of the segments that `labels` belong to; tasks: (B, S) which of
    TASKS each segment is, -1 where there is none.
    """
    examples = [pack(prompt.prefix, [segment(task.prompt, task.answer) for task in row]) for row in tasks]
    inputs = collate(examples, prompt.tokenizer.pad_token_id)
    segments = padded([e.segment_ids for e in examples], 0)[:, inputs["logits_to_keep"] + 1]
    names = padded([[TASKS.index(task.name) for task in row] for row in tasks], -1)
    return inputs | {"segments": segments, "tasks": names}


def shown_values(values: Values, losses: Sequence[str]) -> Values:
    """The losses, the course's families, and the mean of all other tasks."""
    shown = (*COURSE_FAMILIES, *losses)
    others = [value for name, value in values.items() if name in TASKS and name not in shown]
    kept = {name: value for name, value in values.items() if name in shown}
    return kept | ({"others": sum(others) / len(others)} if others else {})


def right_answers(said: torch.Tensor, labels: torch.Tensor, segments: torch.Tensor, tasks: torch.Tensor) -> Values:
    """Share of the answers of each task that are right to the last token, each token told the true ones before it;
    NaN for a task that is not asked.

    said, labels, segments: (B, K) the likeliest token, the true one (IGNORE: none), and the number of the segment,
    from 1; tasks: (B, S) see `pack_tasks`.
    """
    wrong = ((said != labels) & (labels != IGNORE)).float()
    failed = torch.zeros(len(tasks), tasks.shape[1] + 1, device=tasks.device).scatter_add_(1, segments, wrong)
    right = failed[:, 1:] == 0
    return {name: (right & (tasks == n)).sum() / (tasks == n).sum() for n, name in enumerate(TASKS)}
