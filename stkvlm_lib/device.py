"""What a model computes on, and in which floating point."""

import os

import torch

from stkvlm_lib.config import AUTO, PRECISIONS, ConfigError

_DTYPES = dict(zip(PRECISIONS, (torch.float32, torch.bfloat16, torch.float16), strict=True))


def pick_device() -> torch.device:
    """The GPU, of several the one that a launcher gives this process (LOCAL_RANK), or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    rank = os.environ.get("LOCAL_RANK")
    return torch.device("cuda", int(rank)) if rank else torch.device("cuda")


def compute_dtype(device: torch.device, precision: str = AUTO) -> torch.dtype:
    """What PRECISION means on a device. `auto`: what STKVLM_PRECISION says, else bfloat16 where the device multiplies
    in it, float16 on older GPUs, float32 on other CPUs. Raises ConfigError for what the device cannot train in."""
    if precision == AUTO:
        precision = os.environ.get("STKVLM_PRECISION") or _fastest(device)
    if precision not in PRECISIONS:
        raise ConfigError(f"STKVLM_PRECISION={precision!r}: must be {', '.join(PRECISIONS)}, or not set")
    if precision == "fp16" and device.type == "cpu":
        raise ConfigError("PRECISION=fp16: only a GPU trains in it; use fp32, or bf16 where the CPU multiplies in it")
    return _DTYPES[precision]


def precision_of(dtype: torch.dtype) -> str:
    """The name of a floating point, as PRECISION has it."""
    return next(name for name, known in _DTYPES.items() if known is dtype)


def device_name() -> str:
    """The device, e.g. `NVIDIA H200, 140 GB` or `CPU, 2 threads`. What a model computes in there, PRECISION says."""
    device = pick_device()
    if device.type == "cpu":
        return f"CPU, {torch.get_num_threads()} threads"
    properties = torch.cuda.get_device_properties(device)
    return f"{properties.name}, {properties.total_memory / 1e9:.0f} GB"


def _fastest(device: torch.device) -> str:
    if device.type == "cpu":  # without such instructions bf16 is imitated, a hundred times slower
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return "bf16" if native else "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
