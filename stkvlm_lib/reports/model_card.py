"""The model card of an adapter, from the artefacts of the run that scored it: what the hub shows, and people read."""

from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from stkvlm_lib import markdown
from stkvlm_lib.config import EMBEDDED
from stkvlm_lib.files import read_json, write_text
from stkvlm_lib.number_text import NOTHING, count, interval, is_number, percent
from stkvlm_lib.reports.artefacts import Artefacts, read_artefacts
from stkvlm_lib.reports.report_text import (
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
from stkvlm_lib.scores.score_tables import family_rows
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


def write_model_card(run_dir: str | Path, adapter_dir: str | Path | None = None) -> Path:
    """Write the card of the adapter that a run has scored; -> its path.

    It becomes README.md of the adapter where that lies in the run folder, else model_card.md of the run: folders of
    others are left as they are.
    """
    run = Path(run_dir)
    adapter = Path(adapter_dir) if adapter_dir else run / "adapter"
    found = read_artefacts(run)
    if (adapter / RECORD).is_file():
        found.adapter = read_json(adapter / RECORD)
    own = adapter.resolve().is_relative_to(run.resolve()) and adapter.is_dir()
    path = adapter / "README.md" if own else run / "model_card.md"
    write_text(path, model_card(found))
    return path


def model_card(found: Artefacts) -> str:
    """Front matter and Markdown, without any path of the machine."""
    parts = [
        f"---\n{front_matter(found).to_yaml()}\n---",
        "# LoRA adapter: questions about SuperTuxKart frames",
        headline(found.metrics),
        f"## Load it and ask\n\n```bash\n{_ask()}\n```\n\nIn Python:\n\n```python\n{PYTHON}```\n\n{_plain(found)}",
        f"## Base and adapter\n\n{_rows(model(found))}",
        f"## Data\n\n{_rows(data(found))}\n\n{_data_text(found)}",
        _settings(found),
        _figures(found),
        _list("Limits", [*OWN_LIMITS, *limits(found)]),
        f"## How it was made\n\n```bash\n{command(found, public)}\n```\n\n{_rows(origin(found))}",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def front_matter(found: Artefacts) -> ModelCardData:
    """What the hub reads: base, licence where it is known, and the scores as a model index."""
    base = _base(found)
    embedded = base.get("name") == EMBEDDED
    bundled = bool(found.config) and frames_name(found.config) == "the bundled frames"
    return ModelCardData(
        base_model=base["name"] if base.get("revision") else None,
        library_name="peft",
        pipeline_tag="image-text-to-text",
        language="en",
        license="cc-by-sa-4.0" if embedded and bundled else None,
        tags=["lora", "qlora", "visual-question-answering", "supertuxkart"],
        model_name="stkvlm adapter",
        eval_results=_results(found) or None,
    )


def _results(found: Artefacts) -> list[EvalResult]:
    metrics = found.metrics
    names = {"exact": "exact match", "macro_exact": "exact match, mean over families", "prefix": "prefix match"}
    return [
        EvalResult(
            task_type="visual-question-answering",
            dataset_type="supertuxkart-frames",
            dataset_name=f"SuperTuxKart frames ({frames_name(found.config)})",
            dataset_split=str(metrics.get("split", "")) or None,
            metric_type="exact_match",
            metric_name=words,
            metric_value=metrics[key],
        )
        for key, words in names.items()
        if is_number(metrics.get(key))
    ]


def _base(found: Artefacts) -> dict:
    base = found.adapter.get("base")
    return base if isinstance(base, dict) else {"name": found.metrics.get("base_model", "")}


def _ask() -> str:
    return './run_all.sh ask picture.jpg "What kart is the ego car?" --adapter ADAPTER_DIR'


def _plain(found: Artefacts) -> str:
    """How it is asked without this library."""
    base = _base(found)
    lines = lines_of_adapter(base["name"] if base.get("revision") else "BASE_DIR", "ADAPTER_DIR")
    where = "" if base.get("revision") else f", where BASE_DIR is the folder of the base `{base['name']}`"
    export = "`./run_all.sh export ADAPTER_DIR FOLDER` writes both, with `--merge` as one model"
    return f"With Transformers and PEFT alone{where} ({export}):\n\n```python\n{lines}```"


def _rows(rows) -> str:
    return "\n".join(f"- {name}: {markdown.cell(str(value))}" for name, value in rows if value)


def _list(title: str, items: list[str]) -> str:
    return f"## {title}\n\n" + "\n".join(f"- {item}" for item in items)


def _data_text(found: Artefacts) -> str:
    trained = found.manifest.get("steps", {}).get("03", {}).get("inputs") or {}
    hashes = [f"`{public(name)}` has the SHA-256 `{value}`" for name, value in trained.items()]
    return "Train, valid and test are different races." + (f" Of the questions, {'; '.join(hashes)}." if hashes else "")


def _settings(found: Artefacts) -> str:
    settings, trained = settings_of(found), found.training
    told = {name: value for name, value in sorted(settings.items()) if value != "" and name not in NO_SETTING}
    rows = [{"setting": name, "value": str(value)} for name, value in told.items()]
    if not rows:
        return ""
    known = {
        "steps": trained.get("steps"),
        "kept step": found.adapter.get("kept_step", trained.get("kept_step")),
        "trainable parameters": trained.get("trainable_parameters"),
    }
    text = [f"{name} {count(value)}" for name, value in known.items() if is_number(value)]
    if is_number(trained.get("valid_exact")):
        text.append(f"exact match on valid {percent(trained['valid_exact'])}")
    return f"## Settings\n\n{markdown.table(rows)}" + (f"\n\nTraining: {', '.join(text)}." if text else "")


def _figures(found: Artefacts) -> str:
    metrics = found.metrics
    if not (rows := family_rows(metrics)):
        return ""
    shown = [{name: value for name, value in row.items() if name != "question"} for row in rows]
    text = (
        "Exact: the whole answer is right. Majority: always the family's most frequent answer. Blind: the same adapter "
        "without seeing the picture. Base: without the adapter. Intervals are 95 % and resample whole races."
    )
    beside = {
        "extended families": metrics.get("extended"),
        "held-out wordings": metrics.get("held_out_wordings"),
        "own words": metrics.get("own_words"),
        "multiple choice, chance 20 %": metrics.get("mc"),
        **{f"split {name}": part for name, part in (metrics.get("other_splits") or {}).items()},
    }
    further = [
        f"- {name}: {percent(part['exact'])} of {count(part.get('n'))} ({interval(part.get('exact_ci95'))})".replace(
            f" ({NOTHING})", ""
        )
        for name, part in beside.items()
        if isinstance(part, dict) and is_number(part.get("exact"))
    ]
    scored = dict(facts(found).get("Of what data", [])).get("scored on", "")
    title = f"## Figures\n\n{scored}: strict exact match.\n\n" if scored else "## Figures\n\n"
    more = "\n\nScored by themselves:\n\n" + "\n".join(further) if further else ""
    return f"{title}{markdown.table(shown, right=True)}\n\n{text}{more}"
