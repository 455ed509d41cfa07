"""The explorer's widget, driven without a browser, and what it says as HTML."""

import io
import json
import re
import threading
from dataclasses import replace

import numpy as np
import pytest
from explored import some_answers, some_records
from PIL import Image
from stub_model import StubModel

from stkvlm_lib.data.frames import Detection, Frame, View
from stkvlm_lib.explore import ask_panel
from stkvlm_lib.explore.asking import NO_MODEL
from stkvlm_lib.explore.explorer import explore
from stkvlm_lib.explore.filters import IN_FILE_ORDER, SUREST_MISTAKES, Given
from stkvlm_lib.explore.label_panel import NO_MARKS
from stkvlm_lib.explore.links import Place, read_query
from stkvlm_lib.explore.markup import detections_html, questions_html, reply_html, share
from stkvlm_lib.explore.pictures import PICTURE_WIDTH, picture_png
from stkvlm_lib.explore.state import NOTHING_LEFT, ExplorerState
from stkvlm_lib.explore.understanding import UNKNOWN_MEANS
from stkvlm_lib.figures.drawing import TOO_SMALL, enlarged
from stkvlm_lib.grammar.names import KARTS
from stkvlm_lib.grammar.scene import read_scene
from stkvlm_lib.qa.label_check import MARKS_FILE, read_marks
from stkvlm_lib.vlm.answering import Answer


@pytest.fixture(scope="module")
def records(bundled):
    return some_records(bundled)


@pytest.fixture(scope="module")
def predictions(records):
    return some_answers(records)


@pytest.fixture
def state(bundled, records, predictions):
    return ExplorerState(bundled, records, predictions)


@pytest.fixture
def widget(bundled, records, predictions, tmp_path):
    return explore(bundled, records, predictions, StubModel(), tmp_path / "qa" / "marks.jsonl")


def with_others(widget):
    """Go to a view with several karts."""
    while len(read_scene(widget.state.view).karts) < 3:
        widget.buttons["next"].click()
    return widget.state.view


def test_it_starts_at_the_predictions_and_follows_its_buttons(widget):
    assert widget.filters["split"].value == "test" and len(widget.state) == 20
    before = widget.picture.value
    widget.buttons["next"].click()
    assert "View 2 of 20" in widget.place.value and widget.picture.value != before
    widget.buttons["previous"].click()
    assert widget.picture.value == before
    widget.buttons["random"].click()
    assert widget.state.index != 0
    assert all(row.record.question in widget.questions.value for row in widget.state.rows())
    assert widget.state.view.frame.track in widget.description.value
    assert widget.keyboard.alt == widget.state.description()


def test_predictions_may_be_missing(bundled, records):
    widget = explore(bundled, records)
    assert len(widget.state) == 40
    assert set(widget.filters) == {"split", "track", "kart", "family", "size"}
    assert "label" in widget.questions.value and "sure" not in widget.questions.value


def test_keys_and_clicks_that_the_browser_reports(widget):
    for action, place in (("next", "View 2 of"), ("next", "View 3 of"), ("previous", "View 2 of")):
        widget.on_action({"action": action})
        assert place in widget.place.value
    widget.on_action({"action": "random"})
    assert "View 2 of" not in widget.place.value
    widget.on_action({"action": "overlay"})
    assert widget.overlay.value is False
    widget.on_action({"action": "ask"})
    assert widget.tabs.children[widget.tabs.selected_index] is widget.ask
    widget.on_action({"action": "unknown"})


def test_going_to_a_number_or_a_picture(widget):
    widget.goto.value = "7"
    assert widget.state.index == 6 and widget.goto.value == ""
    name = widget.state.view.image_file
    widget.buttons["next"].click()
    widget.goto.value = name
    assert widget.state.view.image_file == name
    widget.goto.value = "nowhere"
    assert "no such number or picture" in widget.place.value and widget.state.view.image_file == name


