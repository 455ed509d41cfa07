"""Free answers against the library's own generation, candidates against one run a candidate."""

import math

import pytest
import torch
from PIL import ImageOps
from tiny import fresh, pictures

from stkvlm_lib.grammar.questions import is_of_course
from stkvlm_lib.grammar.spelling import plain
from stkvlm_lib.vlm import answering
from stkvlm_lib.vlm.answering import Answer, ranked

QUESTIONS = [
    ["What track is this?", "How many karts are to the left of the ego car?", "What kart is the ego car?"],
    ["Is tux in front of or behind the ego car?"],
    [],
]
CANDIDATES = ["1", "tux", "front and left", "sara_the_racer", "There are 3 karts."]


@pytest.fixture(scope="module")
def images():
    return pictures(3)


@pytest.fixture(scope="module")
def answerer(base_folder):
    return fresh(base_folder, "none")


def test_batched_answers_equal_generate_one_by_one(answerer, images):
    """The shared image prefix and the padding change nothing against the library's own generation."""
    answers = answerer.answer_encoded(answerer.encode(images), QUESTIONS)
    assert [len(group) for group in answers] == [3, 1, 0]
    for image, questions, group in zip(images, QUESTIONS, answers, strict=True):
        for question, answer in zip(questions, group, strict=True):
            chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": plain(question)}]}]
            text = answerer.processor.apply_chat_template(chat, add_generation_prompt=True)
            inputs = answerer.processor(text=text, images=[image], return_tensors="pt")
            generated = answerer.model.generate(
                **inputs,
                max_new_tokens=answering.MAX_ANSWER_TOKENS,
                do_sample=False,
                eos_token_id=answerer.prompt.stop_id,
                pad_token_id=answerer.prompt.tokenizer.pad_token_id,
                output_scores=True,
                return_dict_in_generate=True,
            )
            new = generated.sequences[0, inputs["input_ids"].shape[1] :]
            expected = answerer.prompt.tokenizer.decode(new, skip_special_tokens=True).strip()
            assert answer.text == expected
            steps = [scores[0].log_softmax(-1)[token] for scores, token in zip(generated.scores, new, strict=True)]
            assert answer.confidence == pytest.approx(float(torch.stack(steps).sum().exp()), rel=1e-3)


def test_whatever_is_asked_together_answers_are_as_when_asked_alone(answerer, images, monkeypatch):
    """A question asked twice, one that is far longer than the others, and batches of a few."""
    features = answerer.encode(images)
    asked = [[*QUESTIONS[0], QUESTIONS[0][1]], ["Tell me, please: " * 40 + QUESTIONS[1][0], *QUESTIONS[0]], []]
    alone = [[answerer.answer(image, q) for q in group] for image, group in zip(images, asked, strict=True)]
    read, generate = [], answerer._generate

    def watched(cache, rows, always):
        read.append(rows)
        return generate(cache, rows, always)

    monkeypatch.setattr(answerer, "_generate", watched)
    for most, batches in ((answering.MAX_ANSWER_BATCH_TOKENS, 1), (100, 2), (1, 7)):
        monkeypatch.setattr(answering, "MAX_ANSWER_BATCH_TOKENS", most)
        read.clear()
        together = answerer.answer_encoded(features, asked)
        assert len(read) >= batches and sum(map(len, read)) == 7, "equal questions about a picture once"
        assert most > 1000 or len(read[-1]) == 1, "the long one by itself"
        for group, given in zip(alone, together, strict=True):
            assert [a.text for a in given] == [a.text for a in group]
            assert [a.confidence for a in given] == pytest.approx([a.confidence for a in group], abs=1e-5)


def test_only_what_has_not_stopped_is_written_on(answerer, images, monkeypatch):
    """Of three questions one stops at once, the others by the third token: as they do when each is asked alone."""
    features, stop, group = answerer.encode(images[:1]), answerer.prompt.stop_id, QUESTIONS[0]
    head, limit, steps = answerer.core.lm_head.forward, float("inf"), []

    def stopping(states):
        steps.append(states[:, 0].tolist())
        logits = head(states)
        logits[:, stop] += torch.where((states[:, 0] < limit) | (len(steps) == 3), 100.0, -100.0)
        return logits

    def answered(questions):
        steps.clear()
        return answerer.answer_encoded(features, [questions])[0]

    monkeypatch.setattr(answerer.core.lm_head, "forward", stopping)
    answered(group)
    low, middle, _ = sorted(steps[0])
    limit = (low + middle) / 2
    alone = [answered([question])[0] for question in group]
    together = answered(group)
    assert [len(rows) for rows in steps][:2] == [3, 2]
    assert [a.text for a in together] == [a.text for a in alone] and any(a.text for a in alone)
    assert [a.confidence for a in together] == pytest.approx([a.confidence for a in alone], rel=1e-4)


