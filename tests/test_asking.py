"""Questions put to a model by hand: answers with their rivals, labels, what stays encoded, and what is refused."""

import io
import re
import sys

import pytest
from PIL import Image
from stub_model import StubModel

from stkvlm_lib import __main__ as cli
from stkvlm_lib.config import ROOT
from stkvlm_lib.data.frames import Detection, Frame, View
from stkvlm_lib.explore.asking import Asker, AskError, in_lines, label_of, suggestions
from stkvlm_lib.explore.markup import reply_html
from stkvlm_lib.explore.models import ENCODED_PICTURES, SIGHTS, OwnModel, put
from stkvlm_lib.explore.own_picture import OWN, own_view
from stkvlm_lib.explore.understanding import (
    NOT_SEEN,
    STRANGE,
    UNKNOWN_MEANS,
    Understood,
    families_with,
    is_unknown,
    understand,
    unknown_means,
)
from stkvlm_lib.grammar.names import KARTS
from stkvlm_lib.grammar.questions import FAMILIES, OTHER
from stkvlm_lib.grammar.scene import Reason, read_scene
from stkvlm_lib.vlm.answering import Answer


@pytest.fixture(scope="module")
def views(bundled):
    return bundled.views("test")


@pytest.fixture
def view(views):
    return next(view for view in views if len(read_scene(view).karts) > 1)


def test_an_answer_comes_with_its_rivals_likeliest_first(view):
    reply = Asker(OwnModel(StubModel())).ask(view, "  What kart is   the ego car? ")
    assert reply.question == "What kart is the ego car?"
    assert reply.understood == Understood("ego") and reply.answer.text in ("seen", "unseen")
    assert {rival.text for rival in reply.rivals} == set(FAMILIES["ego"].answers)
    assert reply.label.answer == read_scene(view).ego.name and reply.label.rules == "course"
    assert 0 < reply.encoding < reply.seconds


def test_the_rivals_of_a_real_model_are_ranked(view, base_folder):
    from tiny import fresh

    rivals = Asker(OwnModel(fresh(base_folder))).ask(view, "What track is this?").rivals
    chances = [rival.confidence for rival in rivals]
    assert chances == sorted(chances, reverse=True) and 0 < chances[0] <= 1


def test_the_chance_of_a_real_answer_is_that_of_it_among_its_rivals(view):
    from stkvlm_lib.explore.models import load_model

    model = OwnModel(load_model(ROOT / "models" / "course_adapter"))
    for question in ("What kart is the ego car?", "Is tux to the left or right of the ego car?", "who are we"):
        reply = Asker(model).ask(view, question)
        (same,) = [rival for rival in reply.rivals if rival.text == reply.answer.text]
        assert same.confidence == pytest.approx(reply.answer.confidence, abs=2e-3)


def test_a_picture_stays_encoded_between_questions(views):
    model = StubModel()
    asker = Asker(OwnModel(model))
    assert asker.ask(views[0], "What track is this?").encoding > 0
    assert asker.ask(views[0], "What kart is the ego car?").encoding == 0
    assert model.encoded == 1
    for other in views[1 : ENCODED_PICTURES + 1]:
        asker.ask(other, "What track is this?")
    asker.ask(views[0], "What track is this?")
    assert model.encoded == ENCODED_PICTURES + 2, "the oldest had to make room"


def test_a_wording_of_no_known_kind_is_answered_without_rivals(view):
    reply = Asker(OwnModel(StubModel())).ask(view, "Who will win?")
    assert (reply.understood, reply.rivals, reply.label.answer) == (Understood(OTHER), (), "")
    assert "no known kind" in reply.label.reason


def test_what_cannot_be_asked_says_what_to_do(view):
    with pytest.raises(AskError, match="No model is loaded.*run_all.sh explore"):
        Asker(None).ask(view, "What track is this?")
    with pytest.raises(AskError, match="There is no question yet"):
        Asker(OwnModel(StubModel())).ask(view, " \n")
    with pytest.raises(AskError, match="has 1,003 characters; shorten it to at most 1,000"):
        Asker(OwnModel(StubModel())).ask(view, "x y " * 250 + "end")


