"""Stage two: connector and text model learn to answer prompts, from what the trained vision tower sees.

A picture and all its tasks are one sequence, in the chat format of the processor, as fine-tuning and answering use it.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from stkvlm_lib.grammar.questions import COURSE_FAMILIES
from stkvlm_lib.grammar.scene import STRICT_RULES
from stkvlm_lib.pretraining.pictures import Batch
from stkvlm_lib.pretraining.prompts import Task, draw_tasks
from stkvlm_lib.pretraining.training import Values, hidden_matrices
from stkvlm_lib.pretraining.vision_stage import encode
from stkvlm_lib.vlm.base_vlm import Prompt
from stkvlm_lib.vlm.packing import IGNORE, collate, pack, padded

MOST_TASKS = 20
"""Tasks about a picture in one sequence."""


class LanguageStage:
    """Trains the connector and the text model of `model`; its vision tower stays as it is."""

    def __init__(self, model: nn.Module, processor):
        self.model = model
        core = model.model
        self.prompt = Prompt(processor)
        self.trained = nn.ModuleDict({"connector": core.connector, "text": core.text_model})
        self.hidden = hidden_matrices(core.connector) + hidden_matrices(core.text_model.layers)

    def loss(self, batch: Batch, share: float) -> tuple[torch.Tensor, Values]:
        tasks = self._tasks(batch)
        with torch.no_grad():
            features = encode(self.model.model.vision_model, batch.pixels)
        examples = [pack(self.prompt.prefix, [self.prompt.segment(t.prompt, t.answer) for t in row]) for row in tasks]
        inputs = collate(examples, self.prompt.tokenizer.pad_token_id)
        labels = inputs.pop("labels")
        logits = self._logits(features, inputs)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
        segments = padded([e.segment_ids for e in examples], 0)[:, inputs["logits_to_keep"] + 1]
        return loss, right_answers(tasks, logits.argmax(-1), labels, segments)

    def _tasks(self, batch: Batch) -> list[list[Task]]:
        seeds = torch.randint(1 << 62, (len(batch.views),)).tolist()
        scenes = zip(batch.scenes(), batch.scenes(STRICT_RULES), seeds, strict=True)
        return [draw_tasks(scene, strict, MOST_TASKS, seed) for scene, strict, seed in scenes]

    def _logits(self, features: torch.Tensor, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        core = self.model.model
        embeds = core.get_input_embeddings()(inputs["input_ids"])
        embeds = core.inputs_merger(inputs["input_ids"], embeds, core.connector(features).flatten(0, 1))
        out = core.text_model(
            inputs_embeds=embeds,
            attention_mask=inputs["attention_mask"],
            position_ids=inputs["position_ids"],
            use_cache=False,
        )
        return self.model.lm_head(out.last_hidden_state[:, inputs["logits_to_keep"]]).float()

    def summary(self, values: Values) -> Values:
        """Loss, the course's families, and the mean of all others."""
        others = [value for name, value in values.items() if name not in (*COURSE_FAMILIES, "loss")]
        kept = {name: value for name, value in values.items() if name in (*COURSE_FAMILIES, "loss")}
        return kept | ({"others": sum(others) / len(others)} if others else {})


def right_answers(
    tasks: Sequence[Sequence[Task]], said: torch.Tensor, labels: torch.Tensor, segments: torch.Tensor
) -> Values:
    """Share of the answers of each task that are right to the last token, each token told the true ones before it.

    said, labels, segments: (B, K) the likeliest token, the true one (IGNORE: none), and the number of the segment.
    """
    wrong = (said != labels) & (labels != IGNORE)
    found: dict[str, list[bool]] = {}
    for row, (picture, numbers) in enumerate(zip(tasks, segments, strict=True)):
        failed = set(numbers[wrong[row]].tolist())
        for number, task in enumerate(picture, start=1):
            found.setdefault(task.name, []).append(number not in failed)
    return {name: sum(right) / len(right) for name, right in found.items()}
