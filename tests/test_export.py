"""What is exported answers without this library as it does with it, and is written whole or not at all."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from tiny import fresh, make_base, pictures

from stkvlm_lib import __main__ as cli
from stkvlm_lib import runs
from stkvlm_lib.config import ROOT
from stkvlm_lib.data.pictures import load_image
from stkvlm_lib.files import write_json
from stkvlm_lib.model_files import ModelError
from stkvlm_lib.pretraining import random_smolvlm
from stkvlm_lib.qa.qa_sets import by_picture, make_records
from stkvlm_lib.vlm import export
from stkvlm_lib.vlm.adapter import load_answerer, save_adapter
from stkvlm_lib.vlm.export import export_adapter

COURSE_ADAPTER = ROOT / "models" / "course_adapter"
PICTURES = sorted((ROOT / "frames" / "test").glob("*_im.jpg"))
SPELLED = ("WHAT'S OUR KART CALLED??", "what track is this", "How many karts are there in the scenario?")
ALONE = """
import json, re, sys
sys.modules["stkvlm_lib"] = None  # as where it is not installed
folder, asked, auto = sys.argv[1:]
card = open(f"{folder}/README.md", encoding="utf-8").read()
exec(re.search(r"```python\\n(.+?)```", card, re.S)[1].replace("FOLDER", folder))
pairs = json.load(open(asked))
given = [answer(*pair) for pair in pairs]
if auto:
    from peft import AutoPeftModel
    model = AutoPeftModel.from_pretrained(f"{folder}/adapter")
    assert [answer(*pair) for pair in pairs[:3]] == given[:3]
