"""What the seed, 4 bit and the number of training races are worth to fine-tuning a base: three tables of its accuracy.

    python benchmarks/finetuning.py [--only seeds|bits|races] [--seeds 0 1 2] [--races 0.125 0.25 0.5]
        [--curve-seeds 0] [--profile cpu] [-p NAME VALUE] [--out outputs/benchmarks/finetuning]

1. seeds: the same fine-tuning with other seeds (adapter, draws of questions, order), mean and standard deviation.
2. bits: NF4 against the same base unquantized, by the same seeds. The difference is paired by question; all seeds are
   pooled, and its interval resamples whole races, so it tells of other races, not of other seeds.
3. races: a learning curve. The seed draws the races, every track in turn, fewer always among more; shares that give
   fewer races than there are tracks leave tracks out altogether. The epochs stay, so the number of training STEPS falls
   with the data: the curve shows fewer races and a shorter training together.

Questions are made once, by the functions of notebook 02; each setting is fine-tuned and scored by those of 03 and 04.
The folder is named after the hashes of base and frames. It keeps a run folder a setting, and the tables; image tokens
lie where all runs share them. Started again, it does what is missing, and goes on in the middle of an interrupted
training.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stkvlm_lib import markdown, runs
from stkvlm_lib.analysis.accuracy import score
from stkvlm_lib.analysis.comparison import Comparison, Shared, compare, share
from stkvlm_lib.analysis.intervals import Bootstrap, mean
from stkvlm_lib.config import PROFILES, ROOT, ConfigError, FinetuneConfig, QaConfig, RunConfig, ScoreConfig
from stkvlm_lib.data.frame_sets import FrameSet, read_frames
from stkvlm_lib.evaluation.asking import predict
from stkvlm_lib.evaluation.predictions import HEADLINE, Prediction, read_answers, write_answers
from stkvlm_lib.evaluation.question_sets import records_to_score
from stkvlm_lib.files import read_json, sha256, write_json, write_text
from stkvlm_lib.number_text import count, interval, number, percent, points
from stkvlm_lib.parallel import Workers
from stkvlm_lib.pipeline import step_configs
from stkvlm_lib.qa.generate import Plan, frames_by_split, write_qa_sets
from stkvlm_lib.qa.qa_sets import COURSE, TRAIN, stream_records
from stkvlm_lib.vlm.adapter import load_answerer
from stkvlm_lib.vlm.base_vlm import Base, find_base
from stkvlm_lib.vlm.features import FeatureStore, shared_folder
from stkvlm_lib.vlm.train_run import train_run

PARTS = ("seeds", "bits", "races")
Table = tuple[dict, list[dict]]
"""Figures for JSON, and rows for reading."""


@dataclass(frozen=True)
class Setting:
    """One fine-tuning. races: number of training races, 0 for all."""

    seed: int
    quantization: str = "nf4"
    races: int = 0

    def __str__(self) -> str:
        return f"seed{self.seed}-{self.quantization}-{self.races or 'all'}-races"


@dataclass(frozen=True)
class Study:
    """Fine-tunings of one base on one set of frames, in a folder that is theirs alone."""

    folder: Path
    frames: FrameSet
    profile: str
    parameters: dict[str, str]

    def configs(self, setting: Setting | None = None) -> dict[str, RunConfig]:
        """Parameters by step of a setting, or of the questions, which lie in the study's own folder."""
        if setting is None:
            return step_configs(self.profile, self.parameters, run_dir=str(self.folder))
        own = {"SEED": setting.seed, "QUANTIZATION": setting.quantization, "TRAIN_RACES": setting.races}
        return step_configs(self.profile, self.parameters | own, run_dir=str(self.folder / str(setting)))

    @property
    def qa(self) -> Path:
        return self.folder / "qa"

    def answers(self, setting: Setting) -> list[Prediction]:
        return read_answers(self.folder / str(setting) / HEADLINE)

    def metrics(self, setting: Setting) -> dict:
        return read_json(self.folder / str(setting) / "metrics.json")

    def training(self, setting: Setting) -> dict:
        return read_json(self.folder / str(setting) / "training.json")


