"""One plain form of questions: spelling never changes what is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stkvlm_lib.grammar.names import KARTS, TRACKS
from stkvlm_lib.grammar.questions import FAMILIES, read_question
from stkvlm_lib.grammar.spelling import one_word, plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What kart is the ego car?", "what kart is the ego car"),
        ("  what KART is\tthe ego car ?! ", "what kart is the ego car"),
        ("What’s the color of Sara the Racer?", "what is the colour of sara_the_racer"),
        ("whats sara-the-wizard's colour", "what is sara_the_wizard s colour"),
        ("Is Sara_The_Racer left/right of us?", "is sara_the_racer left right of us"),
        ("Isn't it Cocoa Temple?", "is not it cocoa_temple"),
        ("its gray, it's grey", "its grey it is grey"),
        ("Is {kart} left of {b}, or {not}?", "is {kart} left of {b} or not"),
        ("Où est-ce?", "où est ce"),
        ("ＴＵＸ", "tux"),
        ("?!", ""),
    ],
)
def test_the_plain_form(text, expected):
    assert plain(text) == expected


@given(st.text(max_size=60))
def test_the_plain_form_is_its_own_plain_form(text):
    assert plain(plain(text)) == plain(text)


@pytest.mark.parametrize("name", [*KARTS, *TRACKS])
def test_names_stay_names_however_they_are_written(name):
    for written in (name, name.upper(), name.replace("_", " "), name.replace("_", "-").title()):
        assert plain(written) == name == one_word(written)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_every_wording_is_read_however_it_is_spelled(family):
    names = ("sara_the_racer", "tux")[: len(family.slots)]
    for number in range(len(family.wordings)):
        question = family.write(number, names)
        spoken = question.replace("sara_the_racer", "Sara the Racer").replace("colour", "color")
        for written in (question.lower(), question.upper(), f"  {spoken[:-1]} ", spoken.replace(" ", "  ")):
            assert read_question(written) == (family.name, number, names)


def test_a_name_of_several_words_is_one_word_in_a_question():
    family = FAMILIES["in_view"]
    assert family.write(0, ["Flying Dutchman"]) == "Is flying_dutchman in view?"
    assert read_question("Is flying_dutchman in view?") == ("in_view", 0, ("flying_dutchman",))