def test_it_opens_at_a_picture_with_a_question(bundled, records, predictions):
    valid = next(r for r in records if r.split == "valid" and r.family == "track")
    widget = explore(bundled, records, predictions, StubModel())
    widget.go_to(valid.image_file, valid.question)
    assert widget.state.view.image_file == valid.image_file and widget.filters["split"].value == "valid"
    assert widget.ask.question.value == widget.labels.record.question == valid.question
    assert widget.ask.reply is None, "it is not asked before the reader wants it"
    assert widget.tabs.children[widget.tabs.selected_index] is widget.ask
    assert "aria-current='true'" in widget.questions.value
    assert read_query(widget.keyboard.query) == Place(valid.image_file, valid.question)
    with pytest.raises(ValueError, match="“nowhere”: no such picture"):
        widget.go_to("nowhere")


def test_mistakes_can_come_first_where_there_are_answers(bundled, records, predictions):
    widget = explore(bundled, records, predictions)
    widget.order.value = SUREST_MISTAKES
    assert widget.state.rows()[0].correct is False and "View 1 of 20" in widget.place.value
    filters = widget.children[1]
    assert widget.order in filters.children
    unanswered = explore(bundled, records)
    assert unanswered.order not in unanswered.children[1].children


def test_the_picture_can_be_made_large(widget):
    for shown in (True, False):
        widget.on_action({"action": "large"})
        assert widget.large.value is shown and ("stk-large" in widget._dom_classes) is shown


def test_every_action_is_acknowledged_also_one_that_fails(widget):
    widget._hear({"action": "next"})
    with pytest.raises(KeyError):
        widget._hear({"action": "choose"})
    assert widget.keyboard.done == 2


def test_filters_show_their_counts_and_say_when_nothing_is_left(widget, predictions):
    wrong = sum(not p.correct for p in predictions)
    assert (f"wrong ({wrong:,})", "wrong") in widget.filters["outcome"].options
    widget.filters["outcome"].value = "wrong"
    assert ("valid (0)", "valid") in widget.filters["split"].options
    widget.filters["split"].value = "valid"
    assert NOTHING_LEFT in widget.place.value and NOTHING_LEFT in widget.questions.value
    assert widget.left.layout.visibility == "hidden" and widget.description.value == ""
    assert all(button.disabled for button in widget.buttons.values())
    widget.order.value = SUREST_MISTAKES
    widget.reset.click()
    assert {name: box.value for name, box in widget.filters.items() if box.value} == {"split": "test"}
    assert widget.order.value == widget.state.order == IN_FILE_ORDER, "as it began"
    assert "View 1 of 20" in widget.place.value and widget.left.layout.visibility == "visible"


def test_a_step_sends_nothing_about_filters(widget):
    sent = []
    for box in widget.filters.values():
        box.observe(lambda change: sent.append(change.name))
    widget.buttons["next"].click()
    assert sent == []


def test_the_overlay_has_a_switch_and_its_parts_have_theirs(widget):
    with_others(widget)
    marked = widget.picture.value
    widget.details["zones"].value = False
    without_zones = widget.picture.value
    widget.details["limit"].value = True
    limited = widget.picture.value
    widget.overlay.value = False
    assert len({marked, without_zones, limited, widget.picture.value}) == 4
    assert widget.legend.value == "" and all(box.disabled for box in widget.details.values())
    with Image.open(io.BytesIO(widget.picture.value)) as plain:
        assert np.array_equal(np.asarray(plain), np.asarray(enlarged(widget.state.view, PICTURE_WIDTH)))


def test_visible_shares_are_written_where_the_frames_have_them(state):
    assert any(d.visible is not None for d in state.view.detections)
    assert picture_png(state, details=["shares"]) != picture_png(state)


