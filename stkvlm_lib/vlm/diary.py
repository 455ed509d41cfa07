"""What a training tells: the rows of train_log.jsonl, a line each, the curve, other logs, and whether it has learnt."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from transformers import TrainerCallback

from stkvlm_lib.files import read_json, write_json, write_jsonl
from stkvlm_lib.grammar.questions import normalise
from stkvlm_lib.qa.qa_sets import Record
from stkvlm_lib.typed import read_rows

LogRows = list[dict]
LOG = "train_log.jsonl"
TENSORBOARD = "tensorboard"
_NAMES = {"loss": "loss", "learning_rate": "learning_rate", "grad_norm": "grad_norm", "eval_exact": "valid_exact"}


def read_log(run: Path) -> LogRows:
    """The rows of a run's train_log.jsonl."""
    return read_rows(run / LOG, dict, "run notebook 03_finetune_qlora to write it")


class Diary(TrainerCallback):
    """Writes train_log.jsonl whole at each log, keeps the clock across interruptions, and shows the curve if asked.

    Of several processes the first alone does so.
    """

    def __init__(self, folder: Path, show: Callable[[LogRows], None] | None):
        self.folder, self.show = folder, show
        self.clock_file = folder / "training" / "clock.json"
        self.before = read_json(self.clock_file)["seconds"] if self.clock_file.exists() else 0.0
        self.begin = time.monotonic()
        self.shown = 0

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.begin

    def on_log(self, args, state, control, **kwargs) -> None:
        rows = log_rows(state.log_history)
        if len(rows) == self.shown or not state.is_world_process_zero:
            return
        self.shown = len(rows)
        write_jsonl(self.folder / LOG, rows)
        last = rows[-1]
        value = f"valid exact {last['valid_exact']:.3f}" if "valid_exact" in last else f"loss {last['loss']:.3f}"
        left = self.seconds / max(1, state.global_step) * (state.max_steps - state.global_step)
        print(f"step {last['step']:>5} of {state.max_steps}  {value}  about {left / 60:.1f} min left", flush=True)
        if self.show:
            self.show(rows)

    def on_save(self, args, state, control, **kwargs) -> None:
        if state.is_world_process_zero:
            write_json(self.clock_file, {"seconds": self.seconds})


def log_rows(history: Sequence[dict]) -> LogRows:
    """The Trainer's log as rows of step, epoch and either loss, learning_rate and grad_norm or valid_exact."""
    rows = []
    for entry in history:
        found = {_NAMES[key]: entry[key] for key in _NAMES if key in entry}
        if found:
            rows.append({"step": entry["step"], "epoch": entry.get("epoch", 0.0), **found})
    return rows


def tensorboard(folder: Path) -> TrainerCallback:
    """Writes loss, rate, gradient norm and valid score for `tensorboard --logdir`; a resumed training goes on in it."""
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    return TensorBoardCallback(SummaryWriter(log_dir=str(folder)))


def majority_share(records: Sequence[Record]) -> float | None:
    """The share of questions that each family's most frequent answer has right; None for no questions."""
    answers: dict[str, Counter] = {}
    for record in records:
        answers.setdefault(record.family, Counter())[normalise(record.answer)] += 1
    return sum(max(counts.values()) for counts in answers.values()) / len(records) if records else None


def majority_warning(exact: Sequence[float], majority: float | None) -> str:
    """What to say where the last or the best of the valid scores is no better than guessing; empty otherwise."""
    if majority is None or not exact or min(max(exact), exact[-1]) > majority:
        return ""
    return (
        f"warning: valid exact was {max(exact):.3f} at best and {exact[-1]:.3f} at last, where each family's most "
        f"frequent answer has {majority:.3f}: this adapter has learnt little or has diverged; lower LEARNING_RATE"
    )
