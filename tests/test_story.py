"""All analyses of a run: each measured once, read back as it was written, told in one order by notebook and report."""

import importlib
import json
import pkgutil
import re

import nbformat
import pytest
from scored_folder import answers, make_frames, make_scored

from stkvlm_lib import analysis
from stkvlm_lib.analysis import story as module
from stkvlm_lib.analysis.accuracy import Accuracy
from stkvlm_lib.analysis.comparison import Comparison
from stkvlm_lib.analysis.confusion import Confusions
from stkvlm_lib.analysis.errors import Errors
from stkvlm_lib.analysis.scored_run import Analysis, ScoredRun
from stkvlm_lib.analysis.story import ANALYSES, Story, measure
from stkvlm_lib.config import ROOT, STEPS
from stkvlm_lib.evaluation.predictions import HEADLINE, write_answers
from stkvlm_lib.files import write_json

FAULT = {"family": "count", "what is wrong": "no answer", "questions": 3, "such as": "'3.0' (3)"}
TITLES = [
    "Scores by question family",
    "Labels that cannot be scored",
    "What is taken for what",
    "Where answers are wrong",
    "Why answers are wrong",
    "Errors",
    "What can be reached",
    "What the confidence is worth",
    "Extended questions",
    "Wordings that training never saw",
    "Own words",
    "Consistency",
    "Answers that must agree",
    "Multiple choice",
    "Line-ups never seen",
    "Against other",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with all that a run can have, beside another one."""
    root = tmp_path_factory.mktemp("runs")
    write_answers(answers(make_frames(root / "other-frames"), "test", {"ego": "gnu"}), root / "other" / HEADLINE)
    return make_scored(root / "run")


@pytest.fixture(scope="module")
def run(folder):
    facts = {"split": "test", "label_faults": [FAULT], "seed": 3}
    return ScoredRun(folder, metrics=facts, compare_run=str(folder.parent / "other"))


@pytest.fixture(scope="module")
def metrics(run):
    return json.loads(json.dumps(measure(run)))


def test_no_analysis_is_forgotten():
    names = [found.name for found in pkgutil.iter_modules(analysis.__path__)]
    modules = [importlib.import_module(f"stkvlm_lib.analysis.{name}") for name in names]
    kinds = {kind for each in modules for kind in vars(each).values() if isinstance(kind, type)}
    assert {kind for kind in kinds if issubclass(kind, Analysis)} - {Analysis} == set(ANALYSES)
    assert len(ANALYSES) == len(set(ANALYSES)) == len(TITLES)


@pytest.mark.parametrize("kind", ANALYSES, ids=lambda kind: kind.__name__)
def test_every_analysis_reads_back_what_it_has_written(kind, run, metrics):
    """But those that have no figures, and a comparison, whose other run may be another next time."""
    figures = run.figures(kind)
    assert figures is not None and run.problems == []
    if kind in (Confusions, Errors, Comparison):
        assert kind.read(metrics) is None
    else:
        assert kind.read(metrics) == figures
    if kind is Comparison:
        assert kind.from_json(metrics["comparison"], "comparison") == figures


def test_all_figures_stand_in_the_metrics_beside_what_was_there(metrics):
    assert (metrics["split"], metrics["seed"], metrics["label_faults"]) == ("test", 3, [FAULT])
    assert (metrics["n"], metrics["exact"]) == (63, pytest.approx(59 / 63, abs=1e-6))
    assert metrics["error_budget"]["errors"] == 4 and metrics["ceiling"]["n"] == 63
    parts = {"slices", "ceiling", "calibration", "extended", "held_out_wordings", "own_words", "consistency"}
    parts |= {"entailed", "validity", "mc", "mc_exact", "other_splits", "comparison", "families"}
    assert parts <= set(metrics)


def test_figures_that_are_there_are_not_measured_again(folder, metrics, monkeypatch):
    for kind in set(ANALYSES) - {Comparison, Confusions, Errors}:
        monkeypatch.setattr(kind, "measure", lambda run, kind=kind: pytest.fail(f"{kind.__name__} measured"))
    again = ScoredRun(folder, metrics=metrics, compare_run=str(folder.parent / "other"))
    assert json.loads(json.dumps(measure(again))) == metrics


def test_the_story_is_told_in_one_order_and_its_figures_lie_in_the_run(run, folder):
    told = Story(run).sections
    assert [section.title for section in told] == TITLES
    names = [shown.name for section in told for shown in section.figures]
    assert len(set(names)) == len(names) and all(shown.caption for section in told for shown in section.figures)
    assert {path.stem for path in (folder / "figures").glob("*.png")} == set(names)
    assert {"score_families", "score_budget", "score_causes", "score_won", "score_lost"} <= set(names)
    anchors = [section.anchor for section in told]
    assert len(set(anchors)) == len(anchors)


def test_each_section_is_made_once(run, monkeypatch):
    story, saved = Story(run), []
    monkeypatch.setattr(module, "save", lambda figure, path: saved.append(path.name))
    assert story.section(Accuracy) is story.section(Accuracy)
    assert [section for section in story.sections if section.title == TITLES[0]] == [story.section(Accuracy)]
    assert len(saved) == len(set(saved)) > 10


def test_a_notebook_shows_the_same_section(run, monkeypatch):
    story, shown = Story(run), []
    monkeypatch.setattr(module.display, "section", lambda found, otherwise: shown.append(found))
    story.show(Accuracy)
    assert shown == [story.section(Accuracy)] and shown[0].title == TITLES[0]


def test_headings_of_the_notebook_are_the_titles_in_their_order():
    notebook = nbformat.read(ROOT / "notebooks" / f"{STEPS['05'][0]}.ipynb", 4)
    shown, heading = [], ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (found := re.search(r"^## (.+)$", cell.source, re.M)):
            heading = found[1]
        elif found := re.fullmatch(r"\w+\.show\(story\.(\w+)\)", cell.source.strip()):
            shown.append((found[1], heading))
    titles = [*TITLES[:-1], "Against another run"]
    assert shown == [(kind.__name__, title) for kind, title in zip(ANALYSES, titles, strict=True)]


def test_a_run_of_the_headline_alone_has_the_sections_that_follow_from_it(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "save", lambda figure, path: None)
    story = Story(ScoredRun(make_scored(tmp_path / "run", further=()), metrics={}))
    without = {TITLES[1], *TITLES[8:12], *TITLES[13:]}
    assert [section.title for section in story.sections] == [title for title in TITLES if title not in without]
    assert story.run.problems == []


def test_galleries_of_an_earlier_report_stay_where_the_pictures_are_gone(tmp_path):
    folder = make_scored(tmp_path / "run", further=())
    first = [shown.name for section in Story(ScoredRun(folder, metrics={})).sections for shown in section.figures]
    kept = (folder / "figures" / "score_worst.png").read_bytes()
    (tmp_path / "run-frames").rename(tmp_path / "elsewhere")
    write_json(folder / "metrics.json", measure(ScoredRun(folder, metrics={}, frames=make_frames(tmp_path / "again"))))
    later = ScoredRun(folder)
    again = [shown.name for section in Story(later).sections for shown in section.figures]
    assert again == first and "score_causes" in again
    assert (folder / "figures" / "score_worst.png").read_bytes() == kept
    assert len(later.problems) == 1 and "run-frames" in later.problems[0]