def test_two_questions_in_one_are_refused_by_name(view):
    with pytest.raises(AskError, match="2 questions; ask one at a time: What track is this / who are we"):
        Asker(OwnModel(StubModel())).ask(view, "What track is this? who are we")


def test_a_model_is_loaded_at_the_first_question_and_its_failure_told(view):
    loaded = []
    asker = Asker(OwnModel(lambda: loaded.append(1) or StubModel()))
    assert asker.has_model and not asker.is_loaded and not loaded
    asker.ask(view, "What track is this?")
    asker.ask(view, "What track is this?")
    assert asker.is_loaded and loaded == [1]

    def fail():
        raise ValueError("adapter/: made on another base")

    broken = Asker(OwnModel(fail))
    for _ in range(2):
        with pytest.raises(AskError, match="cannot be loaded. adapter/: made on another base"):
            broken.ask(view, "What track is this?")


def test_a_picture_that_is_gone_is_told(tmp_path):
    gone = View(Frame(tmp_path, "all", "00000", "abyss", (), "r"), 0, ())
    with pytest.raises(AskError, match="The model could not answer. .*00000_00_im.jpg"):
        Asker(OwnModel(StubModel())).ask(gone, "What track is this?")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_suggestion_is_a_question_of_its_kind_with_a_label_or_a_reason(views, family):
    asked = 0
    for view in views[:40]:
        for question in suggestions(view, family):
            label = label_of(view, understand(question))
            assert bool(label.answer) != bool(label.reason)
            assert not label.answer or label.answer in FAMILIES[family].said
            asked += 1
    assert asked


def test_labels_are_those_of_the_course_rule_and_never_about_karts_out_of_view(tmp_path):
    frame = Frame(tmp_path, "all", "00000", "abyss", ("tux", "gnu", "kiki"), "r")
    view = View(frame, 0, (Detection(1, 0, (280, 180, 360, 260)), Detection(1, 1, (100, 100, 140, 140))))
    label = label_of(view, understand("Where is gnu relative to the ego car?"))
    assert (label.answer, label.rules) == ("front and left", "course")
    for kart in ("kiki", "amanda"):
        assert label_of(view, understand(f"Where is {kart} relative to the ego car?")).reason == Reason.ABSENT
    assert label_of(view, understand("Where is tux relative to the ego car?")).reason == Reason.ITSELF
    assert label_of(view, understand("Is kiki in view?")).answer == "no"
    assert suggestions(View(frame, 0, ()), "ego") == []


def test_a_question_is_understood_with_its_kind_and_karts():
    asked = understand("on which side of the ego car is Tux,  left or right")
    assert (asked.family, asked.karts, asked.is_known) == ("left_right", ("tux",), True)
    assert asked.question == "Is tux to the left or right of the ego car?"
    assert understand("Is tux left of gnu?").karts == ("tux", "gnu")
    unread = understand("Who will win?")
    assert (unread.is_known, unread.question) == (False, "")


def test_answers_of_any_kind_and_unknown_are_known():
    assert all(map(families_with, ("front and left", "Tux", "7"))) and families_with("unknown") == list(FAMILIES)
    assert not families_with("a kart") and is_unknown(" Unknown") and not is_unknown("")


def test_other_words_are_understood_as_the_model_reads_them(view):
    model, ego = StubModel(), read_scene(view).ego.name
    model.reads["whom does the picture follow"], model.says["whom does the picture follow"] = ("ego", ()), "kiki"
    reply = Asker(OwnModel(model)).ask(view, "whom does the picture follow")
    assert reply.understood == Understood("ego", by_model=True) and reply.label.answer == ego
    assert {rival.text for rival in reply.rivals} == set(FAMILIES["ego"].answers)
    assert Asker(OwnModel(model)).ask(view, "Who will win?").understood == Understood(OTHER)


def test_what_is_understood_and_the_answer_to_it_are_of_one_kind(view):
    """A model reads and answers in two texts, which need not agree; what it answered is kept."""
    model, question = StubModel(), "which one stays behind tux in that place"
    model.reads[question] = ("track", ())
    for said, family, karts in (
        ("abyss", "track", ()),
        ("kiki", families_with("kiki")[0], ()),
        ("back and left", "where", ("tux",)),
        ("unknown", "track", ()),
        ("nonsense", OTHER, ()),
    ):
        model.says[question] = said
        reply = Asker(OwnModel(model)).ask(view, question)
        assert (reply.answer.text, reply.understood.family, reply.understood.karts) == (said, family, karts)
        assert said in ("unknown", "nonsense") or said in {rival.text for rival in reply.rivals}


