"""The explorer on a run's folder, whole or in parts, and its page: what is served, and what is refused before."""

import json
import os
import re
import tempfile

import nbformat
import pytest
from run_folder import make_run

from stkvlm_lib import __main__ as cli
from stkvlm_lib import runs
from stkvlm_lib.config import ROOT, ConfigError, ExplorerConfig
from stkvlm_lib.explore import page
from stkvlm_lib.explore.links import Place, explorer_link, query, read_query
from stkvlm_lib.explore.models import AskError, OwnModel
from stkvlm_lib.explore.page import NOTEBOOK, TEMPLATES, find_socket_folder, write_page
from stkvlm_lib.explore.run import explore_run, frames_of, model_of, read_answers
from stkvlm_lib.parameters import upper
from stkvlm_lib.qa.label_check import MARKS_FILE
from stkvlm_lib.qa.qa_sets import read_records


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("outputs") / "a-run", adapter=False)


def test_a_run_is_opened_with_its_own_frames_questions_answers_and_marks(run):
    widget = explore_run(ExplorerConfig(run_dir=str(run)))
    assert widget.filters["split"].value == "test" and widget.state.has_predictions
    assert widget.state.options("split") == ["test", "valid"]
    assert widget.labels.path == run / "qa" / MARKS_FILE
    assert not widget.ask.asker.has_model
    assert frames_of(ExplorerConfig(run_dir=str(run))) == (run.parent / "a-run-frames",)


def test_the_adapter_of_a_run_is_loaded_when_it_is_needed(run, tmp_path):
    assert model_of(ExplorerConfig(run_dir=str(run))) is None
    (tmp_path / "adapter").mkdir()
    model = model_of(ExplorerConfig(run_dir=str(run), adapter_dir=str(tmp_path / "adapter")))
    assert isinstance(model, OwnModel) and not model.is_loaded
    with pytest.raises(AskError, match="no adapter there"):
        model.put(tmp_path / "a.png", "?")
    with pytest.raises(ConfigError, match="ADAPTER_DIR: there is no adapter"):
        model_of(ExplorerConfig(adapter_dir=str(tmp_path / "absent")))


def test_without_any_run_there_are_the_frames_with_their_questions(run, monkeypatch):
    monkeypatch.setattr(ExplorerConfig, "run_path", run.parent / "absent")
    widget = explore_run(ExplorerConfig(frames_dir=str(run.parent / "a-run-frames")))
    assert len(widget.state) > 0 and not widget.state.has_predictions and widget.labels.path is None


def test_a_run_that_is_named_must_be_there(tmp_path):
    with pytest.raises(ConfigError, match="RUN_DIR: there is no run"):
        explore_run(ExplorerConfig(run_dir=str(tmp_path / "absent")))


def test_a_parameter_or_the_pages_address_names_the_picture(run, monkeypatch):
    valid = read_records(run / "qa" / "valid.jsonl")[0]
    test = read_records(run / "qa" / "test.jsonl")[-1]
    named = ExplorerConfig(run_dir=str(run), picture=valid.image_file, question=valid.question)
    assert explore_run(named).state.view.image_file == valid.image_file
    with pytest.raises(ConfigError, match="PICTURE: “nowhere”: no such picture"):
        explore_run(ExplorerConfig(run_dir=str(run), picture="nowhere"))
    monkeypatch.setenv("QUERY_STRING", explorer_link(test.image_file, test.question).split("?")[1])
    assert explore_run(named).state.view.image_file == valid.image_file, "only Voila's is the page's"
    monkeypatch.setenv("SERVER_SOFTWARE", "voila/0.5")
    opened = explore_run(named)
    assert opened.state.view.image_file == test.image_file and opened.ask.question.value == test.question
    monkeypatch.setenv("QUERY_STRING", "token=t&picture=nowhere")
    opened = explore_run(ExplorerConfig(run_dir=str(run)))
    assert "View 1 of" in opened.place.value and "“nowhere”: no such picture" in opened.place.value


def test_a_link_is_read_as_it_was_written():
    question = "Is “tux” & co. left of 50%?"
    address = explorer_link("test/800000_00_im.jpg", question, port=9000)
    assert address.startswith("http://127.0.0.1:9000/?picture=test/800000_00_im.jpg&question=") and " " not in address
    assert read_query(address.split("?")[1]) == Place("test/800000_00_im.jpg", question)
    assert query(Place(), token="a+b") == "token=a%2Bb" and read_query("token=a&question=b") == Place("", "b")


