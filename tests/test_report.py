"""The report of a run folder made by hand: complete, with missing and with broken artefacts."""

import base64
import functools
import html
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from scored_folder import answers, make_frames, make_scored

from stkvlm_lib import __main__ as cli
from stkvlm_lib.analysis import story
from stkvlm_lib.analysis.run_words import headline
from stkvlm_lib.analysis.scored_run import ScoredRun
from stkvlm_lib.analysis.story import Story, measure
from stkvlm_lib.config import ROOT
from stkvlm_lib.evaluation.predictions import HEADLINE, read_answers, write_answers
from stkvlm_lib.explore.links import explorer_link
from stkvlm_lib.figures.style import message, save
from stkvlm_lib.files import read_json, write_json
from stkvlm_lib.reports import report
from stkvlm_lib.reports.report import BEFORE, CAPTIONS, write_report

QUESTION = "What <script>alert(1)</script> is | this?"
TRAINED = {
    "split": "test",
    "adapter_mb": 2.5,
    "base_model": "embedded",
    "seed": 3,
    "train_seconds": 90.0,
    "qa_per_second_train": 50.0,
}
EMBEDDED = functools.cache(report._embedded)
BEFORE_04 = ("train_curve", "data_contact", "qa_samples", "my_own")
"""Figures that lie in the run folder when it is reported."""


