"""QLoRA training: frozen 4-bit base, a LoRA adapter on its text model, the loss on answers and stop tokens alone."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import TrainingArguments

from stkvlm_lib.config import EMBEDDED, FinetuneConfig, resolve
from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.device import precision_of
from stkvlm_lib.files import write_json
from stkvlm_lib.model_files import Temperatures, check_start, read_adapter, start_form, target_parts
from stkvlm_lib.qa.drawn import PicturesOf, TrainingPicture, count_questions
from stkvlm_lib.qa.qa_sets import Record, by_picture
from stkvlm_lib.runs import peak_memory_mb
from stkvlm_lib.typed import read_file
from stkvlm_lib.vlm.adapter import load_answerer, new_adapter, save_adapter
from stkvlm_lib.vlm.answering import AnswerModel
from stkvlm_lib.vlm.diary import Diary, LogRows, majority_share, majority_warning, read_log
from stkvlm_lib.vlm.features import FeatureStore
from stkvlm_lib.vlm.temperature import Labelled, fit_temperatures
from stkvlm_lib.vlm.trainer import QloraTrainer, last_checkpoint, training_arguments

MEAN_OF = 10_000
"""The mean picture is that of all training pictures, or of about so many in even steps."""


@dataclass(frozen=True)
class TrainingFacts:
    """What a training took: seconds and rates, interruptions left out, the step whose adapter was kept.

    valid_exact, valid_majority: shares of the valid questions that the adapter kept and each family's most frequent
    answer have right; None without valid questions.
    """

    train_seconds: float
    qa_per_second_train: float
    peak_memory_mb: float
    steps: int
    kept_step: int
    valid_exact: float | None
    valid_majority: float | None
    pictures: int
    questions: int
    trainable_parameters: int
    adapter_mb: float
    temperature: Temperatures


def build_trainable(config: FinetuneConfig) -> AnswerModel:
    """Base in 4 bit with a fresh adapter, or with the one in START_ADAPTER to go on from. The seed comes first.

    Form and picture size of a START_ADAPTER stay; its dropout is the one set here. Raises ConfigError where another
    form was asked for, ModelError for an adapter or base that cannot be used.
    """
    torch.manual_seed(config.seed)
    start = resolve(config.start_adapter) if config.start_adapter else None
    if start:
        files = read_adapter(start)
        check_start(config, files)
        print("START_ADAPTER goes on with", ", ".join(f"{name} {value}" for name, value in start_form(files).items()))
    answerer = load_answerer(
        start,
        config.base_model or EMBEDDED,
        config.base_revision,
        config.quantization,
        config.precision,
        dropout=config.lora_dropout,
        image_side=config.image_side,
    )
    if not start:
        answerer.model = new_adapter(
            answerer.model,
            rank=config.lora_rank,
            alpha=config.lora_alpha,
            dropout=config.lora_dropout,
            seed=config.seed,
            targets=config.lora_targets,
        )
    answerer.model.config.use_cache = False
    return answerer


def trainable_parameters(answerer: AnswerModel) -> tuple[int, int]:
    """Numbers of trainable and of all parameters (4-bit weights counted as weights, not as bytes)."""
    return answerer.model.get_nb_trainable_parameters()


def layer_summary(answerer: AnswerModel) -> list[dict]:
    """One row a part of the model: how its weights are stored and how many it has; the adapter is left out."""
    core = answerer.core
    tied = core.lm_head.weight is core.get_input_embeddings().weight
    parts = {
        "vision tower": core.model.vision_model,
        "connector": core.model.connector,
        "text model": core.model.text_model,
        f"lm_head{' (tied to the token embeddings)' if tied else ''}": core.lm_head,
    }
    rows = []
    for name, part in parts.items():
        layers = [m for n, m in part.named_modules() if isinstance(m, nn.Linear) and "lora_" not in n]
        kinds = {
            "NF4, 4 bit" if "4bit" in type(m).__name__ else str(m.weight.dtype).removeprefix("torch.") for m in layers
        }
        weights = sum(m.in_features * m.out_features for m in layers)
        rows.append(
            {"part": name, "linear layers": len(layers), "weights in them": weights, "stored as": ", ".join(kinds)}
        )
    return rows


def average_picture(folder: FrameSet, pictures: Sequence[TrainingPicture]) -> Image.Image:
    """The mean of training pictures, each once and not mirrored, in the size of the first: what a blind model sees."""
    step = -(-len(pictures) // MEAN_OF)
    total, size, n = 0.0, None, 0
    for name in sorted({pictures[i].image_file for i in range(0, len(pictures), step)}):
        image = folder.by_image_file[name].image()
        size = size or image.size
        total = total + np.asarray(image.resize(size), np.float64)
        n += 1
    return Image.fromarray((total / n).round().astype(np.uint8))


def finetune(
    answerer: AnswerModel,
    config: FinetuneConfig,
    folder: FrameSet,
    train: Sequence[TrainingPicture],
    valid: list[Record],
    calibration: Mapping[str, Labelled] | None = None,
    *,
    resume: bool = False,
    show: Callable[[LogRows], None] | None = None,
    features: FeatureStore | None = None,
) -> TrainingFacts:
    """Train the adapter and save it to RUN_DIR/adapter; in a process that a launcher has started, with the others.

    The adapter kept is the one that answers the valid questions best; without valid questions, the last one.
    calibration: questions about valid pictures by which the temperatures are fitted that come with the adapter.
    resume: go on from the last checkpoint in RUN_DIR/training; otherwise what lies there is removed first.
    show: called with the rows of the log so far, each time one is added.
    features: a store that knows pictures already, or shall keep them for other trainings.
    """
    run = config.run_path
    arguments = training_arguments(config, len(train), bool(valid))
    if not resume and arguments.process_index == 0:
        for left in ("training", "logs"):
            shutil.rmtree(run / left, ignore_errors=True)
    arguments.distributed_state.wait_for_everyone()
    store = features or FeatureStore(answerer, folder, config.eval_batch_size)
    tokens = _tokens(store, train, [*by_picture(valid), *(calibration or {})], arguments)
    diary = Diary(run, show)  # its clock leaves encoding out
    trainer = QloraTrainer(config, arguments, store, train, tokens, valid, diary)
    trainer.train(resume_from_checkpoint=last_checkpoint(run / "training"))
    if arguments.process_index == 0:
        _keep(trainer, config, train, valid, calibration or {}, diary.seconds)
    arguments.distributed_state.wait_for_everyone()
    return read_facts(run)


def _tokens(
    store: FeatureStore, train: Sequence[TrainingPicture], held_out: Sequence[str], arguments: TrainingArguments
) -> Sequence[torch.Tensor] | None:
    """Tokens of the training pictures, and those of held-out ones known to the store; None where training changes them.

    Of several processes with a common folder each encodes its share.
    """
    if store.answerer.adapter_sees:
        return None
    train, held_out = PicturesOf(train), [(name, False) for name in dict.fromkeys(held_out)]
    labelled = ((train, "encode train pictures"), (held_out, "encode valid pictures"))
    if arguments.world_size > 1 and store.on_disk:
        for pictures, label in labelled:
            share = range(arguments.process_index, len(pictures), arguments.world_size)
            store.encode([pictures[i] for i in share], label)
        arguments.distributed_state.wait_for_everyone()
    tokens, _ = (store.in_order(pictures, label) for pictures, label in labelled)
    return tokens


def _keep(
    trainer: QloraTrainer,
    config: FinetuneConfig,
    train: Sequence[TrainingPicture],
    valid: list[Record],
    calibration: Mapping[str, Labelled],
    seconds: float,
) -> None:
    """Fit the temperatures, save the adapter, and write training.json."""
    run, state, answerer = config.run_path, trainer.state, trainer.store.answerer
    answerer.temperatures = fit_temperatures(trainer.store, calibration)
    kept = int(state.best_model_checkpoint.rsplit("-", 1)[1]) if state.best_model_checkpoint else state.global_step
    mean, settings = average_picture(trainer.store.frames, train), _settings(config, answerer)
    questions = count_questions(train)
    facts = TrainingFacts(
        train_seconds=seconds,
        qa_per_second_train=questions * config.epochs / seconds,
        steps=state.global_step,
        kept_step=kept,
        valid_exact=state.best_metric,
        valid_majority=majority_share(valid),
        pictures=len(train),
        questions=questions,
        trainable_parameters=trainable_parameters(answerer)[0],
        adapter_mb=save_adapter(answerer, run / "adapter", mean, settings=settings, kept_step=kept),
        temperature=answerer.temperatures,
        peak_memory_mb=peak_memory_mb(),
    )
    write_json(run / "training.json", asdict(facts))
    exact = [row["valid_exact"] for row in read_log(run) if "valid_exact" in row]
    if warning := majority_warning(exact, facts.valid_majority):
        print(warning, flush=True)


def read_facts(run: Path) -> TrainingFacts:
    """What the training of a run took."""
    return read_file(run / "training.json", TrainingFacts)


def _settings(config: FinetuneConfig, answerer: AnswerModel) -> dict:
    """What the adapter records of its training: everything but paths and what only says how it was run, which mean
    nothing elsewhere. Its form is that which it has, also where it goes on from another's."""
    elsewhere = ("run_dir", "frames_dir", "base_model", "start_adapter", "processes", "report_to")
    lora = answerer.model.peft_config["default"]
    form = {"lora_rank": lora.r, "lora_alpha": lora.lora_alpha, "lora_dropout": lora.lora_dropout}
    form |= {"lora_targets": target_parts(lora.target_modules), "image_side": answerer.image_side}
    form |= {"precision": precision_of(answerer.dtype)}
    return {name: value for name, value in asdict(config).items() if name not in elsewhere} | form
