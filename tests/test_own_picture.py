"""A picture of the reader's own in the explorer."""

import io

import pytest
from PIL import Image
from stub_model import StubModel

from stkvlm_lib.explore.explorer import explore
from stkvlm_lib.explore.own_picture import LARGEST, is_own, own_view, shape_told
from stkvlm_lib.qa.qa_sets import make_records


def content_of(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def white():
    return content_of(Image.new("RGB", (300, 200), "white"))


@pytest.fixture
def widget(bundled):
    names = {view.image_file for view in bundled.views("valid")[:3]}
    return explore(bundled, [r for r in make_records(bundled, "valid") if r.image_file in names], model=StubModel())


def test_any_picture_file_becomes_a_view(white, tmp_path):
    view = own_view("mine.png", white, tmp_path)
    assert is_own(view) and view.image().size == (300, 200) and not is_own(None)
    with pytest.raises(ValueError, match="“notes.txt”: .*of no kind that is read.*; take another file, best JPEG"):
        own_view("notes.txt", b"no picture", tmp_path)
    with pytest.raises(ValueError, match="“vast.png”: .*8,000 x 8,000 px, over the limit of 50,000,000"):
        own_view("vast.png", content_of(Image.new("1", (8000, 8000))), tmp_path)
    with pytest.raises(ValueError, match="“big.png” has 8.0 MB; at most 8 MB"):
        own_view("big.png", b"x" * (LARGEST + 1), tmp_path)


def test_it_is_shown_and_asked_about_and_left_by_a_step(widget, white):
    before, done = widget.picture.value, widget.keyboard.done
    widget._hear({"action": "own", "name": "mine.png"}, [memoryview(white)])
    assert widget.keyboard.done == done + 1 and widget.picture.value != before
    assert "Your own picture" in widget.place.value and "nothing is known" in widget.description.value
    assert "no questions about this picture" in widget.questions.value and widget.keyboard.query == ""
    assert widget.tabs.children[widget.tabs.selected_index] is widget.ask
    widget.ask.ask("What track is this?")
    assert widget.ask.reply.answer.text == "seen" and "takes it for one of the game" in widget.ask.answer.value
    widget.buttons["next"].click()
    assert widget.state.own is None and "View 2 of 3" in widget.place.value and widget.ask.reply is None


@pytest.mark.parametrize(
    ("size", "told"), [((300, 200), ""), ((640, 400), ""), ((640, 480), "640 x 480 px"), ((400, 700), "3 to 2")]
)
def test_a_picture_of_other_proportions_is_told_to_be_pressed_into_those_of_the_game(widget, size, told):
    assert told in shape_told(*size) and bool(told) == bool(shape_told(*size))
    widget._hear({"action": "own", "name": "mine.png"}, [content_of(Image.new("RGB", size))])
    assert told in widget.place.value and ("Crop it" in widget.place.value) == bool(told)


def test_what_is_no_picture_is_told_and_changes_nothing(widget):
    before = widget.picture.value
    widget._hear({"action": "own", "name": "<b>notes.txt"}, [b"text"])
    assert "of no kind that is read" in widget.place.value and "<b>notes" not in widget.place.value
    assert widget.picture.value == before and widget.state.own is None
