"""The model card of an adapter, from the artefacts of the run that scored it: what the hub shows, and people read."""

from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from stkvlm_lib import markdown
from stkvlm_lib.analysis.accuracy import Accuracy, score_table
from stkvlm_lib.analysis.further_sets import Extended, UnseenLineUps
from stkvlm_lib.analysis.multiple_choice import MultipleChoice
from stkvlm_lib.analysis.run_words import (
    command,
    data,
    facts,
    frames_name,
    headline,
    limits,
    model,
    origin,
    public,
    settings_of,
)
from stkvlm_lib.analysis.scored_run import ScoredRun
from stkvlm_lib.analysis.wordings import HeldOutWordings, OwnWords
from stkvlm_lib.config import EMBEDDED
from stkvlm_lib.files import read_json, write_text
from stkvlm_lib.number_text import count, interval, is_number, percent
from stkvlm_lib.vlm.plain_use import lines_of_adapter

RECORD = "stkvlm.json"
NO_SETTING = ("skip_broken", "eval_batch_size")
"""What an adapter records beside the settings that made it."""
OWN_LIMITS = (
    "It answers short questions about SuperTuxKart frames in the forms it was trained on, in English. Other games, "
    "photographs and free conversation are outside what it has seen.",
)
PYTHON = """\
from pathlib import Path

from stkvlm_lib.data.pictures import load_image
from stkvlm_lib.vlm.adapter import load_answerer

model = load_answerer(Path("ADAPTER_DIR"))
print(model.answer(load_image(Path("picture.jpg")), "What kart is the ego car?"))
"""


def write_model_card(run: ScoredRun | str | Path, adapter_dir: str | Path | None = None) -> Path:
    """Write the card of the adapter that a run has scored; -> its path.

    It becomes README.md of the adapter where that lies in the run folder, else model_card.md of the run: folders of
    others are left as they are.
    """
    run = run if isinstance(run, ScoredRun) else ScoredRun(Path(run))
    adapter = Path(adapter_dir) if adapter_dir else run.folder / "adapter"
    if (adapter / RECORD).is_file():
        run.adapter = read_json(adapter / RECORD)
    own = adapter.resolve().is_relative_to(run.folder.resolve()) and adapter.is_dir()
    path = adapter / "README.md" if own else run.folder / "model_card.md"
    write_text(path, model_card(run))
    return path


def model_card(run: ScoredRun) -> str:
    """Front matter and Markdown, without any path of the machine."""
    parts = [
        f"---\n{front_matter(run).to_yaml()}\n---",
        "# LoRA adapter: questions about SuperTuxKart frames",
        headline(run),
        f"## Load it and ask\n\n```bash\n{_ask()}\n```\n\nIn Python:\n\n```python\n{PYTHON}```\n\n{_plain(run)}",
        f"## Base and adapter\n\n{_rows(model(run))}",
        f"## Data\n\n{_rows(data(run))}\n\n{_data_text(run)}",
        _settings(run),
        _figures(run),
        _list("Limits", [*OWN_LIMITS, *limits(run)]),
        f"## How it was made\n\n```bash\n{command(run, public)}\n```\n\n{_rows(origin(run))}",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


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
        model_name="stkvlm adapter",
        eval_results=_results(run) or None,
    )


def _results(run: ScoredRun) -> list[EvalResult]:
    found = run.figures(Accuracy)
    if not found:
        return []
    named = {
        "exact match": found.exact,
        "exact match, mean over families": found.macro_exact,
        "prefix match": found.prefix,
    }
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


def _ask() -> str:
    return './run_all.sh ask picture.jpg "What kart is the ego car?" --adapter ADAPTER_DIR'


def _plain(run: ScoredRun) -> str:
    """How it is asked without this library."""
    base = _base(run)
    lines = lines_of_adapter(base["name"] if base.get("revision") else "BASE_DIR", "ADAPTER_DIR")
    where = "" if base.get("revision") else f", where BASE_DIR is the folder of the base `{base['name']}`"
    export = "`./run_all.sh export ADAPTER_DIR FOLDER` writes both, with `--merge` as one model"
    return f"With Transformers and PEFT alone{where} ({export}):\n\n```python\n{lines}```"


def _rows(rows) -> str:
    return "\n".join(f"- {name}: {markdown.cell(str(value))}" for name, value in rows if value)


def _list(title: str, items: list[str]) -> str:
    return f"## {title}\n\n" + "\n".join(f"- {item}" for item in items)


def _data_text(run: ScoredRun) -> str:
    trained = run.manifest.get("steps", {}).get("03", {}).get("inputs") or {}
    hashes = [f"`{public(name)}` has the SHA-256 `{value}`" for name, value in trained.items()]
    return "Train, valid and test are different races." + (f" Of the questions, {'; '.join(hashes)}." if hashes else "")


def _settings(run: ScoredRun) -> str:
    settings, trained = settings_of(run), run.training
    told = {name: value for name, value in sorted(settings.items()) if value != "" and name not in NO_SETTING}
    rows = [{"setting": name, "value": str(value)} for name, value in told.items()]
    if not rows:
        return ""
    known = {
        "steps": trained.get("steps"),
        "kept step": run.adapter.get("kept_step", trained.get("kept_step")),
        "trainable parameters": trained.get("trainable_parameters"),
    }
    text = [f"{name} {count(value)}" for name, value in known.items() if is_number(value)]
    if is_number(trained.get("valid_exact")):
        text.append(f"exact match on valid {percent(trained['valid_exact'])}")
    return f"## Settings\n\n{markdown.table(rows)}" + (f"\n\nTraining: {', '.join(text)}." if text else "")


def _figures(run: ScoredRun) -> str:
    found = run.figures(Accuracy)
    shown = score_table(found) if found else None
    if not shown:
        return ""
    rows = [{name: value for name, value in row.items() if name != "question"} for row in shown.rows]
    text = (
        "Exact: the whole answer is right. Majority: always the family's most frequent answer. Blind: the same adapter "
        "without seeing the picture. Base: without the adapter. Intervals are 95 % and resample whole races."
    )
    scored = dict(facts(run).get("Of what data", [])).get("scored on", "")
    title = f"## Figures\n\n{scored}: strict exact match.\n\n" if scored else "## Figures\n\n"
    further = "\n".join(_further(run))
    more = f"\n\nScored by themselves:\n\n{further}" if further else ""
    return f"{title}{markdown.table(rows, right=True)}\n\n{text}{more}"


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
            yield f"- {name}: {percent(figures.exact)} of {count(figures.n)}{ends}"
