"""The explorer on a run's folder: its frames, questions, answers, marks and adapter, as far as they are there."""

import os
from dataclasses import astuple
from functools import partial
from pathlib import Path

from stkvlm_lib.config import BASE, ConfigError, ExplorerConfig, RunConfig
from stkvlm_lib.data.frame_sets import FrameSet, read_frames
from stkvlm_lib.explore.asking import Beside, base_alone, by_question
from stkvlm_lib.explore.explorer import Explorer, explore
from stkvlm_lib.explore.filters import Given
from stkvlm_lib.explore.links import Place, read_query
from stkvlm_lib.explore.models import ADDRESS_VARIABLE, Askable, OwnModel, SharedModel, load_model
from stkvlm_lib.qa.label_check import MARKS_FILE
from stkvlm_lib.qa.qa_sets import Record, make_records, question_files, read_records
from stkvlm_lib.runs import compared_run, recorded_steps
from stkvlm_lib.typed import read_rows

ANSWERS = ("predictions", "predictions_extended", "predictions_test_unseen", "predictions_valid")
"""The files of a run with answers to its questions."""


def explore_run(config: ExplorerConfig) -> Explorer:
    """The explorer on a run, by default the newest. Where none is there yet: on the frames, with their ten questions.

    Raises ConfigError when the run or the picture that was named does not exist.
    """
    frames, records, answers = read_run(config)
    marks = config.run_path / "qa" / MARKS_FILE if config.run_path.is_dir() else None
    model = model_of(config)
    explorer = explore(frames, records, answers, model, marks, config.seed, beside_of(config, answers, model))
    open_place(explorer, config)
    return explorer


def read_run(config: ExplorerConfig) -> tuple[FrameSet, list[Record], list[Given]]:
    """Frames, questions and answers of a run, as far as they are there. Raises ValueError (a ConfigError is one) for
    what is not there or broken."""
    run, other = config.run_path, compared_folder(config)
    if other and other.resolve() == run.resolve():
        raise ConfigError(f"COMPARE_RUN: {config.compare_run} is the run that is looked at; name another, or {BASE}")
    if config.run_dir and not run.is_dir():
        raise ConfigError(f"RUN_DIR: there is no run {run}; name a folder in outputs/, or none for the newest")
    frames = read_frames(frames_of(config), skip_broken=config.skip_broken)
    records = [r for path in question_files(run / "qa") for r in read_records(path)]
    anew = (record for split in frames.splits for record in make_records(frames, split))  # no notebook has asked yet
    return frames, records or list(anew), read_answers(run)


def open_place(explorer: Explorer, config: ExplorerConfig) -> None:
    """Go to the picture that the page's address names, else to that of the parameters. A wrong address is told on the
    page, a wrong parameter raises ConfigError."""
    by_voila = os.environ.get("SERVER_SOFTWARE", "").startswith("voila/")  # which tells the query to the kernel
    asked = read_query(os.environ.get("QUERY_STRING", "")) if by_voila else Place()
    named = Place(config.picture, config.question)
    try:
        if asked.picture or named.picture:
            explorer.go_to(*astuple(asked if asked.picture else named))
    except ValueError as error:
        if not asked.picture:
            raise ConfigError(f"PICTURE: {error}") from error
        explorer.complain(error)


def frames_of(config: RunConfig) -> tuple[Path, ...]:
    """The frames that are named; else those that the run was made of; else the bundled ones."""
    if config.frames_dir:
        return config.frames_paths
    steps = recorded_steps(config.run_path)
    named = next((values["FRAMES_DIR"] for _, values in sorted(steps.items()) if values.get("FRAMES_DIR")), "")
    return RunConfig(frames_dir=str(named)).frames_paths


def read_answers(run: Path) -> list[Given]:
    """What the run's model answered; empty where nothing was scored yet."""
    written = [path for name in ANSWERS if (path := run / f"{name}.jsonl").exists()]
    return [given for path in written for given in read_rows(path, Given, "score again with notebook 04")]


def beside_of(config: ExplorerConfig, answers: list[Given], model: Askable | None) -> Beside | None:
    """What COMPARE_RUN names, to stand beside the run's answers: another run, or the run's own base."""
    if config.compare_run == BASE:
        return base_alone(answers, model)
    folder = compared_folder(config)
    if not folder:
        return None
    return Beside(folder.resolve().name, by_question(read_answers(folder)), model_at(folder / "adapter"))


def compared_folder(config: ExplorerConfig) -> Path | None:
    """The folder of the other run; None for none, or the base. Raises ConfigError where no scored run is."""
    return compared_run(config.compare_run) if config.compare_run not in ("", BASE) else None


def model_of(config: ExplorerConfig) -> Askable | None:
    """The run's adapter with its base; None where there is no adapter. Raises ConfigError for one that is named."""
    if config.adapter_dir and not config.adapter_path.is_dir():
        raise ConfigError(
            f"ADAPTER_DIR: there is no adapter {config.adapter_path}; give a folder made by notebook 03, or none"
        )
    return model_at(config.adapter_path, config.base_model)


def model_at(adapter: Path, base_model: str = "") -> Askable | None:
    """An adapter with its base, not loaded yet: in a page the one that all pages share. None where there is none."""
    if not adapter.is_dir():
        return None
    if address := os.environ.get(ADDRESS_VARIABLE):
        return SharedModel(address, adapter.absolute(), base_model)
    return OwnModel(partial(load_model, adapter, base_model))
