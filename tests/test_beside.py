"""Two answers beside each other in the explorer: of two runs, or of a run and its base; filtered, shown, asked."""

import json
import re

import pytest
from run_folder import make_run
from stub_model import StubModel

from stkvlm_lib import __main__ as cli
from stkvlm_lib import runs
from stkvlm_lib.config import BASE, ConfigError, ExplorerConfig
from stkvlm_lib.explore import page
from stkvlm_lib.explore.asking import BASE_ALONE, Asker, Beside, base_alone, by_question
from stkvlm_lib.explore.explorer import explore
from stkvlm_lib.explore.filters import DIFFERENT, ONLY_FIRST, ONLY_SECOND, SAME, Given, compared
from stkvlm_lib.explore.markup import reply_html
from stkvlm_lib.explore.models import AskError, OwnModel
from stkvlm_lib.explore.run import explore_run

QUESTION = "What track is this?"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two runs on the same questions: of 0 to 4 the second has the other verdict."""
    outputs = tmp_path_factory.mktemp("pair")
    first, second = (make_run(outputs / name, adapter=False) for name in ("a-run", "b-run"))
    rows = [json.loads(line) for line in (second / "predictions.jsonl").read_text().splitlines()]
    for row in rows[:5]:
        wrong = {"prediction": "<i>", "correct": False}
        row |= wrong if row["correct"] else {"prediction": row["answer"].upper(), "correct": True}
    (second / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return first, second


def test_what_can_be_said_of_two_answers():
    def given(text, correct):
        return Given("a", "q", text, correct, 0.5)

    assert compared(given("tux", True), given(" Tux", True)) == [SAME]
    assert compared(given("gnu", False), given("kiki", False)) == [DIFFERENT]
    assert compared(given("tux", True), given("gnu", False)) == [DIFFERENT, ONLY_FIRST]
    assert compared(given("gnu", False), given("tux", True)) == [DIFFERENT, ONLY_SECOND]
    assert compared(None, given("tux", True)) == compared(given("tux", True), None) == []


def test_two_runs_stand_beside_each_other_and_are_filtered(pair):
    first, second = pair
    widget = explore_run(ExplorerConfig(run_dir=str(first), compare_run=str(second)))
    counts = widget.state.counts("beside")
    assert (counts[DIFFERENT], counts[ONLY_FIRST] + counts[ONLY_SECOND]) == (5, 5) and counts[ONLY_SECOND] == 2
    assert counts[SAME] + counts[DIFFERENT] == len(widget.state._predictions)
    widget.filters["beside"].value = ONLY_FIRST
    assert widget.state.n_questions == 3 and "<th scope='col'>b-run</th>" in widget.questions.value
    assert "&lt;i&gt;" in widget.questions.value and "<i>" not in widget.questions.value
    widget.search.value = "<I>"
    assert "of" in widget.questions.value and "&lt;i&gt;" in widget.questions.value, "searched in both"
    sent = []
    widget.keyboard.send = lambda content, buffers: sent.extend(map(json.loads, buffers[0].splitlines()))
    widget.exports["questions.jsonl"].click()
    assert [(row["correct"], row["other_correct"], row["other_prediction"]) for row in sent] == 3 * [
        (True, False, "<i>")
    ]


def test_without_another_there_is_no_such_filter_and_no_such_column(pair):
    widget = explore_run(ExplorerConfig(run_dir=str(pair[0])))
    assert "beside" not in widget.filters and "b-run" not in widget.questions.value
    assert widget.ask.beside.layout.display == "none", "no model, nothing to ask beside it"


def test_the_base_stands_beside_the_run_whose_answers_were_recorded(pair):
    answers = [Given("a", "q", "tux", True, 0.9, "gnu", False), Given("b", "q", "tux", True, 0.9)]
    beside = base_alone(answers, None)
    assert beside.name == BASE_ALONE and list(beside.answers) == [("a", "q")]
    assert (beside.answers["a", "q"].prediction, beside.answers["a", "q"].correct) == ("gnu", False)
    widget = explore_run(ExplorerConfig(run_dir=str(pair[0]), compare_run=BASE))
    assert "beside" not in widget.filters and BASE_ALONE not in widget.questions.value, "none recorded"


@pytest.mark.parametrize(("name", "said"), [("absent", "absent: no such run"), ("same", "is the run that is looked")])
def test_another_run_must_be_there_and_another(pair, name, said):
    other = str(pair[0]) if name == "same" else name
    with pytest.raises(ConfigError, match=f"COMPARE_RUN: .*{said}"):
        explore_run(ExplorerConfig(run_dir=str(pair[0]), compare_run=other))


def test_the_command_line_takes_two_runs(pair, monkeypatch):
    served = []
    monkeypatch.setattr(runs, "OUTPUTS", pair[0].parent)
    monkeypatch.setattr(page, "serve", lambda *given: served.append(given))
    assert cli.main(["explore", "a-run", "b-run"]) == cli.main(["explore", "a-run", "base"]) == 0
    assert [given[:2] for given in served] == [
        (pair[0], {"COMPARE_RUN": str(pair[1])}),
        (pair[0], {"COMPARE_RUN": BASE}),
    ]
    assert cli.main(["explore", "a-run", "c-run"]) == 2


def test_both_are_asked(bundled, tmp_path):
    view = bundled.views("test")[0]
    model, other = StubModel(), StubModel()
    asker = Asker(OwnModel(model), Beside("b<run>", by_question([]), OwnModel(other)))
    assert list(asker.others) == [BASE_ALONE, "b<run>"] and asker.usual == "b<run>"
    reply = asker.ask(view, QUESTION, "b<run>")
    assert reply.beside.answer == reply.answer and other.encoded == model.encoded == 1
    shown = reply_html(reply)
    assert "b&lt;run&gt;" in shown and "b<run>" not in shown and "the same answer" in shown and "✗ wrong" in shown
    alone = asker.ask(view, QUESTION, BASE_ALONE)
    assert alone.beside.answer.text == "base" and model.encoded == 1, "of the picture that was still encoded"
    assert "another answer" in reply_html(alone) and not model.alone
    assert asker.ask(view, QUESTION).beside is None

    def fail():
        raise ValueError("its adapter is broken")

    broken = Asker(OwnModel(model), Beside("b", {}, OwnModel(fail)))
    shown = reply_html(broken.ask(view, QUESTION, "b"))
    assert "b: The model cannot be loaded. its adapter is broken" in shown and "seen" in shown, "one answer is kept"
    with pytest.raises(AskError):
        Asker(OwnModel(fail), Beside("b", {}, OwnModel(other))).ask(view, QUESTION, "b")


def test_the_reader_chooses_what_is_asked_beside(bundled, records):
    widget = explore(bundled, records, model=StubModel())
    assert widget.ask.beside.value == "" and [v for _, v in widget.ask.beside.options] == ["", BASE_ALONE]
    widget.ask.put(QUESTION)
    assert "stk-beside" not in widget.ask.answer.value
    widget.ask.beside.value = BASE_ALONE
    assert re.search("stk-beside'>base alone: <b>base</b>", widget.ask.answer.value), "asked again at once"
