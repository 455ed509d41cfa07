"""Attention in plain matrix products: it gives what torch's fused one does, in a function and in a whole model."""

import pytest
import torch
from tiny import fresh, pictures
from torch import nn

from stkvlm_lib.vlm import base_vlm
from stkvlm_lib.vlm.attention import FUSED, PLAIN, faster_attention, plain_attention

QUESTIONS = [["What kart is the ego car?", "how many cars?"], ["What track is this?"]]


def test_plain_products_serve_half_precision_on_a_cpu_alone():
    assert faster_attention(torch.device("cpu"), torch.bfloat16) == PLAIN
    assert faster_attention(torch.device("cpu"), torch.float32) == FUSED
    assert faster_attention(torch.device("cuda"), torch.bfloat16) == FUSED


@pytest.mark.parametrize("masked", ["not", "by bool", "by adding"])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_it_gives_what_the_fused_one_gives_and_its_gradients(masked, groups):
    torch.manual_seed(0)
    query = torch.randn(2, 6, 9, 8, requires_grad=True)
    key, value = (torch.randn(2, groups, 9, 8, requires_grad=True) for _ in range(2))
    seen = (torch.rand(2, 1, 9, 9) < 0.6) | torch.eye(9, dtype=torch.bool)
    added = torch.zeros(2, 1, 9, 9).masked_fill(~seen, torch.finfo(torch.float32).min)
    mask = {"not": None, "by bool": seen, "by adding": added}[masked]
    found = plain_attention(nn.Identity(), query, key, value, mask, 8**-0.5)[0]
    wanted = nn.functional.scaled_dot_product_attention(query, key, value, mask, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(found, wanted)
    given = torch.randn_like(found)
    for one, other in zip(
        *(torch.autograd.grad(out, (query, key, value), given) for out in (found, wanted)), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.fixture
def both(base_folder, monkeypatch):
    """The same model with either attention."""
    models = []
    for name in (FUSED, PLAIN):
        monkeypatch.setattr(base_vlm, "faster_attention", lambda device, dtype, name=name: name)
        models.append(fresh(base_folder))
        assert models[-1].core.config._attn_implementation == name
    return models


def test_a_model_encodes_answers_and_weighs_candidates_alike(both):
    tokens = [model.encode(pictures(2)) for model in both]
    torch.testing.assert_close(*tokens)
    fused, plain = (model.answer_encoded(tokens[0], QUESTIONS) for model in both)
    for one, other in zip(sum(fused, []), sum(plain, []), strict=True):
        assert one.text == other.text and one.confidence == pytest.approx(other.confidence, rel=1e-4)
    asked = [[(question, ["tux", "gnu", "2"]) for question in group] for group in QUESTIONS]
    weighed = (torch.cat(model.log_probabilities(tokens[0], asked, torch.ones(1))) for model in both)
    torch.testing.assert_close(*weighed)
