"""The explorer on a run's folder: its frames, questions, answers, marks and adapter, as far as they are there."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stkvlm_lib.config import ConfigError, ExplorerConfig, RunConfig
from stkvlm_lib.data.frame_sets import FrameSet, read_frames
from stkvlm_lib.explore.explorer import Explorer, explore
from stkvlm_lib.explore.explorer_state import Given
from stkvlm_lib.files import read_json, read_rows
from stkvlm_lib.qa.label_check import MARKS_FILE
from stkvlm_lib.qa.qa_sets import Record, make_records, question_files, read_records

if TYPE_CHECKING:
    from stkvlm_lib.vlm.answering import AnswerModel

ANSWERS = ("predictions", "predictions_extended", "predictions_test_unseen")
"""The files of a run with answers to its questions."""


def explore_run(config: ExplorerConfig) -> Explorer:
    """The explorer on a run. Where no run is named and none is there yet: on the frames, with their ten questions.

    Raises ConfigError when the run that was named does not exist.
    """
    run = config.run_path
    if config.run_dir and not run.is_dir():
        raise ConfigError(f"RUN_DIR: there is no run {run}; name a folder in outputs/, or none for the newest")
    frames = read_frames(frames_of(config), skip_broken=config.skip_broken)
    records = [r for path in question_files(run / "qa") for r in read_records(path)] or list(made_anew(frames))
    marks = run / "qa" / MARKS_FILE if run.is_dir() else None
    return explore(frames, records, read_answers(run), model_of(config), marks, config.seed)


def frames_of(config: RunConfig) -> tuple[Path, ...]:
    """The frames that are named; else those that the run was made of; else the bundled ones."""
    recorded = config.run_path / "config.json"
    if config.frames_dir or not recorded.exists():
        return config.frames_paths
    steps = read_json(recorded)
    named = next((values["FRAMES_DIR"] for _, values in sorted(steps.items()) if values.get("FRAMES_DIR")), "")
    return RunConfig(frames_dir=named).frames_paths


def made_anew(frames: FrameSet) -> Iterator[Record]:
    """The ten forms about every view, for frames that no notebook has asked about."""
    for split in frames.splits:
        yield from make_records(frames, split)


def read_answers(run: Path) -> list[Given]:
    """What the run's model answered; empty where nothing was scored yet."""
    written = [path for name in ANSWERS if (path := run / f"{name}.jsonl").exists()]
    return [given for path in written for given in read_rows(path, Given, "score again with notebook 04")]


def model_of(config: ExplorerConfig) -> "Callable[[], AnswerModel] | None":
    """A function that loads the run's adapter with its base; None where there is no adapter."""
    adapter = config.adapter_path
    if config.adapter_dir and not adapter.is_dir():
        raise ConfigError(f"ADAPTER_DIR: there is no adapter {adapter}; give a folder made by notebook 03, or none")
    if not adapter.is_dir():
        return None

    def load() -> "AnswerModel":
        from stkvlm_lib.runs import set_up_hub, set_up_torch
        from stkvlm_lib.vlm.adapter import load_answerer, read_adapter_record

        set_up_hub(config.base_model or read_adapter_record(adapter)["base"]["name"])
        set_up_torch()
        return load_answerer(adapter, config.base_model or None)

    return load
