"""Step 03 as functions, in their order: draw the questions, build the model, train, finish.

Notebook 03 calls them one by one; `train_run` calls them all, for benchmarks and batches.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stkvlm_lib.config import FinetuneConfig, check_reporters
from stkvlm_lib.data.frame_sets import FrameSet, read_frames
from stkvlm_lib.qa.drawn import DRAWN, DrawnPictures
from stkvlm_lib.qa.qa_sets import Record
from stkvlm_lib.qa.training_draw import draw_calibration, read_questions, read_valid
from stkvlm_lib.runs import Run, start_run
from stkvlm_lib.vlm.answering import AnswerModel
from stkvlm_lib.vlm.diary import LogRows
from stkvlm_lib.vlm.features import FeatureStore, shared_folder
from stkvlm_lib.vlm.finetune import TrainingFacts, build_trainable, finetune
from stkvlm_lib.vlm.launch import launch, process_count
from stkvlm_lib.vlm.temperature import Labelled

Show = Callable[[LogRows], None]


@dataclass(frozen=True)
class Material:
    """What a training reads. qa: the folder of question files. train: as drawn, on disk. valid: what chooses the
    checkpoint. calibration: what fits the temperatures."""

    config: FinetuneConfig
    frames: FrameSet
    qa: Path
    train: DrawnPictures
    valid: list[Record]
    calibration: Mapping[str, Labelled]


def draw_material(config: FinetuneConfig, frames: FrameSet | None = None, qa: Path | None = None) -> Material:
    """Draw a run's questions; what is drawn for training is written to its qa/train_drawn.jsonl.

    frames: those of FRAMES_DIR, where they are read already. qa: another folder of question files than the run's own.
    Raises ConfigError for logs or numbers of processes that this machine does not have, QaError without questions.
    """
    check_reporters(config)
    process_count(config)
    frames = frames or read_frames(config.frames_paths, skip_broken=config.skip_broken)
    train, valid = read_questions(config, frames, qa)
    return _material(config, frames, qa or config.run_path / "qa", train, valid)


def drawn_material(config: FinetuneConfig, qa: Path) -> Material:
    """The same, of questions that are drawn already: what a launched process reads."""
    frames = read_frames(config.frames_paths, skip_broken=config.skip_broken)
    return _material(config, frames, qa, DrawnPictures(config.run_path / "qa" / DRAWN), read_valid(config, qa))


def _material(
    config: FinetuneConfig, frames: FrameSet, qa: Path, train: DrawnPictures, valid: list[Record]
) -> Material:
    calibration = draw_calibration(valid, frames, config.questions_per_view, config.seed)
    return Material(config, frames, qa, train, valid, calibration)


def train(material: Material, model: AnswerModel, *, resume: bool, show: Show | None = None) -> TrainingFacts:
    """Train in this process, or in as many as PROCESSES says. resume: go on from the last checkpoint. show: called with
    the rows of the log."""
    processes = process_count(material.config)
    if processes > 1:
        return launch(material.config, processes, material.qa, resume=resume, show=show)
    return train_here(material, model, resume=resume, show=show)


def train_here(material: Material, model: AnswerModel, *, resume: bool, show: Show | None = None) -> TrainingFacts:
    """Train in this process, with the image tokens that runs share."""
    config, frames = material.config, material.frames
    store = FeatureStore(model, frames, config.eval_batch_size, shared_folder())
    questions = material.train, material.valid, material.calibration
    return finetune(model, config, frames, *questions, resume=resume, show=show, features=store)


def finish(run: Run, model: AnswerModel) -> None:
    """Record what the training read and made: now step 03 is done."""
    drawn = run.folder / "qa" / DRAWN
    run.finish(inputs=[drawn], artefacts=[run.folder / "adapter"], base=model.base.record())


def train_run(
    config: FinetuneConfig, *, frames: FrameSet | None = None, qa: Path | None = None, show: Show | None = None
) -> TrainingFacts:
    """All of step 03 for a run: adapter, log and facts lie in its folder. An interrupted one goes on where it was."""
    run = start_run(config, "03")
    material = draw_material(config, frames, qa)
    model = build_trainable(config)
    facts = train(material, model, resume=run.interrupted, show=show)
    finish(run, model)
    return facts