def test_asking_shows_answer_label_rivals_and_time(widget):
    widget.ask.fill("What kart is the ego car?")
    widget.ask.ask()
    said = widget.ask.answer.value
    assert widget.ask.reply.answer.text in said and "the label says" in said and "any other text" in said
    assert "18 answers of the kind “ego”" in said and "stays encoded" in said
    widget.ask.ask()
    assert "the picture was encoded before" in widget.ask.answer.value
    widget.buttons["next"].click()
    assert widget.ask.reply is None and "press Enter" in widget.ask.answer.value
    assert widget.ask.question.value == "What kart is the ego car?", "the question stays for the next view"


@pytest.mark.parametrize(
    ("question", "kind"),
    [("what's our kart called?", "ego"), ("Who will win?", ""), ("how many cars are we ahead of", "count_behind")],
)
def test_a_question_in_own_words_is_what_every_field_and_the_address_show(widget, question, kind):
    view = with_others(widget)
    widget.ask.kind.value = "where"
    widget.on_action({"action": "submit", "question": question})
    assert (widget.ask.kind.value, widget.ask.about.value) == (kind, ""), "it stands in no list"
    assert len(widget.ask.about.options) == (2 if kind else 1) and widget.ask.reply.question == question
    assert read_query(widget.keyboard.query) == Place(view.image_file, question)
    assert "aria-current" not in widget.questions.value
    widget.ask.question.value = question  # the field tells a little later what it holds
    widget.buttons["next"].click()
    assert widget.ask.question.value == question, "and stays for the next picture"
    assert read_query(widget.keyboard.query) == Place(widget.state.view.image_file, "")
    widget.on_action({"action": "submit", "question": "What track is this?"})
    assert widget.ask.about.value == widget.labels.record.question == "What track is this?"
    assert "aria-current" in widget.questions.value


def test_picking_a_kind_asks_its_first_question_of_this_view(widget):
    view = with_others(widget)
    others = [kart.name for kart in read_scene(view).others]
    widget.ask.kind.value = "where"
    assert [value for _, value in widget.ask.about.options][1:] == [
        f"Where is {name} relative to the ego car?" for name in others
    ]
    assert widget.ask.reply.question == f"Where is {others[0]} relative to the ego car?"
    widget.ask.about.value = f"Where is {others[1]} relative to the ego car?"
    assert widget.ask.reply.question == widget.ask.question.value == widget.ask.about.value
    asked = widget.ask.question.value
    widget.buttons["next"].click()
    offered = [value for _, value in widget.ask.about.options]
    assert (widget.ask.question.value in offered) or (len(offered) == 1 and widget.ask.question.value == asked)


def test_a_question_chosen_in_the_table_is_asked_and_can_be_marked(widget):
    row = widget.state.rows()[-1]
    widget.on_action({"action": "choose", "question": row.record.question})
    assert widget.tabs.children[widget.tabs.selected_index] is widget.ask
    assert widget.ask.reply.question == row.record.question and widget.ask.kind.value == row.record.family
    assert widget.labels.record.question == row.record.question


def test_an_unknown_wording_is_answered_with_a_word_of_caution(widget):
    widget.ask.put("Who will <b>win</b>?")
    said = widget.ask.answer.value
    assert "Who will &lt;b&gt;win" in said and "Not understood as a question" in said
    assert "A guess" in said and "%" not in said
    assert widget.ask.kind.value == ""


def test_what_is_asked_is_the_text_that_came_with_the_event(widget):
    """The field's own updates are queued: when Enter comes it may hold a part of what was typed."""
    widget.ask.question.value = "What tr"
    widget.on_action({"action": "submit", "question": "What track is this?"})
    assert widget.tabs.children[widget.tabs.selected_index] is widget.ask
    assert widget.ask.reply.question == "What track is this?"
    assert "<b>What track is this?</b>" in widget.ask.answer.value


