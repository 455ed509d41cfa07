"""Labels of a question file that no right answer can match are found and told."""

import pytest
from hand_made import TUX, frame_set, make_view

from stkvlm_lib.qa.label_faults import CONTRADICTORY, IMPOSSIBLE, REPEATED, label_faults
from stkvlm_lib.qa.qa_sets import Record, course_records, make_records

VIEW = make_view({"tux": TUX, "gnu": (10, 20, 30, 40)})
FOLDER = frame_set(VIEW)
COUNT, DEPTH = "How many karts are there in the scenario?", "Is gnu in front of or behind the ego car?"


def asked(family: str, question: str, label: str, image_file: str = VIEW.image_file) -> Record:
    return Record(image_file, question, label, family, "custom", "r1", "r10001", 0, "abyss")


def test_questions_made_here_have_no_fault(bundled):
    assert label_faults(make_records(bundled, "valid"), bundled) == []


def test_labels_in_other_words_are_named_with_those_that_could_be():
    labels = ["behind", "behind", "front", "in front", "BACK "]
    (fault,) = label_faults([asked("front_back", f"{DEPTH}{n}", label) for n, label in enumerate(labels)], FOLDER)
    told = {"family": "front_back", "what is wrong": IMPOSSIBLE, "questions": 3}
    assert fault == told | {"such as": "'behind' (2), 'in front' (1)", "what to do": "write one of: front, back"}


@pytest.mark.parametrize(
    ("family", "label", "wrong"),
    [
        *[("count", label, wrong) for label, wrong in (("3", False), ("3.0", True), ("three", True), ("0", True))],
        *[("track", label, wrong) for label, wrong in (("mines", False), ("Abyss", False), ("the abyss", True))],
        *[("ego", label, wrong) for label, wrong in (("xue", False), ("konqi", False), ("nobody", True))],
        *[("where", label, wrong) for label, wrong in (("front and left", False), ("in front and to the left", True))],
        ("other", "whatever", False),
    ],
)
def test_what_a_family_can_answer(family, label, wrong):
    assert bool(label_faults([asked(family, "Q", label)], FOLDER)) is wrong


def test_karts_and_tracks_that_only_these_frames_have_are_answers():
    view = make_view({"tux": TUX})
    object.__setattr__(view.frame, "karts", ("my kart", *(f"kart{n}" for n in range(20))))
    object.__setattr__(view.frame, "track", "my track")
    labels = {"ego": "My Kart", "track": "my track", "count": "21"}
    records = [asked(family, "Q", label) for family, label in labels.items()]
    assert label_faults(records, frame_set(view)) == []
    assert len(label_faults([asked("count", "Q", "22")], frame_set(view))) == 1


def test_contradictions_and_repetitions_are_counted():
    records = [asked("count", COUNT, label) for label in ("1", "2", "2", "2")]
    contradictory, repeated = label_faults(records, FOLDER)
    assert (contradictory["what is wrong"], contradictory["questions"]) == (CONTRADICTORY, 4)
    assert contradictory["such as"] == f"{VIEW.image_file}: {COUNT} 1 / 2"
    assert (repeated["what is wrong"], repeated["questions"]) == (REPEATED, 2)


def test_the_same_question_about_another_picture_is_another():
    other = make_view({"tux": TUX}, race="r2")
    records = [*course_records(VIEW, "custom"), *course_records(other, "custom")]
    assert label_faults(records, frame_set(VIEW, other)) == []