@pytest.mark.parametrize(
    ("adapter", "said", "unsaid"),
    [
        (ROOT / "models" / "course_adapter", "picture.jpg: picture cannot be decoded .*; name another", "SKIP_BROKEN"),
        (ROOT / "models", "models: no adapter there; make one .*, or name another run or the folder", "ADAPTER_DIR"),
        ("nothing", "nothing: no such run", "ADAPTER_DIR"),
    ],
)
def test_the_command_takes_several_words_and_names_what_helps_there(
    capsys, monkeypatch, tmp_path, adapter, said, unsaid
):
    monkeypatch.setitem(sys.modules, "stkvlm_lib.vlm.adapter", None)  # what takes seconds is not imported for that
    (tmp_path / "picture.jpg").write_text("no picture")
    words = ["ask", str(tmp_path / "picture.jpg"), "what", "kart", "is", "it", "--adapter", str(adapter)]
    assert cli.main(words) == 2
    told = capsys.readouterr().err
    assert re.search(said, told) and unsaid not in told


KNOWN = Understood("left_right", ("tux",), by_model=True)


@pytest.mark.parametrize(
    ("understood", "given", "rivals", "lines"),
    [
        (
            KNOWN,
            Answer("left", 0.97),
            [Answer("left", 0.97), Answer("right", 0.03)],
            ["left  (confidence 97%)", "understood as: Is tux to the left or right of the ego car?", "or: right 3%"],
        ),
        (
            KNOWN,
            Answer("left", 1.0),
            [Answer("left", 1.0), Answer("right", 0.001)],
            ["left  (confidence 100%)", "understood as: Is tux to the left or right of the ego car?"],
        ),
        (KNOWN, Answer("Unknown", 0.9), [Answer("left", 0.1)], [f"Unknown: {UNKNOWN_MEANS}"]),
        (
            Understood(OTHER),
            Answer("abyss", 0.99),
            [],
            ["abyss  (a guess: the question is of no kind that this model was made for)"],
        ),
    ],
)
def test_an_answer_in_a_terminal_has_a_percentage_only_where_it_means_something(understood, given, rivals, lines):
    assert in_lines(understood, given, rivals) == lines


def test_unknown_says_why_where_a_rule_reads_the_question():
    read = understand("Which colour does the ego car have?")
    assert in_lines(read, Answer("unknown", 0.9), []) == [f"unknown: {NOT_SEEN}"]
    assert unknown_means(Understood(OTHER)) == unknown_means(KNOWN) == UNKNOWN_MEANS


def test_a_picture_of_ones_own_that_is_most_likely_none_of_the_game_is_told(view, tmp_path):
    model, content = StubModel(), io.BytesIO()
    Image.new("RGB", (30, 20), "white").save(content, "PNG")
    (tmp_path / OWN).mkdir()
    own = own_view("mine.png", content.getvalue(), tmp_path)
    asker = Asker(OwnModel(model))
    assert not asker.ask(own, "Who will win?").strange
    model.says.update(dict.fromkeys(SIGHTS, "abyss"))  # 0.6 x 0.6
    strange = asker.ask(own, "Who will win?")
    assert strange.strange and STRANGE in reply_html(strange)
    assert not asker.ask(view, "Who will win?").strange  # known to be of the game
    put_so = put(model, model.encode([own.image()]), "Who will win?")
    assert in_lines(*put_so)[-1] == STRANGE and STRANGE not in in_lines(*put_so[:3])


def test_a_picture_of_ones_own_can_be_asked_everything_of_every_kart(tmp_path):
    own = View(Frame(tmp_path, OWN, "00000", "", (), OWN), 0, ())
    assert suggestions(own, "track") == ["What track is this?"]
    assert len(suggestions(own, "where")) == len(KARTS)
    for family in FAMILIES:
        assert all(understand(question).family == family for question in suggestions(own, family))
