"""RESULTS.md: figures kept from runs and benchmarks, and the page made of them."""

import importlib.util
import sys

import pytest
from scored_folder import make_scored

from stkvlm_lib.analysis.scored_run import ScoredRun
from stkvlm_lib.analysis.story import measure
from stkvlm_lib.config import ROOT
from stkvlm_lib.files import read_json, write_json


@pytest.fixture
def results(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("results", ROOT / "benchmarks" / "results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(module, "PAGE", tmp_path / "RESULTS.md")
    monkeypatch.setattr(module, "README", tmp_path / "README.md")
    (tmp_path / "README.md").write_text("Before.\n<!-- results -->\nold\n<!-- end -->\nAfter.\n")
    return module


@pytest.fixture
def scored(tmp_path):
    """A scored run with all that a run can have."""
    folder = make_scored(tmp_path / "run")
    run = ScoredRun(folder)
    write_json(folder / "metrics.json", measure(ScoredRun(folder, metrics={"split": "test"}, frames=run.frames)))
    return folder


def test_a_run_is_kept_and_shown_with_what_made_it(results, scored):
    results.main(["keep", str(scored), "cpu-seed0", "--note", "Made by hand."])
    kept = read_json(results.KEPT / "cpu-seed0.json")
    assert kept["metrics"] == read_json(scored / "metrics.json") and str(scored.parent) not in str(kept["made"])
    assert results.main([]) == 0
    page = results.PAGE.read_text()
    exact = f"{100 * kept['metrics']['exact']:.1f}%"
    assert f"| ten forms | {exact} | {exact} | – |" in page and "Made by hand." in page
    for title in results.DETAILS:
        assert f"<summary>{title}</summary>" in page


def test_the_readme_gets_its_rows_and_nothing_else_changes(results, scored):
    results.main(["keep", str(scored), "cpu-seed0"])
    results.main([])
    lines = results.README.read_text().splitlines()
    assert lines[:2] == ["Before.", "<!-- results -->"] and lines[-2:] == ["<!-- end -->", "After."]
    assert len(lines) == 4 + 2 + 5 and "old" not in lines


def test_seeds_stand_beside_each_other_with_mean_and_spread(results, scored):
    metrics = read_json(scored / "metrics.json")
    for seed, exact in enumerate((0.8, 0.9)):
        write_json(scored / "metrics.json", metrics | {"exact": exact})
        results.main(["keep", str(scored), f"cpu-seed{seed}"])
    results.main([])
    assert "| ten forms | 80.0% | 90.0% | 85.0% | 7.1 |" in results.PAGE.read_text()
    assert "fine-tuned, mean of 2 seeds" in (told := results.README.read_text())
    assert "| the course's ten forms, on races never seen | 85.0% |" in told


def test_what_a_benchmark_prints_is_recorded(results):
    code = "import stkvlm_lib; print('one\\ntwo')"
    assert results.main(["record", "speed", "How fast", "--", sys.executable, "-c", code]) == 0
    kept = read_json(results.KEPT / "speed.json")
    assert kept["printed"] == ["one", "two"] and kept["made"]["command"].startswith("python -c ")
    assert results.main([]) == 0 and "## How fast" in results.PAGE.read_text()


def test_what_the_gpu_proof_found_is_kept_whole_and_a_dry_one_is_not(results, tmp_path, capsys):
    facts = {"dry": False, "date": "2026-11-27", "device": "H200", "commit": "abc", "load": 0.1}
    parts = [f"### part {n}\n\n| | it |\n| --- | --: |\n| a | {n} |" for n in range(20)]
    (tmp_path / "summary.md").write_text("\n\n".join(["GPU proof.", "| part | result |\n| --- | --- |", *parts]) + "\n")
    write_json(tmp_path / "summary.json", facts | {"dry": True})
    assert results.main(["proof", str(tmp_path)]) == 2 and "proves nothing" in capsys.readouterr().err
    write_json(tmp_path / "summary.json", facts)
    assert results.main(["proof", str(tmp_path)]) == 0 == results.main([])
    page = results.PAGE.read_text()
    assert "## On a GPU" in page and "abc, H200" in page and all(part in page for part in parts)


def test_what_fails_or_has_no_score_is_not_kept(results, tmp_path, capsys):
    assert results.main(["record", "speed", "How fast", "--", sys.executable, "-c", "raise SystemExit(3)"]) == 2
    (tmp_path / "empty").mkdir()
    assert results.main(["keep", str(tmp_path / "empty"), "x"]) == 2
    said = capsys.readouterr().err
    assert "status 3" in said and "no metrics.json with a score" in said and not results.KEPT.exists()


def test_the_page_is_what_the_kept_files_give(results, monkeypatch):
    """RESULTS.md of the repository was written by the command, after the last file was kept."""
    monkeypatch.setattr(results, "KEPT", ROOT / "benchmarks" / "results")
    results.README.write_text((ROOT / "README.md").read_text())
    results.main([])
    assert results.PAGE.read_text() == (ROOT / "RESULTS.md").read_text()
    assert results.README.read_text() == (ROOT / "README.md").read_text()
