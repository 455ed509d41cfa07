"""The temperatures that make confidence honest."""

import math

import pytest
import torch
from tiny import fresh, pictures

from stkvlm_lib.model_files import Temperatures
from stkvlm_lib.vlm.features import FeatureStore
from stkvlm_lib.vlm.temperature import LEAST, TEMPERATURES, best_temperature, fit_temperatures

QUESTIONS = ["What track is this?", "What kart is the ego car?"]
OTHERS = ["Which course are we on?", "Name our kart."]


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
    """At temperature 1, at that of the course's wordings and at that of all others."""
    features, questions = answerer.encode(pictures(2)), [QUESTIONS + OTHERS, OTHERS[:1]]
    given = answerer.answer_encoded(features, questions)
    asked = [[(q, [a.text]) for q, a in zip(*group, strict=True)] for group in zip(questions, given, strict=True)]
    found = answerer.log_probabilities(features, asked, torch.tensor([1.0, 3.0, 2.0]))
    answerer.temperatures = Temperatures(course=3.0, other=2.0)
    cooler = answerer.answer_encoded(features, questions)
    weighed = answerer.likelihoods(features, asked)
    answerer.temperatures = Temperatures()
    assert [[a.text for a in group] for group in given] == [[a.text for a in group] for group in cooler]
    columns = [1 if question in QUESTIONS else 2 for group in questions for question in group]
    wanted = [float(values[column]) for values, column in zip(found, columns, strict=True)]
    assert [a.confidence for group in given for a in group] == pytest.approx(
        [v[0].exp().item() for v in found], rel=1e-3
    )
    assert [a.confidence for group in cooler for a in group] == pytest.approx([math.exp(v) for v in wanted], rel=1e-3)
    assert [c.log_probability for group in weighed for (c,) in group] == pytest.approx(wanted, rel=1e-4)


def test_few_questions_fit_nothing_and_many_do(answerer, bundled):
    """Each kind of wording by itself."""
    names = [view.image_file for view in bundled.views("valid")[:3]]
    store = FeatureStore(answerer, bundled, 2)
    wrong = [(question, "no such answer") for question in QUESTIONS] * 10
    highest = float(TEMPERATURES[-1])
    assert fit_temperatures(store, {}) == Temperatures()
    assert fit_temperatures(store, {names[0]: [(OTHERS[0], "abyss")] * (LEAST - 1)}) == Temperatures()
    found = fit_temperatures(store, {name: [*wrong, (OTHERS[0], "no such answer")] for name in names})
    assert found == Temperatures(pytest.approx(highest), 1.0)
