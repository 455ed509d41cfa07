"""The model card: front matter that the hub accepts, the run's figures, and nothing of the machine."""

import ast
import json
import re

import pytest
from huggingface_hub import ModelCard

from stkvlm_lib.analysis.scored_run import ScoredRun
from stkvlm_lib.cards.model_card import model_card, write_model_card
from stkvlm_lib.files import write_json

FAMILY = {"n": 40, "exact": 0.75, "exact_ci95": [0.7, 0.8], "majority": 0.3, "blind": 0.25, "base": 0.0}
METRICS = {
    "split": "test", "n": 40, "exact": 0.75, "exact_ci95": [0.7, 0.8], "prefix": 0.76, "macro_exact": 0.74,
    "majority": 0.3, "blind": 0.25, "base_exact": 0.0, "base_model": "embedded", "quantization": "nf4",
    "families": {"ego": FAMILY, "left_right": FAMILY}, "mc": FAMILY, "seed": 3, "adapter_mb": 1.25,
    "train_seconds": 60.0,
}  # fmt: skip
SETTINGS = {"lora_rank": 16, "lora_alpha": 32, "learning_rate": 0.002, "epochs": 2}


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "20260101-000000-cpu-s3-abc1234"
    write_json(folder / "metrics.json", METRICS)
    write_json(folder / "training.json", {"pictures": 480, "questions": 4881, "steps": 60, "valid_exact": 0.7})
    write_json(folder / "config.json", {"03": {"FRAMES_DIR": str(tmp_path / "secret" / "my frames"), "SEED": 3}})
    steps = {"03": {"inputs": {"qa/train_drawn.jsonl": "0123abcd"}}}
    write_json(folder / "manifest.json", {"commit": "abc1234", "versions": {"torch": "2.0"}, "steps": steps})
    (folder / "adapter").mkdir()
    write_json(folder / "adapter" / "adapter_config.json", {})
    base = {"name": "embedded", "revision": "", "sha256": "feed"}
    write_json(folder / "adapter" / "stkvlm.json", {"base": base, "settings": SETTINGS, "kept_step": 45})
    return folder


def test_the_front_matter_is_what_the_hub_takes(run):
    card = ModelCard(model_card(ScoredRun(run)))
    data = card.data.to_dict()
    assert data["library_name"] == "peft" and data["pipeline_tag"] == "image-text-to-text"
    assert "base_model" not in data and "license" not in data, "neither on the hub nor of the bundled frames"
    values = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert values == {"exact match": 0.75, "exact match, mean over families": 0.74, "prefix match": 0.76}
    assert {result.dataset_split for result in card.data.eval_results} == {"test"}


def test_a_base_on_the_hub_and_the_licence_of_the_bundled_frames_are_named(run):
    write_json(run / "config.json", {"03": {"FRAMES_DIR": ""}})
    assert ModelCard(model_card(ScoredRun(run))).data.license == "cc-by-sa-4.0"
    base = {"name": "owner/base", "revision": "0" * 40, "sha256": "feed"}
    write_json(run / "adapter" / "stkvlm.json", {"base": base, "settings": SETTINGS})
    data = ModelCard(model_card(ScoredRun(run))).data
    assert data.base_model == "owner/base" and data.license is None


def test_the_text_says_base_data_settings_figures_limits_and_how_to_ask(run):
    text = ModelCard(model_card(ScoredRun(run))).text
    assert [*re.findall(r"^## (.+)$", text, re.M)] == [
        "Load it and ask", "How it was trained", "Data", "Settings", "Figures", "Limits", "How it was made"
    ]  # fmt: skip
    assert "| ego | 40 | 75.0% | 70.0% to 80.0% | – | 30.0% | 25.0% | 0.0% |" in text
    assert "trained on: 480 pictures, 4,881 questions" in text and "| learning_rate | 0.002 |" in text
    assert "kept step 45" in text and "`qa/train_drawn.jsonl` has the SHA-256 `0123abcd`" in text
    assert "multiple choice, chance 20 %: 75.0% of 40 (70.0% to 80.0%)" in text and "commit: abc1234" in text
    ours, plain = re.findall(r"```python\n(.+?)```", text, re.S)
    assert ast.parse(ours) and ast.parse(plain) and "stkvlm_lib" not in plain and '"ADAPTER_DIR")' in plain
    assert text.count("```") % 2 == 0
    tables = re.findall(r"(?:^\|.*\n)+", text, re.M)
    assert all(len({line.replace(r"\|", "").count("|") for line in table.splitlines()}) == 1 for table in tables)


def test_nothing_of_the_machine_stands_in_it(run, tmp_path):
    text = model_card(ScoredRun(run))
    assert "my frames" in text and "secret" not in text and str(tmp_path) not in text


def test_the_card_goes_into_the_run_own_adapter_and_never_into_another_folder(run, tmp_path):
    assert write_model_card(run, run / "adapter") == run / "adapter" / "README.md"
    other = tmp_path / "other"
    other.mkdir()
    write_json(other / "stkvlm.json", {"base": {"name": "owner/base", "revision": "abc", "sha256": "1"}})
    before = {path.name: path.read_bytes() for path in other.iterdir()}
    assert write_model_card(run, other) == run / "model_card.md"
    assert "owner/base, revision abc" not in (run / "adapter" / "README.md").read_text()
    assert "base_model: owner/base" in (run / "model_card.md").read_text()
    assert {path.name: path.read_bytes() for path in other.iterdir()} == before


@pytest.mark.parametrize(
    "missing", ["metrics.json", "training.json", "config.json", "manifest.json", "adapter/stkvlm.json"]
)
def test_what_is_missing_is_left_out_of_the_card(run, missing):
    (run / missing).unlink()
    card = ModelCard(model_card(ScoredRun(run)))
    assert "## Load it and ask" in card.text and "None" not in card.text


def test_an_old_run_without_the_newer_parts_has_a_card(run):
    bare = {"split": "custom", "n": 3, "exact": 1 / 3, "families": {"other": {"n": 3, "exact": 1 / 3}}}
    write_json(run / "metrics.json", bare)
    text = model_card(ScoredRun(run))
    assert "| other | 3 | 33.3% |" in text and json.dumps(None) not in text
