"""Stage three: the text model learns to read. The tower is frozen, its image tokens are computed once.

A word's embedding is a vector that says what it means in English, projected by a matrix that all words share, and an
own part that only training moves. So words that training never meets stay beside those that they resemble.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from stkvlm_lib.grammar.scene import STRICT_RULES
from stkvlm_lib.pretraining.image_tokens import Drawn, EncodedPictures
from stkvlm_lib.pretraining.language_stage import pack_tasks, right_answers, shown_values
from stkvlm_lib.pretraining.prompts import draw_worded
from stkvlm_lib.pretraining.training import Labels, Values
from stkvlm_lib.pretraining.vision_stage import encode
from stkvlm_lib.vlm.base_vlm import Prompt
from stkvlm_lib.vlm.packing import IGNORE

AT_ONCE = 4
"""Pictures that the tower encodes together: on a CPU more at once only move more memory."""


class WordEmbedding(nn.Module):
    """Token ids -> embeddings. vectors: (V, M) what each token means, zeros for one that has no meaning of its own;
    projection: (M, D) where meanings start; table: (V, D) the embeddings to start from, NaN for a token that starts
    where its meaning puts it."""

    def __init__(self, vectors: torch.Tensor, projection: torch.Tensor, table: torch.Tensor):
        super().__init__()
        self.register_buffer("vectors", vectors, persistent=False)
        self.projection = nn.Parameter(projection.clone())
        own = table - vectors @ projection
        self.own = nn.Parameter(torch.where(own.isnan(), 0.0, own))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.vectors[ids] @ self.projection + F.embedding(ids, self.own)

    def table(self) -> torch.Tensor:
        """(V, D) all embeddings."""
        return self.vectors @ self.projection + self.own


class WordStage:
    """Trains the text model, the embeddings and the head of `model`, an Idefics3 that sees already."""

    def __init__(self, model: nn.Module, processor, words: WordEmbedding):
        text = model.model.text_model
        self.model, self.words = model, words
        self.prompt = Prompt(processor)
        parts = {"words": words, "layers": text.layers, "norm": text.norm, "head": model.lm_head}
        self.trained = nn.ModuleDict(parts)
        self.hidden: list[
            nn.Parameter
        ] = []  # AdamW for all: Muon computes in bfloat16, a hundred times slower on old CPUs

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels (B, 3, INPUT_SIZE, INPUT_SIZE) in 0..1 -> image tokens (B, tokens, D)."""
        core = self.model.model
        return torch.cat([core.connector(encode(core.vision_model, part)) for part in pixels.split(AT_ONCE)])

    def labels(self, pictures: EncodedPictures, drawn: Drawn) -> Labels:
        """What `pack_tasks` gives."""
        scenes, strict = pictures.scenes(drawn), pictures.scenes(drawn, STRICT_RULES)
        seeds = np.random.default_rng(drawn.seed).integers(1 << 62, size=len(drawn)).tolist()
        tasks = [draw_worded(*row) for row in zip(scenes, strict, seeds, strict=True)]
        return pack_tasks(tasks, self.prompt, self.prompt.segment)

    def loss(self, tokens: torch.Tensor, labels: Labels, share: float) -> tuple[torch.Tensor, Values]:
        """tokens: (B, tokens, D) of the pictures."""
        core = self.model.model
        embeds = self.words(labels["input_ids"])
        out = core.text_model(
            inputs_embeds=core.inputs_merger(labels["input_ids"], embeds, tokens.flatten(0, 1).to(embeds.dtype)),
            attention_mask=labels["attention_mask"],
            position_ids=labels["position_ids"],
            use_cache=False,
        )
        written = labels["labels"] != IGNORE
        logits = self.model.lm_head(out.last_hidden_state[:, labels["logits_to_keep"]][written]).float()
        answers = F.cross_entropy(logits, labels["labels"][written])
        said = torch.zeros_like(labels["labels"])
        said[written] = logits.argmax(-1)
        right = right_answers(said, labels["labels"], labels["segments"], labels["tasks"])
        return answers, right | {"answers": answers.detach()}

    def summary(self, values: Values) -> Values:
        return shown_values(values, ("loss", "answers"))

    def finish(self) -> None:
        """Put the learnt embeddings into the model."""
        with torch.no_grad():
            self.model.get_input_embeddings().weight.copy_(self.words.table())
