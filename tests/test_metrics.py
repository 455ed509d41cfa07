import numpy as np
import pytest
from tiny import prediction as row

from stkvlm_lib.config import ROOT, ScoreConfig
from stkvlm_lib.files import read_json, write_json
from stkvlm_lib.scores.metrics import Bootstrap, score, settings_of


def test_score_counts_overall_macro_majority_and_gain():
    rows = [
        row("a", "1", "1", base_correct=False),
        row("a", "1", "2", base_correct=False),
        row("b", "2", "2", base_correct=False),
        row("b", "tux", "tux", "ego", base_correct=False),
    ]
    figures = score(rows, resamples=200, seed=0)
    assert figures["n"] == 4
    assert figures["exact"] == 0.75
    assert figures["families"]["count"]["exact"] == pytest.approx(2 / 3, abs=1e-6)
    assert figures["macro_exact"] == pytest.approx((2 / 3 + 1) / 2, abs=1e-6)
    assert figures["majority"] == 0.75  # "1" right twice of three, "tux" once of once
    assert figures["families"]["count"]["majority"] == pytest.approx(2 / 3, abs=1e-6)
    assert figures["blind"] == 0.5
    assert figures["gain_over_base"] == 0.75 and figures["base_exact"] == 0
    assert (figures["clusters"], figures["n_clusters"]) == ("race", 2)
    assert figures["exact_ci95"] == [0.5, 1.0]  # race a alone scores 1/2, race b alone 1


def test_unknown_wording_is_scored_as_a_family_of_its_own():
    figures = score([row(), row("b", family="other", prediction="no")], resamples=100, seed=0)
    assert figures["families"]["other"]["exact"] == 0
    assert figures["macro_exact"] == 0.5


def test_intervals_cluster_by_race_and_are_wider_for_it():
    rng = np.random.default_rng(0)
    clustered = [row(f"r{r}", prediction="1" if r % 2 else "2", picture=i) for r in range(10) for i in range(50)]
    apart = [row(f"r{i}", prediction=str(rng.integers(1, 3))) for i in range(500)]
    wide = score(clustered, resamples=500, seed=0)["exact_ci95"]
    narrow = score(apart, resamples=500, seed=0)["exact_ci95"]
    assert wide[1] - wide[0] > 3 * (narrow[1] - narrow[0])


def test_a_single_race_resamples_pictures_and_says_so():
    rows = [row("a", prediction="1" if i % 2 else "2", picture=i) for i in range(20)]
    figures = score(rows, resamples=300, seed=0)
    assert figures["clusters"] == "picture"
    low, high = figures["exact_ci95"]
    assert low < 0.5 < high


def test_the_bootstrap_is_seeded():
    rows = [row(f"r{i}", prediction="1" if i % 3 else "2") for i in range(12)]
    values = np.array([r.correct for r in rows], float)
    assert Bootstrap(rows, 200, 1)(values) == Bootstrap(rows, 200, 1)(values)
    assert Bootstrap(rows, 200, 1)._weights.sum(1).tolist() == [12] * 200


def test_figures_that_were_not_asked_for_are_left_out():
    figures = score([row(), row("b")], resamples=100, seed=0)
    assert not {"base_exact", "gain_over_base", "closed_exact"} & set(figures)
    assert "gain_over_blind" in figures and "base" not in figures["families"]["count"]
    seeing = score([row(blind_correct=None), row("b", blind_correct=None)], resamples=100, seed=0)
    assert not {"blind", "gain_over_blind"} & set(seeing) and "blind" not in seeing["families"]["count"]


def test_the_closed_score_stands_beside_the_written_one_and_covers_whole_families():
    known = {"closed_prediction": "1", "base_prediction": "x", "base_correct": False}
    rows = [row("a", "1", "2", closed_correct=True, **known), row("b", "2", "2", closed_correct=False, **known)]
    figures = score(rows, resamples=100, seed=0)
    assert (figures["exact"], figures["closed_exact"]) == (0.5, 0.5)
    assert figures["families"]["count"]["closed_exact"] == 0.5
    other = row("b", family="other", prediction="no", base_correct=False)
    figures = score([*rows, other], resamples=100, seed=0)
    assert "closed_exact" not in figures and "closed_exact" not in figures["families"]["other"]
    assert figures["families"]["count"]["closed_exact"] == 0.5 and figures["base_exact"] == 0


def test_metrics_name_the_settings_that_made_them(tmp_path):
    config = ScoreConfig(run_dir=str(tmp_path), test_views=12)
    write_json(tmp_path / "config.json", {"02": {"SEED": 1}, "03": {"LORA_RANK": 8}, "04": {"SEED": 9}})
    own = settings_of(config, own=True)
    assert own["02_generate_qa"] == {"SEED": 1} and own["03_finetune_qlora"] == {"LORA_RANK": 8}
    assert own["04_error_analysis"]["TEST_VIEWS"] == 12 and "RUN_DIR" not in own["04_error_analysis"]


def test_of_another_adapter_its_own_record_tells(tmp_path):
    course = ROOT / "models" / "course_adapter"
    found = settings_of(ScoreConfig(run_dir=str(tmp_path), adapter_dir=str(course)), own=False)
    assert found["adapter"] == read_json(course / "stkvlm.json")["settings"] and "03_finetune_qlora" not in found
