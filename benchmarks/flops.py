"""What a training computes against what the machine could: FLOPs counted by torch, and the peak of matrix products."""

import math
import time
from collections.abc import Callable
from typing import Any

import bitsandbytes  # noqa: F401 - registers the operators that are counted below
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from stkvlm_lib.device import pick_device
from stkvlm_lib.vlm.answering import AnswerModel


def timed(call: Callable[[], Any], *, cpu: bool = False) -> tuple[Any, float]:
    """What a call returns and the seconds that it took, the GPU's work included. cpu: the seconds that this process
    computed, which others on the machine do not lengthen."""
    clock = time.process_time if cpu else time.perf_counter
    begin = clock()
    value = call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return value, clock() - begin


def _forward_flops(query, key, value, *args, out_shape=None, **kwargs) -> int:
    return sdpa_flop_count(query, key, value)


def _backward_flops(grad_out, query, key, value, *args, out_shape=None, **kwargs) -> int:
    return sdpa_backward_flop_count(grad_out, query, key, value)


def _four_bit_flops(left, weights, shape, *args, out_shape=None, **kwargs) -> int:
    return 2 * math.prod(left) * shape[0]


UNKNOWN_TO_TORCH = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _forward_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward_flops,
    torch.ops.bitsandbytes.gemm_4bit: _four_bit_flops,
}
"""Operators that torch's counter would take for free: attention on a CPU, products with 4-bit weights (N, K)."""


def counted_flops(answerer: AnswerModel, call: Callable[[], Any]) -> int:
    """FLOPs of a call, padding and masked attention included, what the answerer encodes meanwhile left out."""
    encode, encoded = answerer.encode, 0
    with FlopCounterMode(display=False, custom_mapping=UNKNOWN_TO_TORCH) as counter:

        def counted(images):
            nonlocal encoded
            before = counter.get_total_flops()
            tokens = encode(images)
            encoded += counter.get_total_flops() - before
            return tokens

        answerer.encode = counted
        try:
            call()
        finally:
            answerer.encode = encode
    return counter.get_total_flops() - encoded


def matmul_peak(dtype: torch.dtype, *, cpu: bool = False) -> float:
    """FLOPs a second of the fastest of some large products in what training computes in. cpu: as in timed."""
    device = pick_device()
    size = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / min(timed(lambda: left @ right, cpu=cpu)[1] for _ in range(6))
