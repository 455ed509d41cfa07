"""The report of a run folder made by hand: complete, with missing and with broken artefacts."""

import base64
import html
import json
import re
from html.parser import HTMLParser

import pytest

from stkvlm_lib import __main__ as cli
from stkvlm_lib.config import ROOT, STEPS, upper
from stkvlm_lib.explore.links import explorer_link
from stkvlm_lib.figures import plots
from stkvlm_lib.files import read_jsonl, write_json, write_jsonl
from stkvlm_lib.reports.report import write_report
from stkvlm_lib.reports.report_sections import CAPTIONS
from stkvlm_lib.reports.report_text import headline
from stkvlm_lib.scores.metrics import score
from stkvlm_lib.scores.scoring import Prediction, write_predictions

FIGURES = ("score_families", "score_worst", "score_typical", "score_confusion_ego", "my_own")


def predict(i, given):
    right = given == "tux"
    rest = {"base_prediction": "gnu", "base_correct": False, "blind_prediction": "gnu", "blind_correct": False}
    question = "What kart is the ego car?" if i else "What <script>alert(1)</script> is | this?"
    where = {"race": f"race-{i % 3}", "track": "abyss", "family": "ego"}
    return Prediction(f"test/{i}.jpg", question, "tux", given, confidence=0.9 - i / 100, correct=right,
                      prefix_correct=right, **where, **rest)  # fmt: skip


@pytest.fixture
def run_dir(tmp_path):
    """A run folder whose metrics are those of its predictions: 3 of 12 wrong."""
    folder = tmp_path / "20260101-000000-smoke-s3-abc1234"
    predictions = [predict(i, "<b>gnu" if i < 3 else "tux") for i in range(12)]
    trained = {
        "adapter_mb": 2.5,
        "base_model": "embedded",
        "seed": 3,
        "train_seconds": 90.0,
        "qa_per_second_train": 50.0,
    }
    write_json(folder / "metrics.json", {"split": "test", **score(predictions, resamples=100, seed=0), **trained})
    write_predictions(predictions, folder / "predictions.jsonl")
    write_jsonl(folder / "train_log.jsonl", [{"step": 1, "loss": 1.0}])
    config = {step: upper(kind(seed=3)) for step, (_, kind) in STEPS.items()}
    config["03"] |= {"EPOCHS": 1, "LEARNING_RATE": 0.5}
    write_json(
        folder / "config.json", {step: {k: v for k, v in p.items() if k != "RUN_DIR"} for step, p in config.items()}
    )
    manifest = {"run_id": folder.name, "versions": {"torch": "2.0"}, "commit": "abc1234", "device": "CPU"}
    steps = {"03": {"inputs": {"qa/train.jsonl": "0123abcd"}, "artefacts": {"adapter": "feed"}}}
    write_json(folder / "manifest.json", manifest | {"steps": steps})
    for name in FIGURES:
        plots.save(plots.message(name), folder / "figures" / f"{name}.png")
    return folder


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


def read_page(run_dir):
    path = write_report(run_dir)
    assert path == run_dir / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def test_complete_run_says_all(run_dir):
    page = read_page(run_dir)
    assert "Not all of this run could be read" not in page.said
    assert "With the adapter, 75.0% of 12 questions on pictures of 3 races in the test set" in page.said
    assert "The gain over the base is +75.0 points" in page.said
    headings = ("Scores by question family", "What is taken for what", "Errors", "How to reproduce", "Known limits")
    assert all(heading in page.said for heading in headings)
    assert "1.5 minutes, 50.0 questions per second" in page.said and "2.50 MB" in page.said
    assert "seed 3 commit abc1234 versions torch 2.0 device CPU" in page.said and "0123abcd" in page.said
    assert "12 pictures, 3 races, 1 track" in page.said and "12 of the test split" in page.said
    for group in ("What was asked", "Of what data", "By which model"):
        assert group in page.said


def test_the_headline_stands_beside_its_baselines_with_its_interval_before_anything_else(run_dir):
    said = read_page(run_dir).said
    first = said[: said.index("With the adapter")]
    assert re.search(r"fine-tuned model 75.0% [\d.]+% to [\d.]+% most frequent answer", first)
    assert "the same model, blind 0.0%" in first and "base, not fine-tuned 0.0%" in first


def test_every_link_of_the_contents_leads_somewhere(beside):
    source = write_report(beside).read_text(encoding="utf-8")
    links, anchors = (re.findall(pattern, source) for pattern in (r'href="#([^"]+)"', r'<h2 id="([^"]+)"'))
    assert links == anchors and len(set(anchors)) == len(anchors) > 8
    assert anchors[:3] == ["scores-by-question-family", "what-is-taken-for-what", "errors"]
    assert anchors[-2:] == ["how-to-reproduce", "known-limits"]


