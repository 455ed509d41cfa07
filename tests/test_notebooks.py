"""All notebooks of a run through papermill in the smoke profile, and what other programs read of them."""

import json
import os
import re
import statistics
from dataclasses import fields
from pathlib import Path

import nbformat
import papermill
import pytest
from frame_files import write_frame
from scored_folder import make_scored
from tiny import copy_frames

from stkvlm_lib.config import ALONE, PROFILES, ROOT, STEPS
from stkvlm_lib.files import write_json
from stkvlm_lib.grammar.names import TRACKS
from stkvlm_lib.grammar.questions import COURSE_FAMILIES, FAMILIES
from stkvlm_lib.reports.report import write_report

ARTEFACTS = [
    "config.json",
    "manifest.json",
    "metrics.json",
    "predictions.jsonl",
    "report.html",
    "report.md",
    "train_log.jsonl",
    "training.json",
    "adapter/adapter_model.safetensors",
    "adapter/stkvlm.json",
    "qa/test_qa_pairs.json",
    "qa/train.jsonl",
    "qa/train_drawn.jsonl",
    "figures/score_families.png",
    "figures/train_curve.png",
    "stamps/01.json",
    "stamps/04.json",
    "stamps/05.json",
]
NOTEBOOKS = [ROOT / "notebooks" / f"{name}.ipynb" for name, _ in (ALONE | STEPS).values()]


def run_notebook(step: str, out: Path, cwd: Path, **parameters):
    name = (ALONE | STEPS)[step][0]
    return papermill.execute_notebook(
        str(ROOT / "notebooks" / f"{name}.ipynb"),
        str(out),
        {k: str(v) if isinstance(v, Path) else v for k, v in parameters.items()},
        kernel_name="python3",
        cwd=str(cwd),
        progress_bar=False,
    )


