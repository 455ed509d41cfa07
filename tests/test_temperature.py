"""The temperature that makes confidence honest."""

import pytest
import torch
from tiny import fresh, pictures

from stkvlm_lib.vlm.features import FeatureStore
from stkvlm_lib.vlm.temperature import LEAST, TEMPERATURES, best_temperature, fit_temperature

QUESTIONS = ["What track is this?", "What kart is the ego car?"]


@pytest.fixture(scope="module")
def answerer(base_folder):
    return fresh(base_folder, "none")


def test_answers_that_are_right_as_often_as_they_are_sure_keep_their_temperature():
    """Two logits a gap apart; right with the probability that temperature 2 gives."""
    generator = torch.Generator().manual_seed(0)
    gaps = torch.rand(4000, generator=generator) * 8
    right = torch.rand(4000, generator=generator) < torch.sigmoid(gaps / 2)
    sure = torch.nn.functional.logsigmoid(gaps[:, None] / TEMPERATURES)
    assert float(TEMPERATURES[best_temperature(sure, right)]) == pytest.approx(2, rel=0.1)


def test_answers_that_are_sure_and_wrong_are_no_infinite_loss():
    sure = torch.zeros(3, len(TEMPERATURES))
    assert best_temperature(sure, torch.tensor([True, False, True])) == 0


def test_confidence_of_given_answers_is_that_of_the_answers_themselves(answerer):
    """At temperature 1 and at another."""
    features = answerer.encode(pictures(2))
    given = answerer.answer_encoded(features, [QUESTIONS, QUESTIONS[:1]])
    asked = [list(zip(QUESTIONS, ([a.text] for a in group), strict=False)) for group in given]
    found = answerer.log_probabilities(features, asked, torch.tensor([1.0, 3.0]))
    answerer.temperature = 3.0
    cooler = answerer.answer_encoded(features, [QUESTIONS, QUESTIONS[:1]])
    ranked = answerer.likelihoods(features, asked)
    answerer.temperature = 1.0
    flat = [(a, b) for group, other in zip(given, cooler, strict=True) for a, b in zip(group, other, strict=True)]
    assert [a.text for a, _ in flat] == [b.text for _, b in flat]
    for values, (one, three) in zip(found, flat, strict=True):
        assert values.exp().tolist() == pytest.approx([one.confidence, three.confidence], rel=1e-3)
    heated = [c.log_probability for group in ranked for (c,) in group]
    assert heated == pytest.approx([float(values[1]) for values in found], rel=1e-4)


def test_few_questions_fit_nothing_and_many_do(answerer, bundled):
    names = [view.image_file for view in bundled.views("valid")[:3]]
    store = FeatureStore(answerer, bundled, 2)
    assert fit_temperature(store, {names[0]: [(QUESTIONS[0], "abyss")] * (LEAST - 1)}) == 1.0
    many = {name: [(question, "no such answer") for question in QUESTIONS] * 10 for name in names}
    assert fit_temperature(store, many) == pytest.approx(float(TEMPERATURES[-1]))  # all wrong
