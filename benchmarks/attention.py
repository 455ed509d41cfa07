"""torch's fused attention against two plain matrix products, in each floating point that a CPU trains in.

    python benchmarks/attention.py [--rounds N]

Of a vision layer of the embedded base over four pictures (576 patches, 4 heads of 64), forward; and of a text layer
over a training step's four packed pictures (350 tokens, each question seeing the picture and itself), forward and
backward. Both sides take turns; shown is the fastest of all rounds, in ms that this process computes, and fused over
plain. `vlm/attention.py` chooses by it.
"""

import argparse
from collections.abc import Callable

import torch
from flops import timed
from torch import nn

from stkvlm_lib import markdown
from stkvlm_lib.runs import set_up_torch
from stkvlm_lib.vlm.attention import plain_attention
from stkvlm_lib.vlm.packing import segment_mask

PICTURES, HEADS, WIDTH = 4, 4, 64
PATCHES, TOKENS, PREFIX, QUESTION = 576, 350, 64, 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    set_up_torch()
    segments = torch.cat([torch.zeros(PREFIX), 1 + torch.arange(TOKENS - PREFIX) // QUESTION]).long()
    mask = segment_mask(segments.expand(PICTURES, -1))
    parts = {"vision, forward": (PATCHES, None, False), "text, forward and backward": (TOKENS, mask, True)}
    rows = [
        {"": part, "computes in": str(dtype).removeprefix("torch."), **compared(rounds, dtype, *given)}
        for part, given in parts.items()
        for dtype in (torch.float32, torch.bfloat16)
    ]
    print(markdown.table(rows, right=True))


def compared(rounds: int, dtype: torch.dtype, tokens: int, mask: torch.Tensor | None, learns: bool) -> dict[str, str]:
    shape = PICTURES, HEADS, tokens, WIDTH
    query, key, value = (torch.randn(shape).to(dtype).requires_grad_(learns) for _ in range(3))
    module, scale = nn.Identity().eval(), WIDTH**-0.5
    sides: dict[str, Callable[[], torch.Tensor]] = {
        "fused": lambda: nn.functional.scaled_dot_product_attention(query, key, value, mask, scale=scale),
        "plain": lambda: plain_attention(module, query, key, value, mask, scale)[0],
    }

    def once(side: Callable[[], torch.Tensor]) -> None:
        out = side()
        if learns:
            out.backward(torch.ones_like(out))

    best = dict.fromkeys(sides, float("inf"))
    for _ in range(rounds + 1):  # the first warms up, and is never the fastest
        for name, side in sides.items():
            best[name] = min(best[name], timed(lambda side=side: once(side), cpu=True)[1])
    told = {f"{name}, ms": f"{1000 * seconds:.1f}" for name, seconds in best.items()}
    return {**told, "ratio": f"{best['fused'] / best['plain']:.2f}"}


if __name__ == "__main__":
    main()
