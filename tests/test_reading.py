"""Reading questions in people's own words: as what they ask, or not at all."""

import random

import pytest

from stkvlm_lib.explore.understanding import as_asked
from stkvlm_lib.grammar.names import KARTS
from stkvlm_lib.grammar.questions import FAMILIES
from stkvlm_lib.grammar.reading import read_own_words, several
from stkvlm_lib.grammar.wordings import UNKNOWN, fill, language, misspelt


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
@pytest.mark.parametrize("slips", [0, 1])
def test_what_is_drawn_is_read_as_what_it_asks(family, slips):
    """The few wordings that two families share are left to the model."""
    rng = random.Random(family.name)
    read = 0
    for n in range(100):
        wording = language().draw(family.name, random.Random(n))
        names = tuple(rng.sample(KARTS, len(family.slots)))
        said = fill(wording, dict(zip(family.slots, names, strict=True)))
        found = read_own_words((misspelt(said, rng) if slips else said).capitalize() + "?")
        assert found in (None, (family.name, names)), said
        read += found is not None
    assert read > (60 if slips else 75)


@pytest.mark.parametrize(
    ("question", "read"),
    [
        ("How many cars are ahead of us?", ("count_front", ())),
        ("how many cars are we ahead of", ("count_behind", ())),
        ("please, is Sara the Racer left or right of me", ("left_right", ("sara_the_racer",))),
        ("at what oclock is puffy", ("clock", ("puffy",))),
        ("how mny karts r there", ("count", ())),
        ("is wilbur left or right of us", ("left_right", ("wilber",))),
        ("hwo many racers can u see", ("count", ())),
        ("how many trees are there", None),
        ("what is the wether", None),
        ("how many cars", ("count", ())),
        ("how many cars are", None),
        ("is it tux", None),
        ("", None),
    ],
)
def test_a_question_is_read_whole_or_not_at_all(question, read):
    assert read_own_words(question) == read


def test_nothing_that_no_picture_answers_is_read():
    read = [said for n in range(300) if read_own_words(said := language().draw(UNKNOWN, random.Random(n)))]
    assert not read


def test_a_course_wording_with_a_slip_is_asked_in_a_wording_that_training_has_seen():
    assert as_asked("What kart is teh ego car?") == FAMILIES["ego"].wordings[1]


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("What track is this and how many karts are there?", 2),
        ("How many karts are there? What track is this? who are we", 3),
        ("Hi! How many karts are there?", 0),
        ("Is tux in front and left of us?", 0),
        ("Please, where is tux?", 0),
        ("How many karts are there and who wins?", 0),
    ],
)
def test_two_questions_in_one_are_noticed(text, n):
    assert len(several(text)) == n