@pytest.mark.parametrize(
    ("question", "answer", "said", "is_sure"),
    [
        ("Is tux on the left or the right side?", "left", "<b>left</b>", False),
        ("Is tux on the left or the right side?", "lef", "A guess", False),
        ("What colour is the sky?", "unknown", f"unknown: {UNKNOWN_MEANS}", False),
        ("Is tux to the left or right of the ego car?", "left", "of the kind “left_right” about tux.", True),
        ("is tux left of gnu", "yes", "about tux and gnu: Is ", True),
        ("how many cars are we ahead of", "2", "of the kind “count_behind”: How many karts are behind the ", True),
    ],
)
def test_how_sure_is_told_where_it_means_something(widget, question, answer, said, is_sure):
    reply = replace(widget.ask.asker.ask(widget.state.view, question), answer=Answer(answer, 0.83))
    shown = reply_html(reply)
    assert said in shown and ("83% sure" in shown) is is_sure and "{" not in shown
    assert ("likeliest first" in shown) is reply.understood.is_known


def test_questions_asked_before_can_be_asked_again(widget):
    assert widget.ask.before.layout.display == "none"
    for question in ("What track is this?", "Who wins?", "What track is this?"):
        widget.ask.ask(question)
    assert [value for _, value in widget.ask.before.options[1:]] == ["What track is this?", "Who wins?"]
    widget.buttons["next"].click()
    widget.ask.before.value = "Who wins?"
    assert widget.ask.reply.question == widget.ask.question.value == "Who wins?"
    assert widget.ask.before.layout.display is None and widget.ask.before.value == ""


def test_the_browsers_back_opens_the_picture_before(widget):
    first, second = (widget.state.view.image_file, widget.buttons["next"].click() or widget.state.view.image_file)
    widget.on_action({"action": "open", "picture": first, "question": ""})
    assert widget.state.view.image_file == first and read_query(widget.keyboard.query) == Place(first, "")
    widget.on_action({"action": "open", "picture": second, "question": "What track is this?"})
    assert widget.state.view.image_file == second and widget.ask.question.value == "What track is this?"
    widget.on_action({"action": "open", "picture": "nowhere", "question": ""})
    assert "no such picture" in widget.place.value
    widget.on_action({"action": "open", "picture": "", "question": ""})
    assert "View 1 of" in widget.place.value


def test_the_questions_can_be_searched_and_sorted(widget):
    rows = widget.state.rows()
    widget.search.value = "TRACK"
    assert "What track is this?" in widget.questions.value and f"of {len(rows)} questions" in widget.questions.value
    assert "What kart is the ego car?" not in widget.questions.value
    widget.search.value = "nothing like it"
    assert "nothing like it" in widget.questions.value and "<table" not in widget.questions.value
    widget.search.value, widget.sort.value = "", "by question"
    asked = re.findall(r'data-question="([^"]+)"', widget.questions.value)
    assert asked == sorted(row.record.question for row in rows)
    assert widget.questions.value.count("tabindex='0'") == 1, "one stop of the Tab key"


def test_what_is_filtered_and_what_is_marked_can_be_saved(widget, monkeypatch, predictions):
    sent = []
    monkeypatch.setattr(widget.keyboard, "send", lambda content, buffers: sent.append((content["file"], buffers[0])))
    assert widget.exports[MARKS_FILE].disabled
    widget.labels.buttons["wrong"].click()
    widget.filters["outcome"].value = "wrong"
    for button in widget.exports.values():
        button.click()
    (questions, rows), (marks, made) = [(name, list(map(json.loads, text.splitlines()))) for name, text in sent]
    assert (questions, marks) == ("questions.jsonl", MARKS_FILE)
    wrong = [(p.image_file, p.question, p.prediction) for p in predictions if not p.correct]
    assert sorted((row["image_file"], row["question"], row["prediction"]) for row in rows) == sorted(wrong)
    assert [row["verdict"] for row in made] == ["wrong"]


def test_without_a_model_asking_says_so(bundled, records):
    widget = explore(bundled, records)
    widget.ask.put("What track is this?")
    assert NO_MODEL in widget.ask.answer.value
    assert widget.ask.explain.layout.display == "none", "there is no answer to explain"