def test_pictures_encoded_a_few_at_once_keep_their_order(answerer, monkeypatch):
    five = pictures(5)
    parts = answerer.encode(five)
    monkeypatch.setattr(answering, "CPU_PICTURES_AT_ONCE", 5)
    assert torch.allclose(parts, answerer.encode(five), atol=1e-4)
    assert len({round(float(tokens.sum()), 3) for tokens in parts}) == 5


def test_one_picture_of_any_size_is_answered(answerer, images):
    tall = ImageOps.exif_transpose(images[0].resize((90, 333)))
    answer = answerer.answer(tall, "What track is this?")
    assert isinstance(answer.text, str) and 0 <= answer.confidence <= 1


def alone(answerer, image, question, candidate) -> float:
    """The log-probability of one candidate by the library's own forward, without cache or packing."""
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": plain(question)}]}]
    text = answerer.processor.apply_chat_template(chat, add_generation_prompt=True)
    inputs = answerer.processor(text=f"{text} {candidate}<end_of_utterance>", images=[image], return_tensors="pt")
    before = len(answerer.processor(text=text, images=[image], return_tensors="pt")["input_ids"][0])
    with torch.no_grad():
        logits = answerer.model(**inputs).logits[0, before - 1 : -1]
    if is_of_course(question):
        logits[0, answerer.prompt.barred([])] = -torch.inf
    return float(logits.log_softmax(-1).gather(1, inputs["input_ids"][0, before:, None]).sum())


@pytest.mark.parametrize("limits", [(1024, 2048), (12, 200)], ids=["together", "cut"])
def test_packed_candidates_are_as_likely_as_alone(answerer, images, monkeypatch, limits):
    """Also where questions of a picture fall into several sequences, and these into several batches."""
    monkeypatch.setattr(answering, "MAX_OPTION_TOKENS", limits[0])
    monkeypatch.setattr(answering, "MAX_BATCH_TOKENS", limits[1])
    asked = [[(question, CANDIDATES[i:]) for i, question in enumerate(group)] for group in QUESTIONS]
    found = answerer.likelihoods(answerer.encode(images), asked)
    assert [len(group) for group in found] == [3, 1, 0]
    for image, group, candidates in zip(images, asked, found, strict=True):
        for (question, texts), row in zip(group, candidates, strict=True):
            assert [c.text for c in row] == list(texts)
            for candidate in row:
                expected = alone(answerer, image, question, candidate.text)
                assert candidate.log_probability == pytest.approx(expected, abs=2e-4), (question, candidate)


def test_a_generated_answer_among_the_candidates_keeps_its_confidence(answerer, images):
    question = QUESTIONS[0][0]
    free = answerer.answer(images[0], question)
    ranking = answerer.rank(images[0], question, [free.text, "abyss", "xue"])
    assert {a.text: a.confidence for a in ranking}[free.text] == pytest.approx(free.confidence, rel=1e-3)
    assert [a.confidence for a in ranking] == sorted((a.confidence for a in ranking), reverse=True)


def test_equally_likely_candidates_keep_their_order():
    same = [answering.Candidate(text, -1.0) for text in "bca"]
    assert [a.text for a in ranked([*same, answering.Candidate("z", -0.5)])] == ["z", "b", "c", "a"]


def test_a_question_is_understood_by_its_wording_or_by_the_model(answerer, images, monkeypatch):
    features = answerer.encode(images[:1])
    assert answerer.understood(features, "is TUX left of Sara the Racer") == ("left_of", ("tux", "sara_the_racer"))
    asked = []

    def say(_, questions):
        asked.append(questions[0][0])
        return [[Answer("left_right tux" if "side" in questions[0][0] else "unknown", 0.9)]]

    monkeypatch.setattr(answerer, "answer_encoded", say)
    assert answerer.understood(features, "tux on which side") == ("left_right", ("tux",))
    assert answerer.understood(features, "who won") is None
    assert asked == ["task_of tux on which side", "task_of who won"]


@pytest.mark.parametrize(
    ("never", "ours", "others"),
    [
        ("unknown", "What kart is the ego car?", "Is mario to the left or right of the ego car?"),
        ("0", "How many karts are behind the ego car?", "how many karts are behind us"),
    ],
)
def test_the_courses_own_questions_never_get_some_answers(answerer, images, never, ours, others):
    """A head that says `unknown`, or `0`, to everything."""
    features = answerer.encode(images[:1])
    (token, _) = answerer.prompt.answer(never)
    hook = answerer.core.lm_head.register_forward_hook(
        lambda _, __, logits: logits.index_fill(-1, torch.tensor([token]), float(logits.max()) + 1)
    )
    first, second = answerer.answer_encoded(features, [[ours, others]])[0]
    hook.remove()
    assert not first.text.startswith(never)
    assert second.text.startswith(never)
    likely = answerer.likelihoods(features, [[(ours, [never]), (others, [never])]])[0]
    assert likely[0][0].log_probability == -math.inf < likely[1][0].log_probability
