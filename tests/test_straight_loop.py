"""benchmarks/straight_loop.py: both sides do the same work, and FLOPs are counted whole."""

import argparse
import importlib.util
import sys

import pytest
import torch
from tiny import fresh, pictures

from stkvlm_lib.config import ROOT
from stkvlm_lib.vlm.packing import IGNORE


@pytest.fixture(scope="module")
def modules():
    """The benchmark and those beside it, as when it is started from its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        for name in ("flops", "large_base", "plain_loop", "straight_loop"):
            spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
            module = importlib.util.module_from_spec(spec)
            patch.setitem(sys.modules, name, module)
            spec.loader.exec_module(module)
        yield sys.modules["straight_loop"], sys.modules["plain_loop"], sys.modules["flops"]


def test_the_straightforward_loop_learns_the_answers_and_their_stop_tokens_alone(modules, base_folder):
    _, loop, _ = modules
    processor = fresh(base_folder).processor
    (image,) = pictures(1)
    items = [(image, "What kart is the ego car?", "sara_the_wizard"), (image, "What track is this?", "abyss")]
    batch = loop.StraightCollator(processor)(items)
    assert batch["pixel_values"].shape[:2] == (2, 1)
    for labels, (_, _, answer) in zip(batch["labels"], items, strict=True):
        learnt = processor.tokenizer.decode(labels[labels != IGNORE])
        assert learnt.replace(" ", "") == f"{answer}<end_of_utterance>"
    kept = batch["labels"] != IGNORE
    assert torch.equal(batch["labels"][kept], batch["input_ids"][kept])


def test_products_with_4_bit_weights_and_attention_on_a_cpu_are_counted(modules, base_folder):
    _, _, flops = modules
    answerer = fresh(base_folder)
    layer = answerer.core.model.text_model.layers[0].mlp.up_proj.base_layer
    states = torch.randn(50, layer.in_features, requires_grad=True, device=answerer.device)
    once = 2 * 50 * layer.in_features * layer.out_features
    assert flops.counted_flops(answerer, lambda: layer(states)) == once
    assert flops.counted_flops(answerer, lambda: layer(states).sum().backward()) == 2 * once
    assert flops.counted_flops(answerer, lambda: answerer.encode(pictures(1))) == 0, "encoding is left out"
    heads = torch.randn(1, 2, 30, 16)
    attention = torch.nn.functional.scaled_dot_product_attention
    assert flops.counted_flops(answerer, lambda: attention(heads, heads, heads)) == 2 * 2 * 2 * 30 * 30 * 16


def test_both_sides_do_the_same_work_and_give_the_same_answers(modules, base_folder, tmp_path):
    loop, _, _ = modules
    options = argparse.Namespace(
        base=str(base_folder),
        views=2,
        answer_views=1,
        batch_size=2,
        rounds=1,
        profile=0,
        cpu_time=False,
        precision="fp32",
        straight_precision="fp32",
    )
    figures = loop.measure(options, tmp_path)
    same, of = figures["answers equal"].split(" of ")
    unknown = figures["answers that differ as only `generate` may say unknown or 0"]
    assert int(same) + unknown == int(of) > 3
    assert figures["mean loss, ours"] == pytest.approx(figures["mean loss, straightforward"], rel=0.1)
    ratios = [value for name, value in figures.items() if name.endswith(": ratio")]
    assert len(ratios) == 4 and all(ratio > 0 for ratio in ratios)
    assert figures["ours computes in"] == figures["straightforward in"] == "fp32"
    assert 0 < figures["share of the matmul peak in our steps"] < 1