print(json.dumps(given))
"""


def answered_alone(folder: Path, asked: list[tuple[str, str]], work: Path, auto: bool = False) -> list[str]:
    """What the lines of the card answer in a process that has no stkvlm_lib. asked: (picture's path, question)."""
    shutil.copy(PICTURES[0], work / "picture.jpg")
    write_json(work / "asked.json", asked)
    command = [sys.executable, "-I", "-c", ALONE, str(folder), "asked.json", "auto" if auto else ""]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def answered(answerer, asked: list[tuple[str, str]]) -> list[str]:
    """What this library answers, questions about one picture together."""
    groups = {picture: [question for other, question in asked if other == picture] for picture, _ in asked}
    features = answerer.encode([load_image(Path(picture)) for picture in groups])
    given = answerer.answer_encoded(features, list(groups.values()))
    found = {
        (picture, question): answer.text
        for (picture, group), answers in zip(groups.items(), given, strict=True)
        for question, answer in zip(group, answers, strict=True)
    }
    return [found[pair] for pair in asked]


@pytest.fixture(scope="module")
def questions(bundled):
    """50 questions of the course's forms about six bundled test pictures, some spelled otherwise."""
    groups = by_picture(make_records(bundled, "test"))
    names = list(groups)[::105][:6]
    asked = [(str(ROOT / "frames" / name), record.question) for name in names for record in groups[name]]
    return [*asked[:47], *((str(ROOT / "frames" / names[0]), question) for question in SPELLED)]


@pytest.mark.parametrize("merge", [True, False], ids=["merged", "beside"])
def test_the_cards_lines_answer_fifty_questions_as_this_library_does(questions, tmp_path, merge):
    """And AutoPeftModel finds the base by itself."""
    folder = export_adapter(COURSE_ADAPTER, tmp_path / "made", merge=merge)
    expected = answered(load_answerer(COURSE_ADAPTER), questions)
    assert len(questions) == 50 and len(set(expected)) > 10
    assert answered_alone(folder, questions, tmp_path, auto=not merge) == expected


@pytest.mark.slow
@pytest.mark.parametrize("merge", [True, False], ids=["merged", "beside"])
def test_they_answer_three_hundred_questions_so(bundled, tmp_path, merge):
    """But for `unknown`, which this library never answers to the course's own questions."""
    groups = by_picture(make_records(bundled, "test"))
    asked = [(str(ROOT / "frames" / name), r.question) for name in list(groups)[::16] for r in groups[name]][:300]
    expected = answered(load_answerer(COURSE_ADAPTER), asked)
    given = answered_alone(export_adapter(COURSE_ADAPTER, tmp_path / "made", merge=merge), asked, tmp_path)
    other = [theirs for ours, theirs in zip(expected, given, strict=True) if ours != theirs]
    assert len(asked) == 300 and len([text for text in other if text != "unknown"]) <= 1 and len(other) <= 6


@pytest.fixture
def small_smolvlm(tmp_path, monkeypatch):
    """The class and the picture settings of SmolVLM-256M-Instruct, small and random."""
    small = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    monkeypatch.setattr(random_smolvlm, "VISION", random_smolvlm.VISION | small)
    text = small | {"num_key_value_heads": 1, "head_dim": 32, "vocab_size": 4100}
    monkeypatch.setattr(random_smolvlm, "TEXT", random_smolvlm.TEXT | text)
    return random_smolvlm.write_random_smolvlm(tmp_path / "small_smolvlm")


@pytest.mark.parametrize("merge", [True, False], ids=["merged", "beside"])
def test_a_base_of_the_hubs_class_is_exported_with_its_picture_settings(small_smolvlm, tmp_path, merge):
    save_adapter(fresh(small_smolvlm), tmp_path / "adapter", pictures(1)[0])
    folder = export_adapter(tmp_path / "adapter", tmp_path / "made", merge=merge, base_model=str(small_smolvlm))
    asked = [(str(PICTURES[i]), question) for i, question in enumerate(SPELLED)]
    expected = answered(load_answerer(tmp_path / "adapter", str(small_smolvlm)), asked)
    folder = folder.rename(tmp_path / "moved")
    assert answered_alone(folder, asked, tmp_path) == expected
    saved = json.loads((folder / ("" if merge else "base") / "processor_config.json").read_text())
    assert saved["image_processor"]["do_image_splitting"] is False


@pytest.mark.slow
def test_smolvlm_in_its_own_size_is_exported(tmp_path):
    base = random_smolvlm.write_random_smolvlm(tmp_path / "base")
    save_adapter(fresh(base), tmp_path / "adapter", pictures(1)[0])
    folder = export_adapter(tmp_path / "adapter", tmp_path / "made", merge=True, base_model=str(base))
    asked = [(str(PICTURES[0]), SPELLED[0])]
    assert answered_alone(folder, asked, tmp_path) == answered(load_answerer(tmp_path / "adapter", str(base)), asked)


@pytest.fixture(scope="module")
def small(base_folder, tmp_path_factory):
    """A small adapter, not quantized, in a run folder."""
    folder = tmp_path_factory.mktemp("run")
    settings = {"quantization": "none"}
    save_adapter(fresh(base_folder, "none"), folder / "adapter", pictures(1)[0], settings=settings)
    return folder / "adapter"


def test_a_merged_model_is_a_base_of_this_project(small, base_folder, tmp_path):
    folder = export_adapter(small, tmp_path / "made", merge=True, base_model=str(base_folder))
    merged = load_answerer(None, str(folder), quantization="none")
    ours = load_answerer(small, str(base_folder), quantization="none")
    asked = [(str(PICTURES[0]), question) for question in SPELLED]
    assert answered(merged, asked) == answered(ours, asked)
    assert answered(load_answerer(None, str(base_folder), quantization="none"), asked) != answered(ours, asked)


@pytest.mark.parametrize("merge", [True, False])
def test_the_card_says_what_the_weights_are_and_keeps_figures_and_licence(tmp_path, merge):
    folder = export_adapter(COURSE_ADAPTER, tmp_path / "made", merge=merge)
    card = ModelCard((folder / "README.md").read_text(encoding="utf-8"))
    assert card.data.library_name == ("transformers" if merge else "peft") and card.data.license == "cc-by-sa-4.0"
    assert card.data.eval_results and card.data.base_model is None and ("lora" in card.data.tags) is not merge
    words = ("4 bit (NF4)", "32 bit", "## Figures", "## Limits", "temperature: 1 for")
    assert all(word in card.text for word in words), card.text
    assert card.text.count("## Load it and ask") == 1 and "stkvlm_lib" not in card.text
    assert str(tmp_path) not in card.text


def test_files_are_readable_as_the_umask_says(small, base_folder, tmp_path):
    before = os.umask(0o027)
    try:
        folder = export_adapter(small, tmp_path / "made", merge=False, base_model=str(base_folder))
        save_adapter(fresh(base_folder, "none"), tmp_path / "saved", pictures(1)[0])
    finally:
        os.umask(before)
    files = [path for made in (folder, tmp_path / "saved") for path in made.rglob("*") if path.is_file()]
    assert sum(path.suffix == ".safetensors" for path in files) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o640}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750