def test_broken_answers_are_named(tmp_path):
    assert read_answers(tmp_path) == []
    (tmp_path / "predictions.jsonl").write_text('{"image_file": "a"}\n')
    with pytest.raises(ValueError, match="predictions.jsonl: line 1, .*: not there.*notebook 04"):
        read_answers(tmp_path)


def test_notebook_06_is_thin_and_has_its_parameters():
    notebook = nbformat.read(NOTEBOOK, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert notebook.cells[0].source.startswith("# 06 ") and "parameters" in code[0].metadata.tags
    assert not any(cell.outputs or cell.execution_count for cell in code)
    namespace = {}
    exec(code[0].source, {}, namespace)
    assert list(namespace.items()) == list(upper(ExplorerConfig()).items())


def test_the_page_is_notebook_06_with_the_run_and_without_its_preface(run, tmp_path):
    page = nbformat.read(write_page(tmp_path, run, {"FRAMES_DIR": "/data"}), 4)
    source = "\n".join(cell.source for cell in page.cells)
    assert page.cells[0].source == "# Explorer · a-run" and page.metadata["title"] == "Explorer · a-run"
    assert f'RUN_DIR = "{run}"' in source and 'FRAMES_DIR = "/data"' in source and "| reads |" not in source
    compile("\n".join(cell.source for cell in page.cells if cell.cell_type == "code"), "page", "exec")
    hostile = tmp_path / "a<img src=x onerror=run()>_*b*"
    hostile.mkdir()
    title = nbformat.read(write_page(tmp_path, hostile, {}), 4).cells[0].source
    assert not set(title) & set("<>_*=()") and "img src" in title
    bare = nbformat.read(write_page(tmp_path, tmp_path / "absent", {}), 4)
    assert "no run yet" in bare.cells[0].source and 'RUN_DIR = "/' not in str(bare)


@pytest.mark.parametrize(
    "arguments",
    [
        ["b-run"],
        ["--frames", "absent"],
        ["--adapter", "absent"],
        ["--port", "many"],
        ["--port", "0"],
        ["--port=-1"],
        ["--port", "99999"],
    ],
)
def test_a_wrong_argument_is_one_line_and_status_2(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runs, "OUTPUTS", tmp_path)
    try:
        status = cli.main(["explore", *arguments])
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and arguments[-1].removeprefix("--port=") in message


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("config.json", "[]", "config.json: "),
        ("config.json", '{"02": []}', "config.json: a step in it is not an object"),
        ("config.json", '{"02": {"FRAMES_DIR": ["a"]}}', "no folder|no such|not there|no frames"),
        ("predictions.jsonl", "1\n", "predictions.jsonl: line 1: 1 is not an object"),
        ("qa/test.jsonl", "{}\n", "test.jsonl"),
    ],
)
def test_a_broken_run_is_refused_in_one_line(file, text, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runs, "OUTPUTS", tmp_path)
    (tmp_path / "a-run" / "qa").mkdir(parents=True)
    (tmp_path / "a-run" / file).write_text(text)
    assert cli.main(["explore", "a-run"]) in (1, 2)
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and message.startswith("error: ") and re.search(said, message)


def test_a_picture_that_is_not_there_is_told_before_anything_is_served(run, monkeypatch, capsys):
    monkeypatch.setattr(runs, "OUTPUTS", run.parent)
    monkeypatch.setattr(page, "ModelHost", None)  # else it would serve
    there = read_records(run / "qa" / "test.jsonl")[-1].image_file
    assert cli.main(["explore", "a-run", "--picture", there.replace("_im", "_mi")]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "no such picture" in message and f"did you mean {there}" in message


def test_sockets_lie_where_their_paths_are_short_enough(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(long))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert find_socket_folder() == "/tmp"
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/var/tmp")
    assert find_socket_folder() == "/var/tmp"
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match="xxx: too long a path .*; set TMPDIR to a folder of at most"):
        find_socket_folder()


def test_the_pages_template_fetches_nothing_from_elsewhere():
    template = (TEMPLATES / "voila" / "templates" / "explorer" / "index.html.j2").read_text(encoding="utf-8")
    assert "http" not in template and json.loads(
        (TEMPLATES / "voila" / "templates" / "explorer" / "conf.json").read_text()
    ) == {"base_template": "lab"}
    for name in ("explorer.js", "explorer.css"):
        assert "http" not in (ROOT / "stkvlm_lib" / "explore" / name).read_text(encoding="utf-8")
