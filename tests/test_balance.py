import random

import pytest

from stkvlm_lib.qa.balance import Candidates, kept_counts, rank


def top_share(counts):
    return max(counts.values()) / sum(counts.values())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"yes": 90, "no": 10}, {"yes": 10, "no": 10}),
        ({"left": 55, "right": 45}, {"left": 45, "right": 45}),
        ({"a": 30, "b": 30, "c": 30}, {"a": 30, "b": 30, "c": 30}),
        ({"1": 40, "2": 40, "3": 10, "4": 10}, {"1": 40, "2": 40, "3": 10, "4": 10}),
        ({"red": 7}, {"red": 7}),
        ({}, {}),
    ],
)
def test_frequent_answers_are_cut_to_a_common_number(before, after):
    assert kept_counts(before, 1.6) == after


def test_the_most_frequent_answer_keeps_to_its_share():
    before = {"1": 580, "2": 250, "3": 100, "4": 40, "5": 10, "6": 2}
    after = kept_counts(before, 1.5)
    assert top_share(after) <= 1.5 / 5, "an answer of 2 in 982 does not count as one to be even over"
    assert after["6"] == 2 and after["5"] == 10 and after["1"] == after["2"] > after["3"] - 1
    assert top_share(kept_counts(before, 1.5) | {"1": after["1"] + 1, "2": after["2"] + 1}) > 1.5 / 5 - 1e-3


def test_no_ratio_keeps_all_and_a_family_can_be_bounded():
    before = {"yes": 900, "no": 100}
    assert kept_counts(before, 0) == before
    assert sum(kept_counts(before, 0, most=300).values()) == 300
    assert kept_counts(before, 1.5, most=60) == {"yes": 30, "no": 30}


def test_what_stays_does_not_depend_on_the_order():
    questions = [("in_view", "yes" if i % 5 else "no", rank(0, f"{i}.jpg", "Is tux in view?")) for i in range(500)]

    def staying(order):
        candidates = Candidates()
        for question in order:
            candidates.add(*question)
        stay = candidates.stay(1.5)
        assert candidates.composition(stay) == {"in_view": {"no": 100, "yes": 100}}
        return {question for question, stays in zip(order, stay, strict=True) if stays}

    shuffled = random.Random(0).sample(questions, len(questions))
    assert staying(questions) == staying(shuffled)
    assert rank(0, "a.jpg", "q") != rank(1, "a.jpg", "q")


def test_nothing_to_balance_is_nothing_that_stays():
    assert len(Candidates().stay(1.5)) == 0 and Candidates().composition() == {}