def main() -> None:
    options = read_options()
    study = open_study(options)
    write_questions(study)
    tables = plan(study, options)
    settings = list(dict.fromkeys(setting for needed, _ in tables.values() for setting in needed))
    for place, setting in enumerate(settings, start=1):
        begin, done = time.monotonic(), do(study, setting)
        metrics, took = study.metrics(setting), f"{(time.monotonic() - begin) / 60:.1f} min" if done else "done before"
        exact, macro = percent(metrics["exact"]), percent(metrics["macro_exact"])
        print(f"[{place} of {len(settings)}] {setting}: {exact}, macro {macro} ({took})", flush=True)
    for name, (_, make) in tables.items():
        figures, rows = make()
        text = markdown.table(rows, right=True)
        write_json(study.folder / f"{name}.json", figures)
        write_text(study.folder / f"{name}.md", text + "\n")
        print(f"\n{name}\n\n{text}")
    print(f"\n{study.folder}")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, help="default: all three")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--races", type=float, nargs="+", default=[0.125, 0.25, 0.5], help="shares of the train races")
    parser.add_argument("--curve-seeds", type=int, nargs="+", help="of the learning curve; default: the first seed")
    parser.add_argument("--profile", choices=PROFILES, default="cpu")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="parameters")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "benchmarks" / "finetuning")
    options = parser.parse_args()
    if not all(0 < part < 1 for part in options.races):
        parser.error("--races: shares between 0 and 1; all races are the last point of the curve anyway")
    return options


def open_study(options: argparse.Namespace) -> Study:
    """The folder of this base and these frames. Raises ConfigError for parameters that are wrong or set here."""
    parameters = dict(options.parameters)
    if own := sorted({"QUANTIZATION", "TRAIN_RACES"} & set(parameters)):
        raise ConfigError(f"-p {', '.join(own)}: the settings differ in that; choose them with --only and --races")
    config = step_configs(options.profile, parameters)["03"]
    runs.set_up_hub(config.base_model)
    frames = read_frames(config.frames_paths, skip_broken=config.skip_broken)
    base = find_base(config.base_model, config.base_revision)
    return Study(options.out.absolute() / study_name(base, frames), frames, options.profile, parameters)


def study_name(base: Base, frames: FrameSet) -> str:
    """The base and the frames by their hashes: with others, nothing that was done holds."""
    files = [file for f in frames.frames() for file in (f.info_path, *(view.image_path for view in f.views))]
    return f"{base.name.replace('/', '-')}-{base.sha256[:8]}-frames-{sha256(files)[:8]}"


def write_questions(study: Study) -> None:
    """Notebook 02's files, once for all settings."""
    config: QaConfig = study.configs()["02"]
    if is_done("02", config):
        return
    run = runs.start_run(config, "02")
    how = Plan(config.seed, config.balance, config.extended_per_family, config.contrast_pictures)
    write_qa_sets(frames_by_split(study.frames, config.seed), study.qa, how, Workers(config.workers))
    run.finish(inputs=config.frames_paths, artefacts=sorted(study.qa.iterdir()))


def plan(study: Study, options: argparse.Namespace) -> dict[str, tuple[list[Setting], Callable[[], Table]]]:
    """Of each table the settings that it needs, and what makes it when they are done."""
    every = len({record.race for record in stream_records(study.qa / COURSE.format(TRAIN))})
    numbers = sorted({max(1, round(part * every)) for part in options.races} - {every})
    full = [Setting(seed) for seed in options.seeds]
    plain = [Setting(seed, "none") for seed in options.seeds]
    curve = {n: [Setting(seed, races=n) for seed in options.curve_seeds or options.seeds[:1]] for n in (0, *numbers)}
    tables = {
        "seeds": (full, partial(seed_table, study, full)),
        "bits": (full + plain, partial(bits_table, study, full, plain)),
        "races": ([s for row in curve.values() for s in row], partial(race_table, study, curve, every)),
    }
    return {name: table for name, table in tables.items() if options.only in (None, name)}


def is_done(step: str, config: RunConfig) -> bool:
    """Raises ConfigError where it was done with other parameters."""
    if not runs.is_done(config.run_path, step):
        return False
    if changed := runs.changed_parameters(config.run_path, step, config):
        raise ConfigError(
            f"{config.run_path} was done with {'; '.join(changed)}: give the same parameters, or another --out"
        )
    return True


def do(study: Study, setting: Setting) -> bool:
    """Fine-tune and score what is not done yet; -> whether anything was to do."""
    configs = study.configs(setting)
    todo = [step for step in ACTS if not is_done(step, configs[step])]
    for step in todo:
        ACTS[step](study, configs[step])
        gc.collect()  # trainer and model hold each other, and with them all image tokens
    return bool(todo)