def test_a_map_is_made_in_a_thread_drawn_and_removed(widget):
    widget.ask.put("What track is this?")
    plain = widget.picture.value
    widget.ask.explain.click()
    widget.ask.job and widget.ask.job.join(60)
    assert widget.ask.map.answer == widget.ask.reply.answer.text and len(widget.ask.map.patches) == 96
    assert "patch" in widget.ask.told.value and widget.picture.value != plain
    assert "framed" in widget.legend.value and widget.details["zones"].disabled
    widget.ask.hide.click()
    assert widget.picture.value == plain and widget.ask.told.value == ""


def test_a_map_can_be_cancelled_and_a_step_cancels_it(widget, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def slow(*_, cancelled, **__):
        begun.set()
        go_on.wait(30)
        assert cancelled()

    monkeypatch.setattr(ask_panel, "occlude", slow)
    for end, said in ((widget.ask.cancel.click, "Cancelled."), (widget.buttons["next"].click, "")):
        widget.ask.put("What track is this?")
        begun.clear(), go_on.clear()
        widget.ask.explain.click()
        job = widget.ask.job
        assert begun.wait(30) and widget.ask.cancel.layout.display is None
        end()
        go_on.set()
        job.join(30)
        assert widget.ask.map is None and widget.ask.job is None and said in widget.ask.told.value
        assert widget.ask.progress.layout.display == widget.ask.cancel.layout.display == "none"


def test_a_map_that_fails_says_so(widget, monkeypatch):
    monkeypatch.setattr(ask_panel, "occlude", lambda *_, **__: 1 / 0)
    widget.ask.put("What track is this?")
    widget.ask.explain.click()
    widget.ask.job and widget.ask.job.join(30)
    assert "ZeroDivisionError" in widget.ask.told.value and widget.ask.explain.layout.display is None


def test_a_mark_is_in_the_file_when_it_is_shown(widget, bundled, records, predictions):
    labels, record = widget.labels, widget.state.rows()[0].record
    assert "No label is marked yet" in labels.status.value and record.answer in labels.label.value
    labels.note.value = " it is a gnu "
    labels.buttons["wrong"].click()
    (made,) = read_marks(labels.path)
    assert (made.key, made.verdict, made.note) == (
        (record.image_file, record.question, record.answer),
        "wrong",
        "it is a gnu",
    )
    assert labels.note.value == "" and "1 marked, 1 of them wrong" in labels.status.value
    assert "marked wrong" in widget.questions.value and "it is a gnu" in labels.label.value
    labels.buttons["right"].click()
    assert "1 marked, 0 of them wrong" in labels.status.value
    again = explore(bundled, records, predictions, marks=labels.path)
    assert "marked right" in again.questions.value


def test_a_mark_can_be_removed_and_another_page_learns_of_marks(widget, bundled, records, predictions):
    other = explore(bundled, records, predictions, marks=widget.labels.path)
    remove = widget.labels.buttons["withdrawn"]
    assert remove.layout.display == "none", "there is none yet"
    widget.labels.buttons["wrong"].click()
    assert remove.layout.display is None
    other.buttons["next"].click()
    assert "1 marked, 1 of them wrong" in other.labels.status.value
    remove.click()
    assert read_marks(widget.labels.path) == [] and "No label is marked yet" in widget.labels.status.value
    assert "marked wrong" not in widget.questions.value and remove.layout.display == "none"
    other.buttons["previous"].click()
    assert "No label is marked yet" in other.labels.status.value and "marked wrong" not in other.questions.value


def test_a_mark_on_a_run_that_is_gone_is_told(bundled, records, tmp_path):
    widget = explore(bundled, records, marks=tmp_path / "run" / "qa" / "marks.jsonl")
    widget.labels.buttons["wrong"].click()
    assert "marks.jsonl: the mark could not be written (No such file" in widget.labels.status.value
    assert not widget.labels.marks


def test_marks_without_a_file_or_with_a_broken_one(bundled, records, tmp_path):
    widget = explore(bundled, records)
    assert NO_MARKS in widget.labels.status.value and all(b.disabled for b in widget.labels.buttons.values())
    broken = tmp_path / "marks.jsonl"
    broken.write_text('{"image_file": "a"}\n')
    widget = explore(bundled, records, marks=broken)
    assert "cannot be read" in widget.labels.status.value and "line 1" in widget.labels.status.value
    assert all(button.disabled for button in widget.labels.buttons.values())
    assert broken.read_text() == '{"image_file": "a"}\n'


def test_what_comes_from_data_is_escaped(bundled, records):
    first = replace(records[0], question='Is <b>"tux"</b> & co. there?')
    given = Given(first.image_file, first.question, "<i>", False, 0.25)
    shown = questions_html(ExplorerState(bundled, [first], [given]))
    assert "Is &lt;b&gt;&#34;tux&#34;&lt;/b&gt; &amp; co. there?" in shown and "<b>&#34;" not in shown
    assert "&lt;i&gt;" in shown and "✗ wrong" in shown and "25%" in shown


def test_detections_are_told_as_the_file_has_them(tmp_path):
    """tux is the ego kart, gnu in front and left of it, kiki too small, and a bomb lies about."""
    frame = Frame(tmp_path, "all", "00000", "abyss", ("tux", "<gnu>", "kiki"), "r")
    detections = (
        Detection(1, 1, (100, 100, 140, 140), 0.5, 900, 12.25),
        Detection(1, 2, (300, 0, 312, 12), 1.0, 40, 60.0),
        Detection(1, 0, (280, 180, 360, 260), 1.0, 5000, 4.0),
        Detection(6, 3, (0, 0, 50, 50)),
    )
    shown = detections_html(View(frame, 0, detections))
    rows = [re.sub(r"\s*<[^>]+>\s*", "|", row) for row in re.findall("<tr>.*?</tr>", shown, re.S)]
    assert [re.sub(r"\|+", "|", row).strip("|").split("|") for row in rows[1:]] == [
        ["&lt;gnu&gt;", "front and left", "100 100 140 140", "10×10", "50%", "900", "12.2 m"],
        ["kiki", TOO_SMALL, "300 0 312 12", "3×3", "100%", "40", "60.0 m"],
        ["tux", "ego", "280 180 360 260", "20×20", "100%", "5,000", "4.0 m"],
        ["bomb", "0 0 50 50", "12×12", "–", "–", "–"],
    ]
    assert "4 detections" in shown and "no detections" in detections_html(None)


def test_the_label_stands_out_among_the_rivals_whatever_its_rank(widget):
    label = read_scene(with_others(widget)).ego.name
    names = [label, *(name for name in KARTS if name != label)]
    reply = widget.ask.asker.ask(widget.state.view, "What kart is the ego car?")
    for rank in (1, 9):
        order = [*names[1:rank], label, *names[rank:]]
        rivals = tuple(Answer(name, 0.5 / number) for number, name in enumerate(order, 1))
        shown = reply_html(replace(reply, rivals=rivals))
        assert f"<td>{rank}</td><td>{label} <small>the label</small></td>" in shown
        assert shown.count("the label</small>") == 1 and f"{len(names) - (6 if rank < 7 else 7)} more" in shown


def test_rivals_that_are_next_to_impossible_are_told_together(widget):
    reply = widget.ask.asker.ask(with_others(widget), "What track is this?")
    rivals = tuple(Answer(f"place {number}", 0.9 / 10**number) for number in range(6))
    shown = reply_html(replace(reply, rivals=rivals))
    assert [f"place {number}" in shown for number in range(6)] == [True] * 3 + [False] * 3 and "3 more" in shown


@pytest.mark.parametrize(("value", "said"), [(1, "100%"), (0.0123, "1%"), (0.004, "0.4%"), (0.0001, "0%")])
def test_small_shares_keep_a_digit(value, said):
    assert share(value) == said