@pytest.fixture(autouse=True)
def library_on_the_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # as an installed package would be


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_thin_and_committed_without_outputs(path):
    notebook = nbformat.read(path, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith(f"# {path.name[:2]} ")
    assert "parameters" in code[0].metadata.tags
    ids = [cell["id"] for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in code:
        assert not cell.outputs and cell.execution_count is None
        assert not re.search(r"^\s*(def|class) ", cell.source, re.M)
    assert all(len(cell.source.splitlines()) <= 25 for cell in code[1:])
    kind = next(kind for name, kind in (ALONE | STEPS).values() if name == path.stem)
    assert len(code[0].source.splitlines()) == len(fields(kind)), "one line a parameter, and nothing else"


def test_a_run_leaves_all_its_artefacts(smoke_run):
    missing = [name for name in ARTEFACTS if not (smoke_run / name).is_file()]
    assert not missing
    for step in STEPS:
        for suffix in ("ipynb", "html"):
            assert list((smoke_run / "notebooks").glob(f"{step}*.{suffix}"))


WIDGET = "application/vnd.jupyter.widget-view+json"


def test_cells_show_what_people_read_and_no_object_as_code_writes_it(smoke_run):
    for path in (smoke_run / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(path, 4).cells:
            data = [output.data for output in cell.get("outputs", ()) if "data" in output]
            shown = [
                each.get("text/plain", "") for each in data if WIDGET not in each
            ]  # a page shows the widget itself
            assert not [text for text in shown if re.match(r"\w+\(\w+=", text)], path.name


def test_metrics_keep_the_contract(smoke_run):
    metrics = json.loads((smoke_run / "metrics.json").read_text())
    rows = [json.loads(line) for line in (smoke_run / "predictions.jsonl").read_text().splitlines()]
    pairs = json.loads((smoke_run / "qa" / "test_qa_pairs.json").read_text())
    pictures = {r["image_file"] for r in rows}
    assert len(pictures) == metrics["test_views"] == PROFILES["smoke"]["TEST_VIEWS"]
    assert [(r["image_file"], r["question"], r["answer"]) for r in rows] == [
        (p["image_file"], p["question"], p["answer"]) for p in pairs if p["image_file"] in pictures
    ]
    assert metrics["split"] == "test" and metrics["n"] == len(rows)
    assert metrics["exact"] == pytest.approx(sum(r["correct"] for r in rows) / len(rows), abs=1e-6)
    assert metrics["exact_ci95"][0] <= metrics["exact"] <= metrics["exact_ci95"][1]
    assert metrics["prefix"] >= metrics["exact"]
    assert set(metrics["families"]) == set(COURSE_FAMILIES)
    assert metrics["macro_exact"] == pytest.approx(sum(f["exact"] for f in metrics["families"].values()) / 10, abs=1e-5)
    assert 0 < metrics["adapter_mb"] < 50 and metrics["base_model"] == "embedded" and metrics["seed"] == 0
    assert min(metrics[k] for k in ("train_seconds", "qa_per_second_train", "qa_per_second_eval", "peak_memory_mb")) > 0
    assert all(0 <= r["confidence"] <= 1 for r in rows)


def test_what_is_scored_beside_the_headline_has_figures_and_files_of_its_own(smoke_run):
    metrics = json.loads((smoke_run / "metrics.json").read_text())
    parts = {
        "extended": metrics["extended"],
        "held_out_wordings": metrics["held_out_wordings"],
        "mc": metrics["mc"],
        "test_unseen": metrics["other_splits"]["test_unseen"],
    }
    for name, figures in parts.items():
        lines = (smoke_run / f"predictions_{name}.jsonl").read_text().splitlines()
        assert figures["n"] == len(lines) or name == "extended"  # its file also has the ten forms' other wordings
        assert 0 <= figures["exact"] <= 1
    own = metrics["own_words"]
    assert own["n"] > 200 and own["unanswerable"]["n"] == 60 and set(own["families"]) == set(FAMILIES)
    lines = (smoke_run / "predictions_own_words.jsonl").read_text().splitlines()
    assert len(lines) == 2 * own["n"] + own["unanswerable"]["n"]
    assert not set(metrics["extended"]["families"]) & set(COURSE_FAMILIES)
    assert metrics["mc_exact"] == metrics["mc"]["exact"] and metrics["mc"]["chance"] == 0.2
    assert set(metrics["consistency"]) == {"mirror", "other_view"}
    assert metrics["closed_exact"] > metrics["exact"] - 0.05


def test_the_errors_of_a_run_are_analysed(smoke_run):
    metrics = json.loads((smoke_run / "metrics.json").read_text())
    rows = [json.loads(line) for line in (smoke_run / "predictions.jsonl").read_text().splitlines()]
    budget, wrong = metrics["error_budget"], sum(not row["correct"] for row in rows)
    assert budget["errors"] == wrong == sum(cause["n"] for cause in budget["causes"].values())
    assert sum(row["n"] for row in metrics["slices"]["track"].values()) == len(rows)
    assert metrics["ceiling"]["n"] == metrics["validity"]["n"] == metrics["calibration"]["n"] == len(rows)
    assert {"place", "left_and_right", "tally_left"} <= set(metrics["entailed"])
    fitted = (smoke_run / "predictions_valid.jsonl").read_text().splitlines()
    assert metrics["calibration"]["selective"]["fit"]["n"] == len(fitted)
    for name in ("slices", "budget", "ceiling", "calibration", "causes", "near", "confused_ego"):
        assert (smoke_run / "figures" / f"score_{name}.png").is_file()
    assert list((smoke_run / "figures").glob("score_confusion_*.png"))


def test_even_the_smoke_run_learns_from_the_pictures(smoke_run):
    metrics = json.loads((smoke_run / "metrics.json").read_text())
    assert metrics["exact"] > metrics["base_exact"] - 0.02  # which knows most of it: 320 pictures add nothing for sure
    assert metrics["exact"] > metrics["blind"] + 0.2
    rows = [json.loads(line) for line in (smoke_run / "train_log.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert statistics.median(losses[1:]) < losses[0]


def test_notebook_04_scores_any_adapter_on_any_questions_from_any_folder(smoke_run, tmp_path):
    frames = copy_frames(tmp_path / "frames", "valid", 3, into="")
    view = next(frames.glob("*_00_im.jpg")).name
    questions = [
        {"question": "What track is this?", "answer": "abyss", "image_file": view},
        {"question": "Who leads?", "answer": "tux", "image_file": view},
    ]
    candidates = [f"The track is {name}." for name in TRACKS[:5]]
    choices = [{"image_file": view, "candidates": candidates, "correct_index": 0}]
    files = {"QA_FILE": tmp_path / "qa.json", "MC_FILE": tmp_path / "mc.json"}
    for path, items in zip(files.values(), (questions, choices), strict=True):
        path.write_text(json.dumps(items))
    places = {"RUN_DIR": tmp_path / "new" / "run", "FRAMES_DIR": frames, "ADAPTER_DIR": smoke_run / "adapter"}
    run_notebook("04", tmp_path / "out.ipynb", tmp_path, BOOTSTRAP=100, **files, **places)
    metrics = json.loads((tmp_path / "new" / "run" / "metrics.json").read_text())
    assert (metrics["split"], metrics["n"], set(metrics["families"])) == ("custom", 2, {"track", "other"})
    assert metrics["mc"]["n"] == 1 and metrics["mc_exact"] in (0, 1)
    assert not {"extended", "held_out_wordings", "own_words", "consistency", "other_splits"} & set(metrics)
    assert metrics["train_seconds"] is None and metrics["qa_per_second_train"] is None
    assert metrics["clusters"] == "picture"
    report = write_report(tmp_path / "new" / "run").read_text()
    assert "Multiple choice</h2>" in report and "Not all of this run could be read" not in report


def test_notebook_05_analyses_answers_without_the_model(tmp_path):
    run = make_scored(tmp_path / "run")
    write_json(run / "metrics.json", {"split": "test", "n": 63, "exact": 59 / 63})
    write_json(run / "stamps" / "04.json", {})
    run_notebook("05", tmp_path / "out.ipynb", tmp_path, RUN_DIR=run)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["error_budget"]["errors"] == 4 and metrics["own_words"]["unanswerable"]["n"] == 4
    assert "Not all of this run could be read" not in (run / "report.html").read_text()
    recorded = json.loads((run / "manifest.json").read_text())["steps"]["05"]
    assert "figures/score_budget.png" in recorded["artefacts"] and "metrics.json" in recorded["artefacts"]
    shown = nbformat.read(tmp_path / "out.ipynb", 4)
    said = "\n".join(str(output) for cell in shown.cells for output in cell.get("outputs", ()))
    assert "63 answers, 4 of them wrong" in said and "None found" in said and "another run in COMPARE_RUN" in said


def test_notebook_02_writes_the_questions_of_a_flat_folder(tmp_path):
    frames = copy_frames(tmp_path / "frames", "valid", 4, into="")
    run_notebook("02", tmp_path / "out.ipynb", tmp_path, FRAMES_DIR=frames, RUN_DIR=tmp_path / "run")
    pairs = json.loads((tmp_path / "run" / "qa" / "all_qa_pairs.json").read_text())
    assert pairs and set(pairs[0]) == {"question", "answer", "image_file"}
    assert all((frames / pair["image_file"]).is_file() for pair in pairs)


def test_notebook_01_shows_a_folder_of_a_single_picture_whose_train_is_empty(tmp_path):
    (tmp_path / "set" / "train").mkdir(parents=True)
    write_frame(tmp_path / "set" / "valid", "00000", views=1)
    run_notebook("01", tmp_path / "01.ipynb", tmp_path, RUN_DIR=tmp_path / "run", FRAMES_DIR=tmp_path / "set")
    assert "1 races, each in one split; 0 frames were left out" in (tmp_path / "01.ipynb").read_text()


def test_misspelt_parameters_stop_the_notebook(tmp_path):
    wrong = {"LABEL_SAMPEL": "1", "workers": "1"}
    with pytest.raises(papermill.PapermillExecutionError, match=r"unknown parameter LABEL_SAMPEL .*, workers"):
        run_notebook("02", tmp_path / "out.ipynb", tmp_path, RUN_DIR=tmp_path / "run", **wrong)
    assert not (tmp_path / "run").exists()


def test_notebook_00_without_the_game_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "pystk2.py").write_text("raise ImportError('No module named pystk2')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    with pytest.raises(papermill.PapermillExecutionError, match=r'RenderError.*pip install -e "\.\[render\]"'):
        run_notebook("00", tmp_path / "out.ipynb", tmp_path, OUT_DIR=tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.render
def test_notebook_00_makes_frames_that_notebook_01_shows(tmp_path):
    out = tmp_path / "set"
    recipe = {"tracks": ["hacienda", "lighthouse", "scotland"], "frames": 1, "views": 2, "karts_max": 6}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    run_notebook("00", tmp_path / "00.ipynb", tmp_path, OUT_DIR=out, RECIPE=tmp_path / "recipe.json", WORKERS=1)
    assert "PySuperTuxKart2" in (out / "README.md").read_text()
    run_notebook("01", tmp_path / "01.ipynb", tmp_path, FRAMES_DIR=out, RUN_DIR=tmp_path / "run")
    assert (tmp_path / "run" / "figures" / "data_contact.png").is_file()


def test_the_adapter_has_a_card_of_the_run_figures(smoke_run):
    metrics = json.loads((smoke_run / "metrics.json").read_text())
    card = (smoke_run / "adapter" / "README.md").read_text()
    assert f"| all | {metrics['n']:,} | {metrics['exact']:.1%} |" in card
    assert str(ROOT) not in card and str(smoke_run.parent) not in card


def test_notebook_05_compares_two_runs_on_the_questions_of_both(smoke_run, tmp_path):
    """The same adapter on two of the same races, two pictures each as in the smoke run, so the same ones: nothing is
    won or lost but for rounding."""
    frames, run = copy_frames(tmp_path / "frames", "test", 6), tmp_path / "run"
    before = {path.name: path.read_bytes() for path in (smoke_run / "adapter").iterdir()}
    places = {"RUN_DIR": run, "FRAMES_DIR": frames, "ADAPTER_DIR": smoke_run / "adapter"}
    fewer = {"TEST_VIEWS": 4, "OWN_WORDS_PICTURES": 0, "BOOTSTRAP": 100}
    run_notebook("04", tmp_path / "04.ipynb", tmp_path, **fewer, **places)
    assert not (run / "report.html").exists(), "answers are shown without the model, in the next notebook"
    run_notebook("05", tmp_path / "05.ipynb", tmp_path, RUN_DIR=run, COMPARE_RUN=smoke_run)
    metrics = json.loads((run / "metrics.json").read_text())
    compared = metrics["comparison"]
    assert compared["n"] == metrics["n"] and compared["run"] == smoke_run.name and compared["only_other"] > 0
    assert abs(compared["difference"]) < 0.05
    assert f"Against {smoke_run.name}" in (run / "report.html").read_text()
    assert all((run / "figures" / f"score_{name}.png").is_file() for name in ("comparison", "won", "lost"))
    assert (run / "model_card.md").is_file()
    assert {path.name: path.read_bytes() for path in (smoke_run / "adapter").iterdir()} == before
