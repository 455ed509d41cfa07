"""An evaluation: a model answers all that a run has to ask, and each set of answers is written to its own file.

Its steps are called one after the other by notebook 04. A picture is encoded once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from stkvlm_lib.config import STEPS, ScoreConfig
from stkvlm_lib.data.frame_sets import FrameSet, read_frames
from stkvlm_lib.device import precision_of
from stkvlm_lib.evaluation import multiple_choice, own_words, question_sets
from stkvlm_lib.evaluation.asking import Blind, answer_pairs, predict
from stkvlm_lib.evaluation.predictions import HEADLINE, further_file, write_answers
from stkvlm_lib.evaluation.question_sets import FIT_SPLIT
from stkvlm_lib.files import read_object
from stkvlm_lib.model_files import read_adapter_record
from stkvlm_lib.qa.label_faults import label_faults
from stkvlm_lib.qa.qa_sets import Record
from stkvlm_lib.runs import peak_memory_mb, recorded_parameters, recorded_steps
from stkvlm_lib.vlm.adapter import adapter_mb, load_answerer, mean_image
from stkvlm_lib.vlm.features import FeatureStore, shared_folder


@dataclass
class Evaluation:
    """What is asked of a model. `open_evaluation` makes it; file problems show before the model is loaded.

    rate: questions of the headline answered a second, encoding included, once they are.
    """

    config: ScoreConfig
    frames: FrameSet
    split: str
    records: list[Record]
    words: own_words.OwnWords
    rate: float = field(default=0.0, init=False)

    @cached_property
    def store(self) -> FeatureStore:
        """The model, loaded when the first question is asked, with the image tokens of what it has seen."""
        config = self.config
        stored = config.quantization, config.precision
        model = load_answerer(config.adapter_path, config.base_model, config.base_revision, *stored)
        return FeatureStore(model, self.frames, config.eval_batch_size, shared_folder())

    @cached_property
    def blind(self) -> Blind:
        return Blind(self.store.answerer, mean_image(self.config.adapter_path))

    @cached_property
    def label_faults(self) -> list[dict[str, Any]]:
        """Labels that no answer can match, a row each."""
        return label_faults(self.records, self.frames)

    def answer_headline(self) -> None:
        """The scored questions: with the adapter, by the base alone, blind and from each family's closed set."""
        rows, self.rate = predict(self.store, self.records, blind=self.blind, base_too=True)
        write_answers(rows, self.config.run_path / HEADLINE)

    def answer_valid(self) -> None:
        """Questions about valid races that are not scored: the confidence threshold is fitted on them."""
        records = question_sets.valid_records(self.config, self.frames, self.records)
        self._write(FIT_SPLIT, predict(self.store, records, FIT_SPLIT)[0])

    def answer_wordings(self) -> None:
        """The extended questions in trained wordings, and in the one of each family that training leaves out."""
        trained, held_out = question_sets.extended_records(self.config, self.frames, self.split)
        rows, _ = predict(self.store, trained + held_out, "extended", blind=self.blind, base_too=True)
        self._write("extended", rows[: len(trained)])
        self._write("held_out_wordings", rows[len(trained) :])

    def answer_own_words(self) -> None:
        """Questions as people put them, the same ones in their template, and those that no picture answers."""
        asked = own_words.questions(self.frames, self.config, self.split, self.words, self.records)
        self._write("own_words", predict(self.store, asked, "own words", base_too=True)[0])

    def answer_pairs(self) -> None:
        """One question about two pictures that answer it differently."""
        pairs = question_sets.pairs_to_ask(self.config, self.frames, self.split)
        self._write("consistency", answer_pairs(self.store, pairs))

    def answer_choices(self) -> None:
        """The course's multiple choice."""
        items = multiple_choice.items_to_ask(self.frames, self.config, self.split)
        self._write("mc", multiple_choice.choose(self.store, items, self.blind) if items else [])

    def answer_further_splits(self) -> None:
        """The ten forms about splits that are scored by themselves."""
        for name in question_sets.FURTHER_SPLITS:
            records = question_sets.further_records(self.config, self.frames, name, self.split)
            self._write(name, predict(self.store, records, name, blind=self.blind)[0])

    def _write(self, name: str, rows: Sequence) -> None:
        """Write a further set in place of one of an earlier evaluation; no file where nothing was asked."""
        file = further_file(self.config.run_path, name)
        file.unlink(missing_ok=True)
        if rows:
            write_answers(rows, file)

    def facts(self) -> dict[str, Any]:
        """What metrics.json says beside the figures: on what they were measured. Training figures are null for a
        foreign adapter."""
        config, base = self.config, self.store.answerer.base
        own = config.adapter_path.resolve() == (config.run_path / "adapter").resolve()
        training = read_object(config.run_path / "training.json", missing_ok=True) if own else {}
        return {
            "split": self.split,
            "adapter_mb": round(adapter_mb(config.adapter_path), 3),
            "base_model": base.name,
            "base_sha256": base.sha256,
            "quantization": config.quantization,
            "precision": precision_of(self.store.answerer.dtype),
            "batch_size": config.eval_batch_size,
            "seed": config.seed,
            "test_views": config.test_views,
            "settings": settings_of(config, own),
            "train_seconds": training.get("train_seconds"),
            "qa_per_second_train": training.get("qa_per_second_train"),
            "qa_per_second_eval": self.rate,
            "peak_memory_mb": max(peak_memory_mb(), training.get("peak_memory_mb", 0.0)),
            "label_faults": self.label_faults,
        }


def open_evaluation(config: ScoreConfig) -> Evaluation:
    """Read frames and questions. Raises FramesError, QaError or FileNotFoundError naming file and remedy."""
    frames = read_frames(config.frames_paths, skip_broken=config.skip_broken)
    split, records = question_sets.records_to_score(config, frames)
    return Evaluation(config, frames, split, records, own_words.read_own_words(config))


def settings_of(config: ScoreConfig, own: bool) -> dict[str, Any]:
    """What made the figures: the parameters of scoring, and those of making questions and of training, by notebook.

    own: the run's own adapter was scored; of another the adapter's record tells, as far as it does.
    """
    steps = recorded_steps(config.run_path) if own else {}
    found = {STEPS[step][0]: steps[step] for step in ("02", "03") if step in steps}
    if not own and (record := read_adapter_record(config.adapter_path).get("settings")):
        found["adapter"] = record
    return found | {STEPS["04"][0]: recorded_parameters(config)}
