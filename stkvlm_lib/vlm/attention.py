"""How attention is computed: torch's fused kernel, or two plain matrix products where that is faster.

On a CPU in bf16 the fused kernel gains nothing over fp32, while a matrix product takes half the time: measured with
torch 2.13 on AVX512-BF16, a vision layer's attention 24 ms fused and 15 plain, that of a packed training step forward
and backward 32 and 17 (benchmarks/attention.py).
"""

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

FUSED, PLAIN = "sdpa", "stkvlm_plain"


def faster_attention(device: torch.device, dtype: torch.dtype) -> str:
    """The name by which Transformers knows the one that is faster."""
    return PLAIN if device.type == "cpu" and dtype is not torch.float32 else FUSED


def plain_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """query: (B, heads, T, D); key, value: (B, groups, S, D), each group for as many heads -> (B, T, heads, D).

    attention_mask: (B, 1, T, S) bool, True where a row may see a column, or what is added to the scores.
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (states.repeat_interleave(groups, dim=1) for states in (key, value))
    scores = (query * scaling) @ key.transpose(-1, -2)
    if attention_mask is not None:
        if attention_mask.dtype is torch.bool:
            hidden = torch.finfo(scores.dtype).min
            attention_mask = torch.zeros_like(attention_mask, dtype=scores.dtype).masked_fill_(~attention_mask, hidden)
        scores += attention_mask
    shares = nn.functional.dropout(scores.softmax(-1), dropout, module.training)
    return (shares @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register(PLAIN, plain_attention)
AttentionMaskInterface.register(PLAIN, eager_mask)
