"""The model card of an adapter, from the artefacts of the run that scored it: what the hub shows, and people read."""

from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from stkvlm_lib import markdown
from stkvlm_lib.analysis.accuracy import Accuracy
from stkvlm_lib.analysis.further_sets import Extended, MultipleChoice, UnseenLineUps
from stkvlm_lib.analysis.run_words import (
    as_list,
    command,
    facts,
    frames_name,
    headline,
    limits,
    origin,
    public,
    settings_of,
)
from stkvlm_lib.analysis.scored_run import ScoredRun
from stkvlm_lib.analysis.wordings import HeldOutWordings, OwnWords
from stkvlm_lib.config import EMBEDDED
from stkvlm_lib.files import read_json, write_text
from stkvlm_lib.model_files import RECORD_FILE
from stkvlm_lib.number_text import count, interval, is_number, percent
from stkvlm_lib.templates import render
from stkvlm_lib.vlm.plain_use import lines_of_adapter

NO_SETTING = ("skip_broken", "eval_batch_size")
"""What an adapter records beside the settings that made it."""


def write_model_card(folder: Path, adapter: Path) -> Path:
    """Write the card of the adapter that a run has scored; -> its path.

    It becomes README.md of the adapter where that lies in the run folder, else model_card.md of the run: folders of
    others are left as they are.
    """
    run = ScoredRun(folder)
    if (adapter / RECORD_FILE).is_file():
        run.adapter = read_json(adapter / RECORD_FILE)
    own = adapter.resolve().is_relative_to(folder.resolve()) and adapter.is_dir()
    path = adapter / "README.md" if own else folder / "model_card.md"
    write_text(path, model_card(run))
    return path


def model_card(run: ScoredRun) -> str:
    """Front matter and Markdown, without any path of the machine."""
    base, on_hub = _base(run), bool(_base(run).get("revision"))
    told = facts(run)
    trained = run.manifest.get("steps", {}).get("03", {}).get("inputs") or {}
    return render(
        Path(__file__).with_name("model_card_template.md"),
        front_matter=front_matter(run).to_yaml(),
        headline=headline(run),
        base=base["name"],
        on_hub=on_hub,
        plain_lines=lines_of_adapter(base["name"] if on_hub else "BASE_DIR", "ADAPTER_DIR"),
        model=as_list(told.get("By which model", [])),
        data=as_list(told.get("Of what data", [])),
        hashes=[f"`{public(name)}` has the SHA-256 `{value}`" for name, value in trained.items()],
        settings=_settings(run),
        training=list(_training(run)),
        scored_on=dict(told.get("Of what data", [])).get("scored on", ""),
        figures=_figures(run),
        further=list(_further(run)),
        limits=limits(run),
        command=command(run, public),
        origin=as_list(origin(run)),
    )


def front_matter(run: ScoredRun) -> ModelCardData:
    """What the hub reads: base, licence where it is known, and the scores as a model index."""
    base = _base(run)
    embedded = base.get("name") == EMBEDDED
    bundled = bool(run.config) and frames_name(run) == "the bundled frames"
    return ModelCardData(
        base_model=base["name"] if base.get("revision") else None,
        library_name="peft",
        pipeline_tag="image-text-to-text",
        language="en",
        license="cc-by-sa-4.0" if embedded and bundled else None,
        tags=["lora", "qlora", "visual-question-answering", "supertuxkart"],
        model_name="stkvlm",
        eval_results=_results(run) or None,
    )


def _results(run: ScoredRun) -> list[EvalResult]:
    found = run.figures(Accuracy)
    if not found:
        return []
    mean = "exact match, mean over families"
    named = {"exact match": found.exact, mean: found.macro_exact, "prefix match": found.prefix}
    return [
        EvalResult(
            task_type="visual-question-answering",
            dataset_type="supertuxkart-frames",
            dataset_name=f"SuperTuxKart frames ({frames_name(run)})",
            dataset_split=run.metrics.get("split"),
            metric_type="exact_match",
            metric_name=name,
            metric_value=value,
        )
        for name, value in named.items()
        if value is not None
    ]


def _base(run: ScoredRun) -> dict:
    base = run.adapter.get("base")
    return base if isinstance(base, dict) else {"name": run.metrics.get("base_model", "")}


def _settings(run: ScoredRun) -> str:
    """A table of the settings that made the adapter."""
    told = {name: value for name, value in sorted(settings_of(run).items()) if value != "" and name not in NO_SETTING}
    return markdown.table({"setting": name, "value": str(value)} for name, value in told.items())


def _training(run: ScoredRun) -> Iterator[str]:
    """What came of the training, as far as it is known."""
    trained = run.training
    known = {
        "steps": trained.get("steps"),
        "kept step": run.adapter.get("kept_step", trained.get("kept_step")),
        "trainable parameters": trained.get("trainable_parameters"),
    }
    yield from (f"{name} {count(value)}" for name, value in known.items() if is_number(value))
    if is_number(trained.get("valid_exact")):
        yield f"exact match on valid {percent(trained['valid_exact'])}"


def _figures(run: ScoredRun) -> str:
    """A table of the scores of each family."""
    found = run.figures(Accuracy)
    shown = found.table() if found else None
    return shown.markdown(without=("question",)) if shown else ""


def _further(run: ScoredRun) -> Iterator[str]:
    """A line for each set that is scored by itself."""
    unseen = run.figures(UnseenLineUps)
    named = {
        "extended families": run.figures(Extended),
        "held-out wordings": run.figures(HeldOutWordings),
        "own words": run.figures(OwnWords),
        "multiple choice, chance 20 %": run.figures(MultipleChoice),
        **{f"split {name}": figures for name, figures in (unseen.splits if unseen else {}).items()},
    }
    for name, figures in named.items():
        if figures:
            ends = f" ({interval(figures.exact_ci95)})" if figures.exact_ci95 else ""
            yield f"{name}: {percent(figures.exact)} of {count(figures.n)}{ends}"
