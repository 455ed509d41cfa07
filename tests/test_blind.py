import random

import pytest

from stkvlm_lib.qa.blind import guesses, most_frequent
from stkvlm_lib.qa.qa_sets import Record, read_records


def record(family, question, answer, track="abyss"):
    return Record("a.jpg", question, answer, family, "train", "race", "00000", 0, track)


def many(family, *rows):
    return [record(family, *row[:-1]) for row in rows for _ in range(row[-1])]


def test_the_guessers_learn_from_train_and_are_measured_on_held_out():
    question = "How many karts are there in the scenario?"
    train = many("count", (question, "3", "abyss", 5), (question, "2", "mines", 3), (question, "1", "mines", 1))
    held_out = many("count", (question, "3", "abyss", 2), (question, "2", "mines", 6), (question, "3", "new", 2))
    (found,) = guesses(train, held_out)
    assert (found.family, found.n, found.answers) == ("count", 10, 3)
    assert found.uniform == pytest.approx(1 / 3)
    assert found.majority == found.words == pytest.approx(4 / 10), "the words say nothing here"
    assert found.track == 1.0, "where train never was on a track, its most frequent answer over all stands in"
    assert found.best == 1.0


def test_words_give_away_what_follows_from_them():
    train = many("kart_colour", ("What colour is tux?", "red", 5), ("What colour is gnu?", "green", 3))
    held_out = many("kart_colour", ("Name the colour of gnu.", "green", 1), ("Name the colour of tux.", "red", 1))
    (found,) = guesses(train, held_out)
    assert (found.majority, found.words) == (0.5, 1.0)


def test_the_family_that_asks_for_the_track_is_not_guessed_by_it():
    train = many("track", ("What track is this?", "abyss", "abyss", 2), ("What track is this?", "mines", "mines", 1))
    (found,) = guesses(train, train)
    assert found.track is None and found.best == pytest.approx(2 / 3) and found.row()["by track"] == "–"


def test_a_family_with_one_answer_and_one_without_train_questions():
    train = many("count", ("q", "1", 2))
    assert [g.words for g in guesses(train, many("count", ("other", "1", 1)))] == [1.0]
    assert guesses(train, many("ego", ("q", "tux", 1))) == [] == guesses([], train)


def test_answers_count_without_case_and_ties_go_to_the_alphabet():
    (found,) = guesses(many("ego", ("q", "Tux ", 1)), many("ego", ("q", "tux", 1)))
    assert found.majority == 1.0
    assert most_frequent({"b": 2, "a": 2, "c": 1}) == "a"


def test_the_order_of_records_does_not_matter(written):
    train, test = (read_records(written[0] / f"{split}_extended.jsonl") for split in ("train", "test"))
    shuffled = random.Random(0).sample(train, len(train))
    found = guesses(train, test)
    assert found == guesses(shuffled, test)
    assert [g.family for g in found][:3] == ["ego", "count", "track"] and len(found) > 12
    assert all(0 <= share <= 1 for g in found for share in (g.uniform, g.majority, g.track or 0, g.words))