def test_page_is_one_file_with_described_pictures(run_dir):
    page = read_page(run_dir)
    assert len(page.pictures) == len(FIGURES)
    for picture in page.pictures:
        kind, data = picture["src"].split(",")
        assert kind == "data:image/webp;base64" and base64.b64decode(data)[8:12] == b"WEBP"
        assert len(picture["alt"]) > 5
    assert "ego 75.0%" in page.pictures[0]["alt"]
    source = (run_dir / "report.html").read_text()
    assert not re.search(r"""src=["'](?!data:)""", source), "nothing is loaded from elsewhere"
    linked = re.findall(r"""href=["'](?!#)([^"']*)""", source)
    wrong = [row for row in read_jsonl(run_dir / "predictions.jsonl") if not row["correct"]]
    assert linked and all(link.startswith("http://127.0.0.1:") for link in linked), "links lead into the explorer alone"
    assert explorer_link(wrong[0]["image_file"], wrong[0]["question"]) in [html.unescape(link) for link in linked]


def test_figures_of_the_notebooks_have_captions():
    """Every figure a notebook saves is known to the report."""
    saved = set()
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        saved |= set(re.findall(r"figures.{1,12}?(\w+)\.png", notebook.read_text(encoding="utf-8")))
    assert len(saved) > 8
    assert {name for name in saved if not name.startswith(tuple(CAPTIONS))} == set()


def test_command_repeats_what_differs_from_the_profile(run_dir):
    said = read_page(run_dir).said
    assert "./run_all.sh smoke -p SEED 3" in said
    assert "-p LEARNING_RATE 0.5" in said
    assert "-p EPOCHS" not in said, "one epoch is what the smoke profile has"


def test_errors_stand_as_text_and_are_escaped(run_dir):
    page = read_page(run_dir)
    assert page.tags.count("script") == 1, "the page's own, which unfolds for printing"
    assert "What <script>alert(1)</script> is | this?" in page.said
    assert "3 times" in page.said and "<b>gnu" in page.said and "90.0%" in page.said


