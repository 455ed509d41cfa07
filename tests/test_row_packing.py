"""Two pictures in a row, what predicts at its end: nothing is learnt otherwise than one picture a row."""

import pytest
import torch
from tiny import fresh, pictures

from stkvlm_lib.vlm.answering import image_outputs
from stkvlm_lib.vlm.packing import IGNORE, Segment, collate, pack
from stkvlm_lib.vlm.row_packing import collate_rows, pairs
from stkvlm_lib.vlm.trainer import answer_loss

ASKED = [
    [("What kart is the ego car?", "tux"), ("How many karts are there in the scenario?", "4")],
    [("What track is this?", "black_forest")],
    [("Is gnu to the left or right of the ego car?", "left"), ("What track is this?", "abyss"), ("Who?", "unknown")],
]


def test_a_row_is_laid_out_as_drawn():
    one, two = pack((5,), [Segment((10, 11, 12, 13), 2)]), pack((6, 7), [Segment((20, 21), 1)])
    batch = collate_rows([[one, two], [two]], pad_id=99)
    assert batch["input_ids"].tolist() == [[5, 10, 13, 6, 7, 21, 11, 12, 20], [6, 7, 21, 99, 99, 99, 20, 99, 99]]
    assert batch["position_ids"].tolist()[0] == [0, 1, 4, 0, 1, 3, 2, 3, 2]
    assert batch["labels"].tolist() == [[12, 13, 21], [21, IGNORE, IGNORE]]
    assert batch["logits_to_keep"].tolist() == [6, 7, 8]
    seen = [[j for j in range(9) if batch["attention_mask"][0, 0, i, j]] for i in range(9)]
    assert seen == [[0], [0, 1], [0, 1, 2, 6, 7], [3], [3, 4], [3, 4, 5, 8], [0, 1, 6], [0, 1, 6, 7], [3, 4, 8]]
    assert batch["attention_mask"].any(-1).all(), "padding sees itself, or attention is NaN"


def test_the_longest_go_with_the_shortest():
    assert pairs([5, 9, 1, 7]) == [[1, 2], [3, 0]]
    assert pairs([5, 9, 1]) == [[1, 2], [0]]
    assert pairs([3]) == [[0]] and pairs([]) == []


@pytest.fixture(scope="module")
def learnt(base_folder):
    """Loss and gradients of the same examples, a picture a row and in pairs."""
    answerer = fresh(base_folder, "none")
    examples = [pack(answerer.prompt.prefix, [answerer.prompt.segment(*pair) for pair in row]) for row in ASKED]
    features = answerer.encode(pictures(3)).clone()
    pad = answerer.prompt.tokenizer.pad_token_id
    rows = pairs([len(example.input_ids) for example in examples])
    order = [i for row in rows for i in row]
    assert len(rows) == 2 and order != sorted(order)
    paired = collate_rows([[examples[i] for i in row] for row in rows], pad)
    return [step(answerer, collate(examples, pad), features), step(answerer, paired, features[order])]


def step(answerer, batch, features):
    labels = batch.pop("labels")
    answerer.model.zero_grad()
    out = answerer.model(**batch, mm_encoder_outputs=image_outputs(features), use_cache=False)
    loss = answer_loss(out, labels)
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in answerer.model.named_parameters() if p.grad is not None}, labels


def test_loss_and_gradients_are_those_of_one_picture_a_row(learnt):
    (loss, gradients, _), (paired, others, _) = learnt
    assert paired == pytest.approx(loss, rel=1e-5)
    assert gradients.keys() == others.keys() and len(gradients) > 20
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-3, atol=1e-5)


def test_every_answer_is_learnt_once(learnt):
    told = [sorted(labels[labels != IGNORE].tolist()) for *_, labels in learnt]
    assert told[0] == told[1]