def train(study: Study, config: FinetuneConfig) -> None:
    """What notebook 03 does."""
    train_run(config, frames=study.frames, qa=study.qa)


def answer(study: Study, config: ScoreConfig) -> None:
    """What notebook 04 does for its headline, without the blind answers and those of the base."""
    run = runs.start_run(config, "04")
    split, records = records_to_score(config, study.frames, study.qa)
    model = load_answerer(config.adapter_path, config.base_model, config.base_revision, config.quantization)
    store = FeatureStore(model, study.frames, config.eval_batch_size, shared_folder())
    predictions, _ = predict(store, records)
    figures = score(predictions, Bootstrap(predictions, config.bootstrap, config.seed))
    written = config.run_path / HEADLINE
    write_answers(predictions, written)
    write_json(config.run_path / "metrics.json", {"split": split, **figures.as_json()})
    run.finish(inputs=[config.adapter_path], artefacts=[written], exact=figures.exact)


ACTS = {"03": train, "04": answer}


def seed_table(study: Study, settings: Sequence[Setting]) -> Table:
    """A row for all questions, for the mean over families and for each of them; a column a seed, mean, spread."""
    columns = {f"seed {setting.seed}": shares(study.metrics(setting)) for setting in settings}
    figures, rows = {}, []
    for name in next(iter(columns.values())):
        by_seed = {seed: column[name] for seed, column in columns.items()}
        values = list(by_seed.values())
        spread = round(statistics.stdev(values), 6) if len(values) > 1 else None
        figures[name] = by_seed | {"mean": mean(values), "standard_deviation": spread}
        texts = {what: percent(value) for what, value in (by_seed | {"mean": mean(values)}).items()}
        deviation = number(spread and 100 * spread, 2)
        rows.append({"strict exact match": name} | texts | {"standard deviation, points": deviation})
    return figures, rows


def shares(metrics: dict) -> dict[str, float]:
    families = {name: row["exact"] for name, row in metrics["families"].items()}
    return {"all": metrics["exact"], "macro average": metrics["macro_exact"], **families}


def bits_table(study: Study, four_bit: Sequence[Setting], plain: Sequence[Setting]) -> Table:
    """NF4 less unquantized: over all seeds by family, then by seed."""
    by_seed = {f"all, seed {s.seed}": paired(study, [s], [p]) for s, p in zip(four_bit, plain, strict=True)}
    pooled = paired(study, four_bit, plain)
    rows = pooled.table("NF4", "unquantized").rows
    rows += [row.table("NF4", "unquantized").rows[0] | {"family": name} for name, row in by_seed.items()]
    return {name: row.as_json() for name, row in {"pooled": pooled, **by_seed}.items()}, rows


def paired(study: Study, ours: Sequence[Setting], other: Sequence[Setting]) -> Comparison:
    """The paired figures, the questions of several pairs of settings pooled."""
    shared = [share(study.answers(a), study.answers(b)) for a, b in zip(ours, other, strict=True)]
    counts = ([getattr(s, name) for s in shared] for name in ("only_ours", "only_other", "other_truth"))
    pool = Shared([pair for s in shared for pair in s.pairs], *map(sum, counts))
    return compare(pool, interval_of(study, [pair.ours for pair in pool.pairs]))


def interval_of(study: Study, rows: Sequence[Prediction]) -> Bootstrap:
    return Bootstrap(rows, study.configs()["04"].bootstrap, seed=0)


def race_table(study: Study, curve: dict[int, list[Setting]], every: int) -> Table:
    """A row a number of races, all of them last; difference: paired, against all races."""
    figures, rows = {}, []
    for races in sorted(curve, key=lambda n: n or every):
        settings = curve[races]
        predictions = [p for setting in settings for p in study.answers(setting)]
        scored = score(predictions, interval_of(study, predictions))
        trained = study.training(settings[0])
        less = paired(study, settings, curve[0]) if races else None
        against = less.as_json() if less else {}
        figures[str(races or every)] = {"training": trained, **scored.as_json(), "against_all": against}
        row = {
            "train races": count(races or every),
            "pictures": count(trained["pictures"]),
            "steps": count(trained["steps"]),
            "strict exact match": percent(scored.exact),
            "95% interval": interval(scored.exact_ci95),
            "macro average": percent(scored.macro_exact),
            "against all races, points": points(less and less.difference),
            "its 95% interval": interval(less and less.difference_ci95, points),
        }
        rows.append(row)
    return figures, rows


if __name__ == "__main__":
    main()