@pytest.mark.parametrize(
    "name", ["metrics.json", "predictions.jsonl", "manifest.json", "config.json", "figures/score_worst.png"]
)
def test_missing_artefact_is_named_and_the_rest_shown(run_dir, name):
    (run_dir / name).unlink()
    page = read_page(run_dir)
    assert f"{name}: not there" in page.said
    assert "Known limits" in page.said and len(page.pictures) >= len(FIGURES) - 1
    assert name.replace("_", r"\_") in (run_dir / "report.md").read_text()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", "{"),
        ("metrics.json", "[1]"),
        ("predictions.jsonl", '{"question": "?"}'),
        ("predictions.jsonl", "[]"),
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


def test_metrics_of_the_bare_contract_are_enough(run_dir):
    bare = {
        "split": "custom",
        "n": 12,
        "exact": 0.75,
        "families": {"other": {"n": 12, "exact": 0.75}},
        "train_seconds": None,
    }
    write_json(run_dir / "metrics.json", bare)
    (run_dir / "train_log.jsonl").unlink()
    page = read_page(run_dir)
    assert "75.0% of 12 questions" in page.said and "none in this run" in page.said
    assert "Not all of this run" not in page.said


def test_predictions_of_another_scoring_are_noticed(run_dir):
    write_predictions([predict(1, "tux")], run_dir / "predictions.jsonl")
    assert "1 rows, but metrics.json says n = 12" in read_page(run_dir).said


def test_markdown_twin(run_dir):
    write_report(run_dir)
    text = (run_dir / "report.md").read_text()
    assert "| all | 12 | 75.0% |" in text and "](figures/score_families.png)" in text
    assert "./run_all.sh smoke -p SEED 3" in text and "- commit: abc1234" in text and "- seed: 3" in text
    assert "## Of what data" in text and "- scored on: 12 pictures, 3 races, 1 track" in text
    assert "qa/train.jsonl: 0123abcd" in text.replace("\\", "") and str(run_dir) not in text


def test_empty_and_absent_folders(tmp_path):
    page = read_page(tmp_path)
    assert "no readable score" in page.said and "predictions.jsonl: not there" in page.said
    with pytest.raises(FileNotFoundError, match="no such run folder"):
        write_report(tmp_path / "nowhere")


def test_pictures_are_described_with_their_numbers(run_dir):
    alts = " ".join(picture["alt"] for picture in read_page(run_dir).pictures)
    assert "Table of counts for the family ego. Most frequent mistakes: tux taken for <b>gnu: 3." in alts


def part(**changes):
    return {"n": 40, "exact": 0.5, "exact_ci95": [0.4, 0.6], "majority": 0.3, "blind": 0.25, **changes}


@pytest.fixture
def beside(run_dir):
    """The same run with everything that is scored beside the headline."""
    wording = {"n": 40, "exact": 0.4, "trained_exact": 0.5, "difference": -0.1, "difference_ci95": [-0.2, 0.0]}
    pairs = {"n": 30, "both": 0.4, "both_ci95": [0.3, 0.5], "first": 0.6, "second": 0.7, "independent": 0.42}
    choice = {**part(exact=0.61), "chance": 0.2}
    metrics = json.loads((run_dir / "metrics.json").read_text()) | {
        "closed_exact": 0.8,
        "extended": {**part(exact=0.55, macro_exact=0.51), "families": {"nearest": part(), "in_view": part(exact=0.6)}},
        "held_out_wordings": {**wording, "same_answer": 0.7, "families": {"ego": {**wording, "same_answer": 0.8}}},
        "consistency": {"mirror": {**pairs, "same": {**pairs, "n": 7}, "families": {"left_right": {**pairs, "n": 17}}}},
        "own_words": {
            **{**wording, "exact": 0.45, "exact_ci95": [0.4, 0.5], "unknown": 0.05, "unknown_ci95": [0.0, 0.1]},
            "families": {"ego": {**wording, "exact": 0.35}},
            "unanswerable": {"n": 60, "unknown": 0.9, "unknown_ci95": [0.8, 0.95]},
        },
        "mc_exact": 0.61,
        "mc": {**choice, "families": {"ego": choice, "other": choice}},
        "comparison": {
            **{"run": "old-run", "n": 9, "exact": 0.7, "other_exact": 0.6, "difference": 0.1, "won": 2, "lost": 1},
            **{"difference_ci95": [-0.1, 0.3], "clusters": "race", "n_clusters": 12, "only_other": 4},
            "families": {"ego": {"n": 9, "exact": 0.7, "difference": 0.1, "won": 2, "lost": 1}},
        },
        "other_splits": {
            "test_unseen": {**part(), "clusters": "race", "n_clusters": 9, "families": {"ego": part(exact=0.2)}}
        },
    }
    write_json(run_dir / "metrics.json", metrics)
    for name in ("score_extended", "score_comparison", "score_won", "score_lost"):
        plots.save(plots.message(name), run_dir / "figures" / f"{name}.png")
    asked = {"question": "Who?", "answer": "tux", "prediction": "tux", "other_prediction": "gnu", "image_file": "a.jpg"}
    write_jsonl(run_dir / "comparison.jsonl", [{"change": "won", **asked}])
    return run_dir


def test_a_comparison_has_a_section_with_figures_and_questions(beside):
    page = read_page(beside)
    assert "Against old-run" in page.said and "neither better nor worse beyond chance" in page.said
    assert "Left out: 4 that only old-run answered" in page.said
    assert "ego 9 70.0%" in page.said and "Who? tux tux gnu a.jpg" in page.said
    alts = [picture["alt"] for picture in page.pictures]
    assert any("percentage points: all +10.0, ego +10.0" in alt for alt in alts)
    (beside / "comparison.jsonl").unlink()
    assert "comparison.jsonl: not there" in read_page(beside).said


def test_figures_of_a_comparison_that_was_not_made_are_not_shown(run_dir):
    plots.save(plots.message("none"), run_dir / "figures" / "score_won.png")
    assert len(read_page(run_dir).pictures) == len(FIGURES)


def test_what_is_scored_beside_the_headline_has_sections_of_its_own(beside):
    page = read_page(beside)
    assert "With the adapter, 75.0% of 12 questions" in page.said, "the headline stays that of the ten forms"
    for words in (
        "Extended questions",
        "55.0% of 40 are answered exactly right (95% interval 40.0% to 60.0%), 51.0% in the mean over the families",
        "in_view Is {kart} in view? 40 60.0%",
        "The difference is -10.0 points (95% interval -20.0 to +0.0); 70.0% get the same answer in both wordings",
        "ego Which kart does the camera follow? 40 50.0% 40.0% -10.0 -20.0 to +0.0 80.0%",
        "45.0% (95% interval 40.0% to 50.0%) and 50.0% are answered exactly right",
        "In own words, 5.0% (0.0% to 10.0%) are answered `unknown`",
        "Of 60 questions that nothing in a picture answers, 90.0% (80.0% to 95.0%) are, as they should be",
        "ego 40 35.0%",
        "unanswerable 60",
        "mirror 30 40.0% 30.0% to 50.0% 60.0% 70.0% 42.0%",
        "mirror, same answer 7 40.0%",
        "left_right 17 40.0%",
        "61.0% of 40 items are right (95% interval 40.0% to 60.0%). Chance is 20.0%",
        "Pictures of 9 races in which no kart drives a track that it drives in training",
        "ego 40 20.0% 40.0% to 60.0% 75.0%",
        "closed answers 80.0% taking the likeliest answer of each kind",
        "follow stricter rules",
    ):
        assert words in page.said
    assert sum("nearest 50.0%" in picture["alt"] for picture in page.pictures) == 1
    text = (beside / "report.md").read_text()
    assert "## Multiple choice" in text and "| the ego kart | 40 | 61.0% |" in text
    assert "Which kart does the camera follow?" not in text, "columns of running text are left out"


def test_a_part_that_is_not_there_has_no_section(run_dir, beside):
    metrics = json.loads((run_dir / "metrics.json").read_text())
    parts = {
        "extended": "Extended questions",
        "held_out_wordings": "Wordings that training never saw",
        "own_words": "Own words",
        "consistency": "Consistency",
        "mc": "Multiple choice",
        "other_splits": "Line-ups never seen",
    }
    for key, title in parts.items():
        write_json(run_dir / "metrics.json", {name: value for name, value in metrics.items() if name != key})
        said = read_page(run_dir).said
        assert f"{title} " not in said.replace("Extended questions, wordings", "")
        assert all(other in said for other in parts.values() if other != title)


@pytest.mark.browser
def test_in_print_nothing_is_folded_or_cut(beside, page):
    """What opens on a click on the screen stands open on paper, and nothing is wider than the paper."""
    page.set_viewport_size({"width": 700, "height": 990})  # A4 with margins, at 96 px an inch
    page.goto(write_report(beside).as_uri())
    shown = "[...document.querySelectorAll('details table')].map(table => table.checkVisibility())"
    assert page.evaluate(shown) and not any(page.evaluate(shown))
    page.emulate_media(media="print")
    assert all(page.evaluate(shown))
    assert page.evaluate("document.documentElement.scrollWidth") <= 700
    page.emulate_media(media="screen")


@pytest.mark.browser
@pytest.mark.parametrize("width", [1200, 390])
def test_page_fits_its_window(beside, page, width):
    """Nothing but what scrolls in a box of its own is wider than the window."""
    path = write_report(beside)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_headline_says_what_seeing_is_worth_and_which_families_gain_nothing():
    row = {"n": 10, "exact": 0.5, "majority": 0.5}
    metrics = {
        "split": "test",
        "n": 20,
        "exact": 0.6,
        "exact_ci95": [0.5, 0.7],
        "gain_over_blind": 0.25,
        "gain_over_blind_ci95": [0.2, 0.3],
        "clusters": "picture",
        "n_clusters": 4,
        "families": {"count_left": row, "track": {**row, "exact": 0.7}},
    }
    text = headline(metrics)
    assert "Seeing the picture is worth +25.0 points (95% interval +20.0 to +30.0)" in text
    assert text.endswith("No better than the most frequent answer: count_left.")
    assert "of one race" in text


def test_a_run_is_reported_again_by_one_command(run_dir, capsys):
    assert cli.main(["report", str(run_dir)]) == 0
    assert capsys.readouterr().out.strip() == str(run_dir / "report.html")
    assert cli.main(["report", str(run_dir.parent / "nowhere")]) == 2
    assert "no such run" in capsys.readouterr().err


def test_command_of_a_scoring_alone_is_the_notebook(run_dir):
    write_json(run_dir / "config.json", {"04": {"QA_FILE": "my qa.json", "SEED": 0}})
    page = read_page(run_dir)
    assert "notebooks/04_error_analysis.ipynb" in page.said and "-p QA_FILE 'my qa.json'" in page.said
    assert "./run_all.sh" not in page.said


def test_faults_of_labels_have_a_section_of_their_own(run_dir):
    fault = {"family": "count", "what is wrong": "no <b>answer", "questions": 3, "such as": "'3.0' (3)"}
    metrics = json.loads((run_dir / "metrics.json").read_text())
    write_json(run_dir / "metrics.json", metrics | {"label_faults": [fault]})
    page = write_report(run_dir).read_text()
    assert "Labels that cannot be scored</h2>" in page and "no &lt;b&gt;answer" in page and "no <b>" not in page
    assert "## Labels that cannot be scored" in (run_dir / "report.md").read_text()
    write_json(run_dir / "metrics.json", metrics | {"label_faults": []})
    assert "Labels that cannot be scored" not in write_report(run_dir).read_text()