def test_what_is_there_already_is_left_alone(small, base_folder, tmp_path):
    (tmp_path / "made").mkdir()
    export_adapter(small, tmp_path / "made", merge=True, base_model=str(base_folder))
    before = {path: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    with pytest.raises(ModelError, match="made: is there already; remove it, or name another"):
        export_adapter(small, tmp_path / "made", merge=False, base_model=str(base_folder))
    assert {path: path.read_bytes() for path in (tmp_path / "made").iterdir()} == before


def test_nothing_is_left_of_an_export_that_fails(small, base_folder, tmp_path, monkeypatch):
    def full(path, value):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(export, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        export_adapter(small, tmp_path / "in" / "made", merge=True, base_model=str(base_folder))
    assert list((tmp_path / "in").iterdir()) == []


def test_another_base_and_broken_weights_are_refused_before_anything_is_written(small, tmp_path):
    other = make_base(tmp_path / "other", seed=5)
    with pytest.raises(ModelError, match="made on base"):
        export_adapter(small, tmp_path / "made", merge=True, base_model=str(other))
    broken = shutil.copytree(small, tmp_path / "broken")
    (broken / "adapter_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="weights cannot be read"):
        export_adapter(broken, tmp_path / "made", merge=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "other"]


@pytest.mark.parametrize("merge", [True, False])
def test_weights_that_are_no_numbers_are_not_exported(small, base_folder, tmp_path, merge):
    broken = shutil.copytree(small, tmp_path / "broken")
    weights = load_file(broken / "adapter_model.safetensors")
    next(iter(weights.values())).fill_(float("nan"))
    save_file(weights, broken / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="no finite numbers"):
        export_adapter(broken, tmp_path / "made", merge=merge, base_model=str(base_folder))
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_an_adapter_is_found_by_its_folder_its_run_and_its_runs_name(small, tmp_path, monkeypatch):
    run = small.parent
    monkeypatch.setattr(runs, "OUTPUTS", run.parent)
    assert runs.find_adapter(str(small)) == small
    assert runs.find_adapter(str(run)) == runs.find_adapter(run.name) == run / "adapter"
    with pytest.raises(FileNotFoundError, match="nothing: no such run"):
        runs.find_adapter("nothing")
    with pytest.raises(ModelError, match="no adapter there; make one with ./run_all.sh, or name another run"):
        runs.find_adapter(str(tmp_path))


def test_the_command_exports_and_says_in_one_line_what_it_refuses(tmp_path, capfd):
    target = tmp_path / "made"
    assert cli.main(["export", str(COURSE_ADAPTER), str(target), "--merge"]) == 0
    assert capfd.readouterr() == (f"{target}\n", "") and "merged" in (target / "README.md").read_text()
    assert cli.main(["export", str(COURSE_ADAPTER), str(target)]) == 2
    assert cli.main(["export", "nothing", str(tmp_path / "other")]) == 2
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 2 and "is there already" in said[0] and "nothing: no such run" in said[1]