def make_run(folder, **more):
    """A run whose metrics are those of its answers, one of the wrong ones to a question with HTML in it."""
    make_scored(folder, **more)
    rows = read_answers(folder / HEADLINE)
    asked = {"question": QUESTION, "family": "other"}
    write_answers([replace(p, **asked) if p.prediction == "mines" else p for p in rows], folder / HEADLINE)
    write_json(folder / "metrics.json", measure(ScoredRun(folder, metrics=TRAINED)))
    for name in BEFORE_04:
        save(message(name), folder / "figures" / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run of the headline alone, reported once."""
    folder = make_run(tmp_path_factory.mktemp("runs") / "20260101-000000-smoke-s3-abc1234", further=())
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A run with everything that is scored beside the headline, beside another run."""
    root = tmp_path_factory.mktemp("runs")
    write_answers(answers(make_frames(root / "old-frames"), "test", {"ego": "gnu"}), root / "old-run" / HEADLINE)
    folder = make_run(root / "run")
    config = read_json(folder / "config.json")
    config["05"]["COMPARE_RUN"] = str(root / "old-run")
    write_json(folder / "config.json", config)
    write_report(folder)
    return folder


@pytest.fixture
def drawn_once(monkeypatch):
    """Figures that lie in the run folder are neither written nor encoded again, which takes seconds."""
    monkeypatch.setattr(story, "save", lambda figure, path: path.exists() or save(figure, path))
    monkeypatch.setattr(report, "_embedded", EMBEDDED)


@pytest.fixture
def run_dir(plain, tmp_path, drawn_once):
    """The plain run, to be changed."""
    return shutil.copytree(plain, tmp_path / plain.name)


def change(folder, **figures):
    """Other figures in metrics.json; None takes one out."""
    metrics = read_json(folder / "metrics.json") | figures
    write_json(folder / "metrics.json", {name: value for name, value in metrics.items() if value is not None})


class Page(HTMLParser):
    """The text of a page and the attributes of its pictures."""

    def __init__(self, source):
        super().__init__()
        self.said, self.pictures, self.tags, self._hidden = "", [], [], False
        self.feed(source)
        self.said = " ".join(self.said.split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self._hidden = tag in ("style", "script")
        if tag == "img":
            self.pictures.append(dict(attributes))

    def handle_endtag(self, tag):
        self._hidden = False

    def handle_data(self, data):
        self.said += "" if self._hidden else data + " "


def page_of(folder):
    """The report as it lies in a run folder."""
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def read_page(run_dir):
    path = write_report(run_dir)
    assert path == run_dir / "report.html"
    return Page(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("base", "why"), [("embedded", ": the embedded one has learnt this game before."), ("other", ".")]
)
def test_a_gain_that_may_be_none_is_called_no_difference(run_dir, base, why):
    change(run_dir, base_model=base, gain_over_base=-0.006, gain_over_base_ci95=[-0.02, 0.008])
    said = headline(ScoredRun(run_dir))
    assert "The gain over the base is -0.6 points on the same questions (95% interval -2.0 to +0.8)." in said
    assert f" These races show no difference from the base{why}" in said


def test_complete_run_says_all(plain):
    page = page_of(plain)
    assert "Not all of this run could be read" not in page.said
    assert "With the adapter, 93.7% of 63 questions on pictures of 3 races in the test set" in page.said
    assert "The gain over the base is +93.7 points" in page.said and "no difference from the base" not in page.said
    assert "Seeing the picture is worth +93.7 points (95% interval " in page.said
    headings = ("Scores by question family", "What is taken for what", "Errors", "How to reproduce", "Known limits")
    assert all(heading in page.said for heading in headings)
    assert "1.5 minutes, 50.0 questions per second" in page.said and "2.50 MB" in page.said
    assert "seed 3 commit abc1234 versions torch 2.0 device CPU" in page.said and "0123abcd" in page.said
    assert "6 pictures, 3 races, 1 track" in page.said and "63 of the test split" in page.said
    for group in ("What was asked", "Of what data", "By which model"):
        assert group in page.said


def test_the_headline_stands_beside_its_baselines_with_its_interval_before_anything_else(plain):
    said = page_of(plain).said
    first = said[: said.index("With the adapter")]
    assert re.search(r"fine-tuned model 93.7% [\d.]+% to [\d.]+% most frequent answer", first)
    assert "the same model, blind 0.0%" in first and "base, not fine-tuned 0.0%" in first


def test_every_link_of_the_contents_leads_somewhere(everything):
    source = (everything / "report.html").read_text(encoding="utf-8")
    links, anchors = (re.findall(pattern, source) for pattern in (r'href="#([^"]+)"', r'<h2 id="([^"]+)"'))
    assert links == anchors and len(set(anchors)) == len(anchors) > 15
    assert anchors[:3] == ["scores-by-question-family", "what-is-taken-for-what", "where-answers-are-wrong"]
    assert anchors[-6:] == ["against-old-run", "training", "data", "more", "how-to-reproduce", "known-limits"]


def test_the_report_tells_the_story_of_the_notebook(everything, drawn_once):
    """The same sections in the same order with the same words, tables and pictures, before those of earlier steps."""
    told = Story(ScoredRun(everything)).sections
    page, source = page_of(everything), (everything / "report.html").read_text(encoding="utf-8")
    headings = [html.unescape(title) for title in re.findall(r"<h2[^>]*>([^<]+)</h2>", source)]
    assert headings[: len(told)] == [section.title for section in told] and len(told) == 15
    for section in told:
        assert " ".join(section.text.split()) in page.said
        for table in filter(None, (section.table, *section.details)):
            for row in table.rows[:3]:
                assert " ".join(" ".join(filter(None, row.values())).split()) in page.said
    alts = [shown.alt or shown.caption for section in told for shown in section.figures]
    assert [picture["alt"] for picture in page.pictures][: len(alts)] == alts


def test_page_is_one_file_with_described_pictures(plain):
    page = page_of(plain)
    assert len(page.pictures) == len(list((plain / "figures").glob("*.png"))) > 10
    for picture in page.pictures:
        kind, data = picture["src"].split(",")
        assert kind == "data:image/webp;base64" and base64.b64decode(data)[8:12] == b"WEBP"
        assert len(picture["alt"]) > 5
    assert "ego 83.3%" in page.pictures[0]["alt"]
    source = (plain / "report.html").read_text()
    assert not re.search(r"""src=["'](?!data:)""", source), "nothing is loaded from elsewhere"
    linked = re.findall(r"""href=["'](?!#)([^"']*)""", source)
    assert linked and all(link.startswith("http://127.0.0.1:") for link in linked), "links lead into the explorer alone"
    wrong = next(p for p in read_answers(plain / HEADLINE) if not p.correct)
    assert explorer_link(wrong.image_file, wrong.question) in [html.unescape(link) for link in linked]


def test_figures_of_the_notebooks_before_have_captions():
    """Every figure that notebooks 01 to 03 save is known to the report, and has a section."""
    saved = set()
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        saved |= set(re.findall(r"figures.{1,12}?(\w+)\.png", notebook.read_text(encoding="utf-8")))
    assert len(saved) > 8
    assert {name for name in saved if not name.startswith(tuple(CAPTIONS))} == set()
    starts = tuple(start for group in BEFORE.values() for start in group)
    assert {name for name in saved if not name.startswith(starts)} == set()


def test_figures_of_the_notebooks_before_stand_under_training_data_and_more(plain):
    said, source = page_of(plain).said, (plain / "report.html").read_text(encoding="utf-8")
    assert "Pictures with their track and number of visible karts." in said and "My own." in said
    order = [source.index(f'<h2 id="{name}"') for name in ("training", "data", "more", "how-to-reproduce")]
    assert order == sorted(order)
    (curve,) = (picture["alt"] for picture in page_of(plain).pictures if "Training loss" in picture["alt"])
    assert curve.endswith("Loss from 1.0 to 1.0 over 1 logged steps.")


def test_a_figure_of_an_analysis_that_is_told_no_more_is_not_shown(run_dir):
    before = len(page_of(run_dir).pictures)
    save(message("none"), run_dir / "figures" / "score_won.png")
    assert len(read_page(run_dir).pictures) == before


def test_command_repeats_what_differs_from_the_profile(plain):
    said = page_of(plain).said
    assert f"./run_all.sh smoke -p FRAMES_DIR {plain}-frames -p SEED 3 " in said
    assert "-p LEARNING_RATE 0.5" in said
    assert "-p EPOCHS" not in said, "one epoch is what the smoke profile has"


def test_errors_stand_as_text_and_are_escaped(plain):
    page = page_of(plain)
    assert page.tags.count("script") == 1, "the page's own, which unfolds for printing"
    assert QUESTION in page.said and "1 time ego tux <b>gnu" in page.said


@pytest.mark.parametrize("name", ["metrics.json", HEADLINE, "manifest.json", "config.json"])
def test_missing_artefact_is_named_and_the_rest_shown(run_dir, name):
    (run_dir / name).unlink()
    page = read_page(run_dir)
    assert f"{name}: not there" in page.said
    assert "Known limits" in page.said and "Scores by question family" in page.said and len(page.pictures) >= 5
    assert f"{name}: not there" in (run_dir / "report.md").read_text()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", "{"),
        ("metrics.json", "[1]"),
        (HEADLINE, '{"question": "?"}'),
        (HEADLINE, "[]"),
        ("manifest.json", "null"),
        ("config.json", "\x00"),
        ("train_log.jsonl", "{}\n{"),
        ("figures/my_own.png", "no picture"),
    ],
)
def test_broken_artefact_is_named_and_the_rest_shown(run_dir, name, content):
    (run_dir / name).write_text(content)
    page = read_page(run_dir)
    assert re.search(rf"{re.escape(name)}: (not readable|holds a)", page.said)
    assert "Known limits" in page.said and str(run_dir) not in page.said


PARTS = {
    "error_budget": "Why answers are wrong",
    "slices": "Where answers are wrong",
    "calibration": "What the confidence is worth",
    "entailed": "Answers that must agree",
    "ceiling": "What can be reached",
    "label_faults": "Labels that cannot be scored",
    "mc": "Multiple choice",
    "consistency": "Consistency",
    "own_words": "Own words",
    "held_out_wordings": "Wordings that training never saw",
    "extended": "Extended questions",
    "other_splits": "Line-ups never seen",
}


def test_broken_figures_are_named_and_left_out(run_dir):
    change(run_dir, **dict.fromkeys(PARTS, "x"))
    said = read_page(run_dir).said
    assert "Known limits" in said and "Scores by question family" in said
    for name, title in PARTS.items():
        assert f"metrics.json: {name}" in said and f"{title} " not in said.replace("Extended questions, wordings", "")


def test_metrics_of_the_bare_contract_are_enough(run_dir):
    """Those of a scoring elsewhere: no answers, no pictures, no training."""
    bare = {
        "split": "custom",
        "n": 12,
        "exact": 0.75,
        "families": {"other": {"n": 12, "exact": 0.75}},
        "train_seconds": None,
    }
    write_json(run_dir / "metrics.json", bare)
    for name in ("train_log.jsonl", HEADLINE):
        (run_dir / name).unlink()
    page = read_page(run_dir)
    assert "75.0% of 12 questions" in page.said and "none in this run" in page.said
    assert "predictions.jsonl: not there" in page.said and "metrics.json" not in page.said


def test_predictions_of_another_scoring_are_noticed(run_dir):
    write_answers(read_answers(run_dir / HEADLINE)[:1], run_dir / HEADLINE)
    assert "1 rows, but metrics.json says n = 63" in read_page(run_dir).said


def test_markdown_twin(plain):
    text = (plain / "report.md").read_text()
    assert "| all | 63 | 93.7% |" in text and "](figures/score_families.png)" in text
    assert "./run_all.sh smoke -p FRAMES_DIR" in text and "- commit: abc1234" in text and "- seed: 3" in text
    assert "## Of what data" in text and "- scored on: 6 pictures, 3 races, 1 track" in text
    assert "qa/train.jsonl: 0123abcd" in text.replace("\\", "")
    assert str(plain) not in text.replace(f"{plain}-frames", ""), "but for the frames that the command names"
    assert "## Why answers are wrong" in text and "## What can be reached" in text
    assert "## Where answers are wrong" not in text, "its tables are behind a click"


def test_empty_and_absent_folders(tmp_path):
    page = read_page(tmp_path)
    assert "no readable score" in page.said and "predictions.jsonl: not there" in page.said
    with pytest.raises(FileNotFoundError, match="no such run folder"):
        write_report(tmp_path / "nowhere")


def test_pictures_are_described_with_their_numbers_and_few_confusions_told(plain):
    alts = " ".join(picture["alt"] for picture in page_of(plain).pictures)
    assert "Bars of errors by cause: " in alts and "Oracle by family: all " in alts
    assert "tux was taken for <b>gnu 1 of 6 times" in page_of(plain).said and "Matrix" not in alts


def test_a_comparison_has_a_section_with_figures_and_questions(everything):
    page = page_of(everything)
    assert "Against old-run" in page.said and "of the questions that both answered" not in page.said
    assert re.search(r"On the \d+ questions that both answered, this run is right in [\d.]+% and old-run in", page.said)
    assert "1 that only old-run answered" in page.said, "the other run has the question in other words"
    assert "How many karts are there in the scenario? 3 9 3 test/30000_00_im.jpg" in page.said
    assert any("percentage points: all " in picture["alt"] for picture in page.pictures)


def test_a_run_that_cannot_be_compared_any_more_is_named(everything, tmp_path, drawn_once):
    folder = shutil.copytree(everything, tmp_path / "run")
    config = read_json(folder / "config.json")
    config["05"]["COMPARE_RUN"] = str(tmp_path / "gone")
    write_json(folder / "config.json", config)
    said = read_page(folder).said
    assert "COMPARE_RUN: " in said and "no such run" in said and "Against" not in said and "Known limits" in said


def test_what_is_scored_beside_the_headline_leaves_it_as_it_is(everything):
    page = page_of(everything)
    assert "With the adapter, 93.7% of 63 questions" in page.said, "the headline stays that of the ten forms"
    assert "follow stricter rules" in page.said and sum("nearer" in picture["alt"] for picture in page.pictures) == 1
    text = (everything / "report.md").read_text()
    assert "## Multiple choice" in text and "| how many karts | 13 | 61.5% |" in text
    assert "Which kart does the camera follow?" not in text, "columns of running text are left out"


@pytest.mark.parametrize("folder", ["plain", "everything"])
def test_a_part_that_is_not_there_has_no_section(folder, request):
    said = page_of(request.getfixturevalue(folder)).said.replace("Extended questions, wordings", "")
    further = ["Multiple choice", "Consistency", "Own words", "Wordings that training never saw", "Extended questions",
               "Line-ups never seen", "Against old-run"]  # fmt: skip
    assert {f"{title} " in said for title in further} == {folder == "everything"}
    assert "Labels that cannot be scored" not in said


@pytest.mark.browser
def test_in_print_nothing_is_folded_or_cut(everything, page):
    """What opens on a click on the screen stands open on paper, and nothing is wider than the paper."""
    page.set_viewport_size({"width": 700, "height": 990})  # A4 with margins, at 96 px an inch
    page.goto((everything / "report.html").as_uri())
    shown = "[...document.querySelectorAll('details table')].map(table => table.checkVisibility())"
    assert page.evaluate(shown) and not any(page.evaluate(shown))
    page.emulate_media(media="print")
    assert all(page.evaluate(shown))
    assert page.evaluate("document.documentElement.scrollWidth") <= 700
    page.emulate_media(media="screen")


@pytest.mark.browser
@pytest.mark.parametrize("width", [1200, 390])
def test_page_fits_its_window(everything, page, width):
    """Nothing but what scrolls in a box of its own is wider than the window."""
    page.set_viewport_size({"width": width, "height": 900})
    page.goto((everything / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    charts = "[...document.images].filter(image => /^(Dot plot|Bars|Accuracy by confidence)/.test(image.alt))"
    assert page.evaluate(f"{charts}.length") >= 4
    assert page.evaluate(f"{charts}.every(image => image.clientWidth < {width})"), "charts need no swiping"


def test_a_family_that_gains_nothing_over_guessing_is_named(run_dir):
    row = {"n": 10, "exact": 0.5, "majority": 0.5}
    change(
        run_dir,
        gain_over_blind=0.25,
        gain_over_blind_ci95=[0.2, 0.3],
        clusters="picture",
        n_clusters=4,
        families={"count_left": row, "track": {**row, "exact": 0.7}},
    )
    said = read_page(run_dir).said
    assert "Seeing the picture is worth +25.0 points (95% interval +20.0 to +30.0)" in said
    assert "No better than the most frequent answer: count_left." in said and "of one race" in said


def test_a_run_is_reported_again_by_one_command(run_dir, capsys):
    assert cli.main(["report", str(run_dir)]) == 0
    assert capsys.readouterr().out.strip() == str(run_dir / "report.html")
    assert cli.main(["report", str(run_dir.parent / "nowhere")]) == 2
    assert "no such run" in capsys.readouterr().err


def test_command_of_a_scoring_alone_is_the_notebook(run_dir):
    write_json(run_dir / "config.json", {"04": {"QA_FILE": "my qa.json", "SEED": 0}})
    page = read_page(run_dir)
    assert "notebooks/04_evaluate.ipynb" in page.said and "-p QA_FILE 'my qa.json'" in page.said
    assert "./run_all.sh" not in page.said


def test_faults_of_labels_have_a_section_of_their_own(run_dir):
    fault = {"family": "count", "what is wrong": "no <b>answer", "questions": 3, "such as": "'3.0' (3)"}
    change(run_dir, label_faults=[fault])
    page = write_report(run_dir).read_text()
    assert "Labels that cannot be scored</h2>" in page and "no &lt;b&gt;answer" in page and "no <b>" not in page
    assert "## Labels that cannot be scored" in (run_dir / "report.md").read_text()
    change(run_dir, label_faults=[])
    assert "Labels that cannot be scored" not in write_report(run_dir).read_text()
