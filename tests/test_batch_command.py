"""`batch` and `compare` on the command line: flags, what is printed, exit status, and how it goes on."""

import shlex
import sys
from pathlib import Path

import nbformat
import pytest
import tiny_run
from nbclient import NotebookClient
from test_batch_results import make_run

from stkvlm_lib import __main__ as cli
from stkvlm_lib import pipeline, runs
from stkvlm_lib.batch import machines
from stkvlm_lib.batch.run_batch import as_child, run_batch
from stkvlm_lib.commands import batch as command
from stkvlm_lib.commands import command_line
from stkvlm_lib.commands import run as run_command
from stkvlm_lib.config import ROOT, ConfigError
from stkvlm_lib.files import read_json


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    folder = tmp_path / "outputs"
    folder.mkdir()
    monkeypatch.setattr(runs, "OUTPUTS", folder)
    monkeypatch.setattr(machines, "gpus_here", lambda: ())
    monkeypatch.setattr(pipeline, "default_profile", lambda: "cpu")
    monkeypatch.setitem(run_batch.__kwdefaults__, "command", tiny_run.command)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return folder


def options_of(text):
    return command_line.parse(["batch", *shlex.split(text)])


def planned(text):
    return command.batch_of(options_of(text))


def test_values_with_commas_are_a_grid_and_others_are_fixed(outputs):
    batch = planned(
        "smoke -p LORA_RANK 8,16,32 EPOCHS 2 -p TRAIN_VIEWS 64 --seeds 0 1 2 --name rank --compare-to lora_rank-16"
    )
    assert list(batch.settings) == ["lora_rank-8", "lora_rank-16", "lora_rank-32"] and len(batch.runs) == 9
    assert batch.parameters == {"EPOCHS": "2", "TRAIN_VIEWS": "64"}
    assert (batch.name, batch.profile, batch.compare_to) == ("rank", "smoke", "lora_rank-16")


def test_a_batch_without_a_name_is_called_by_what_varies_so_that_the_same_command_goes_on(outputs):
    assert planned("smoke -p LORA_RANK 8,16").name == "lora_rank"
    assert planned("smoke --seeds 0 1").name == "batch"
    assert planned("-p LORA_RANK 8,16").profile == "cpu"


def test_flags_change_a_file(outputs, tmp_path):
    (tmp_path / "a.yml").write_text("profile: smoke\ngrid: {LORA_RANK: [8, 16]}\nseeds: [0]")
    batch = planned(f"{tmp_path / 'a.yml'} -p TRAIN_VIEWS 8 --seeds 1 2")
    assert batch.name == "a" and batch.seeds == (1, 2) and batch.parameters == {"TRAIN_VIEWS": "8"}


def test_the_command_that_goes_on_is_the_one_that_was_given(outputs):
    text = "smoke -p LORA_RANK 8,16 -p FRAMES_DIR 'a b' --seeds 0 1 --name x --at-once 2"
    assert options_of(text).again == f"./run_all.sh batch {text}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("smok", r"smok: neither a batch file nor a profile .*did you mean smoke"),
        ("smoke -p LORA_RANK", "-p takes a NAME and a VALUE"),
        ("smoke -p LORA_RANKS 8,16", "did you mean LORA_RANK"),
        ("smoke -p LORA_RANK 8,8", "two settings are named lora_rank-8"),
        ("smoke -p LORA_RANK 8,x", "setting lora_rank-x: LORA_RANK='x' is not a whole number"),
        ("smoke --seeds -1", "seeds"),
        ("smoke --gpus 7", "there is no GPU '7'"),
        ("smoke --cluster tcp://x:1 --at-once 2", "--cluster leaves"),
        ("absent.yml", "absent.yml: no such batch file"),
    ],
)
def test_what_cannot_be_run_is_one_line_and_status_2_and_nothing_is_started(outputs, capsys, text, said):
    with pytest.raises((ConfigError, FileNotFoundError), match=said):
        command.call(options_of(text))
    assert cli.main(["batch", *shlex.split(text)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert list(outputs.iterdir()) == []


def test_a_batch_ends_with_its_table_its_page_and_latest(outputs, capsys):
    words = ["batch", "smoke", "-p", "LORA_RANK", "4,8", "--seeds", "0", "1", "--name", "rank"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "batch   rank: 2 settings x 2 seeds, profile smoke" in said and "4 of 4 runs done" in said
    assert "| lora_rank-8 | 8 | 2 of 2 | 58.1% ± 0.1 | 66.7% ± 0.0 | +16.7 |" in said
    assert "lora_rank-8 is best on the valid races" in said and f"page    {outputs / 'rank' / 'batch.html'}" in said
    assert (outputs / "latest").resolve() == outputs / "rank" / "lora_rank-8-s0"
    assert "Batch rank" in (outputs / "rank" / "batch.html").read_text()
    assert cli.main(words) == 0, "once more does nothing but write the page"


def test_a_failed_run_is_told_with_the_command_that_goes_on_and_status_1(outputs, capsys):
    (outputs / "fail-lora_rank-8-s0").touch()
    assert cli.main(["batch", "smoke", "-p", "LORA_RANK", "4,8", "--name", "rank"]) == 1
    said = capsys.readouterr()
    assert "failed  lora_rank-8-s0: 03_finetune_qlora failed: RuntimeError: out of paper" in said.err
    assert "resume ./run_all.sh batch smoke -p LORA_RANK 4,8 --name rank" in said.err
    assert (outputs / "rank" / "batch.html").is_file() and "out of paper" in (outputs / "rank" / "runs.csv").read_text()


def test_a_batch_of_which_nothing_gets_to_its_end_has_no_page(outputs, capsys):
    (outputs / "fail-base-s0").touch()
    assert cli.main(["batch", "smoke", "--name", "rank"]) == 1
    assert "1 of 1 runs have no score" in capsys.readouterr().err and not (outputs / "rank" / "batch.html").exists()


def test_a_run_of_a_batch_is_what_the_command_line_makes(outputs, monkeypatch):
    """The words that a child is given are those of ./run_all.sh, with every value as it was."""
    run = planned("smoke -p LORA_RANK 8,16 LEARNING_RATE 1e-3 MIRROR true --name x").runs[1]
    words = as_child(run, "02")
    begin = words.index("run")
    asked = []
    monkeypatch.setattr(run_command, "run_pipeline", asked.append)
    assert cli.main(words[begin:]) == 0
    request = asked[0]
    assert (request.profile, request.run_id, request.to_step) == ("smoke", "x/lora_rank-16-s0", "02")
    configs = pipeline.step_configs("smoke", request.parameters)
    assert {step: runs.recorded_parameters(config) for step, config in configs.items()} == run.recorded


def test_the_help_says_where_latest_points_in_the_end(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["batch", "--help"])
    assert "`outputs/latest` is the first run of the setting that is best on the valid races" in capsys.readouterr().out


# compare


def test_three_runs_become_a_table_with_a_page(outputs, capsys):
    names = [make_run(outputs / f"r{r}", right=r, valid=r / 20, LORA_RANK=r).name for r in (4, 8, 10)]
    assert cli.main(["compare", *names, "--bootstrap", "100"]) == 0
    said = capsys.readouterr().out
    assert "| LORA_RANK 10 | 10 | 1 of 1 | 50.0% | 83.3% | +50.0 |" in said
    assert f"page    {outputs / 'comparison' / 'batch.html'}" in said
    assert "3 runs compared" in (outputs / "comparison" / "batch.html").read_text()
    assert not (outputs / "latest").exists()


def test_two_runs_are_told_apart_as_before_or_as_a_table_where_a_place_is_named(outputs, capsys, tmp_path):
    names = [make_run(outputs / f"r{r}", right=r, LORA_RANK=r).name for r in (4, 8)]
    assert cli.main(["compare", *names]) == 0
    assert "r4 is right in 33.3% and r8 in 66.7%" in capsys.readouterr().out
    assert cli.main(["compare", *names, "--out", str(tmp_path / "there"), "--bootstrap", "100"]) == 0
    assert (tmp_path / "there" / "settings.csv").is_file()


def test_a_batch_alone_is_compared_again_and_a_run_alone_is_refused(outputs, capsys):
    assert cli.main(["batch", "smoke", "-p", "LORA_RANK", "4,8", "--name", "rank", "--compare-to", "lora_rank-8"]) == 0
    (outputs / "rank" / "batch.html").unlink()
    assert cli.main(["compare", "rank", "--bootstrap", "100"]) == 0
    assert "against lora_rank-8" in (outputs / "rank" / "batch.html").read_text()
    assert cli.main(["compare", "rank/lora_rank-4-s0"]) == 2
    assert "one run alone is compared with nothing" in capsys.readouterr().err
    assert cli.main(["compare", "rank", "absent"]) == 2


# For real

REAL = """
import sys
from pathlib import Path
from stkvlm_lib import __main__ as cli, runs
runs.OUTPUTS = Path(sys.argv[1])
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.slow
def test_a_batch_of_real_runs(outputs, capsys, monkeypatch):
    """The ready batch for two cores, with even less data, through all notebooks."""

    def command_of_run(run, to_step):
        words = as_child(run, to_step)
        return [sys.executable, "-P", "-c", REAL, str(run.outputs), *words[words.index("run") :]]

    monkeypatch.setitem(run_batch.__kwdefaults__, "command", command_of_run)
    less = "TRAIN_VIEWS 16 TEST_VIEWS 42 VALID_VIEWS 8 EXTENDED_SCORED 1 CALIBRATION_VIEWS 4 BOOTSTRAP 100"
    file = ROOT / "benchmarks" / "batches" / "two-cores.yml"
    assert cli.main(["batch", str(file), "-p", *less.split(), "--seeds", "0"]) == 0
    said = capsys.readouterr().out
    assert "| lora_rank-16 | 16 | 1 of 1 |" in said and "42 races" in (outputs / "two-cores" / "batch.html").read_text()
    first, second = (read_json(outputs / "two-cores" / f"lora_rank-{r}-s0" / "manifest.json") for r in (4, 16))
    assert second["steps"]["02"]["artefacts"] == first["steps"]["02"]["artefacts"]
    assert second["steps"]["02"]["made_by"] == "two-cores/lora_rank-4-s0"
    metrics = read_json(outputs / "two-cores" / "lora_rank-16-s0" / "metrics.json")
    assert metrics["settings"]["03_finetune_qlora"]["LORA_RANK"] == 16 and metrics["test_views"] == 42


def test_the_notebook_runs_a_batch_and_shows_what_came_out(outputs, tmp_path):
    """On runs that take no time: a cell in front puts them in the place of real ones."""
    notebook = nbformat.read(ROOT / "notebooks" / "07_batch.ipynb", 4)
    (tmp_path / "a.yml").write_text("profile: smoke\ngrid: {LORA_RANK: [4, 8]}\nseeds: [0, 1]")
    given = f'BATCH_FILE = {str(tmp_path / "a.yml")!r}\nAT_ONCE = 0\nGPUS = ""\nCLUSTER = ""\nCOMPARE_TO = ""\n'
    notebook.cells[1].source = given + "BOOTSTRAP = 100\nSEED = 0"
    patch = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import tiny_run; from pathlib import Path; from stkvlm_lib import runs
from stkvlm_lib.batch import machines, run_batch as rb
machines.gpus_here = lambda: ()  # what tells loads torch
runs.OUTPUTS = Path({str(outputs)!r}); rb.run_batch.__kwdefaults__["command"] = tiny_run.command
"""
    notebook.cells.insert(1, nbformat.v4.new_code_cell(patch))
    NotebookClient(notebook, kernel_name="python3", timeout=240).execute()
    shown = "".join(str(cell.outputs) for cell in notebook.cells if cell.cell_type == "code")
    assert "lora_rank-8 is best on the valid races" in shown and "4 of 4 runs done" in shown
    assert (outputs / "a" / "batch.html").is_file()
