"""What a report says of a run, in words: headline, data and model, how to repeat it, known limits."""

import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stkvlm_lib.analysis.accuracy import Accuracy, FamilyScore
from stkvlm_lib.analysis.further_sets import Extended
from stkvlm_lib.analysis.scored_run import ScoredRun, as_object
from stkvlm_lib.config import EMBEDDED, PROFILES, STEPS
from stkvlm_lib.grammar.questions import FAMILIES
from stkvlm_lib.grammar.scene import MIN_SIDE
from stkvlm_lib.markdown import cell
from stkvlm_lib.number_text import count, counted, interval, is_number, number, percent, points


def headline(run: ScoredRun) -> str:
    """The result in a few sentences, with what it has not reached."""
    found = run.figures(Accuracy)
    if not found:
        return "This run has no readable score; run notebook 04_evaluate to make one."
    text = (
        f"With the adapter, {percent(found.exact)} of {count(found.n)} questions on pictures{found.races} in the "
        f"{run.split} set are answered exactly right (95% interval {interval(found.exact_ci95)}). The most frequent "
        f"answer of each family reaches {percent(found.majority)}, the same adapter without seeing the picture "
        f"{percent(found.blind)}, the base model without the adapter {percent(found.base_exact)}."
    )
    if found.gain_over_blind is not None:
        ends = interval(found.gain_over_blind_ci95, points)
        text += f" Seeing the picture is worth {points(found.gain_over_blind)} points (95% interval {ends})."
    if found.gain_over_base is not None:
        gain, ends = points(found.gain_over_base), interval(found.gain_over_base_ci95, points)
        text += f" The gain over the base is {gain} points on the same questions (95% interval {ends})."
        low, high = found.gain_over_base_ci95 or (1, 1)
        if low <= 0 <= high:
            knew = ": the embedded one has learnt this game before" if run.metrics.get("base_model") == EMBEDDED else ""
            text += f" These races show no difference from the base{knew}."
    for name, row in taught(run):
        text += (
            f" A kind of question that the base has never met, \u201c{FAMILIES[name].template}\u201d, rises from "
            f"{percent(row.base)} to {percent(row.exact)} ({count(row.n)} questions; most frequent answer "
            f"{percent(row.majority)})."
        )
    families = found.families or {}
    lost = [name for name, row in families.items() if row.majority is not None and row.exact <= row.majority]
    return text + (f" No better than the most frequent answer: {', '.join(lost)}." if lost else "")


def taught(run: ScoredRun) -> list[tuple[str, FamilyScore]]:
    """The families that the run's base has never met; none where it is from a hub, which has met no family at all."""
    extended = run.figures(Extended) if run.metrics.get("base_model") == EMBEDDED else None
    return extended.taught if extended else []


Facts = list[tuple[str, str]]
"""Rows of name and value."""


def facts(run: ScoredRun) -> dict[str, Facts]:
    """What was asked, of what data, by which model: a few rows each; rows without a value are left out."""
    groups = {
        "What was asked": asked(run),
        "Of what data": data(run),
        "By which model": model(run),
    }
    known = {title: [(name, str(value)) for name, value in rows if value] for title, rows in groups.items()}
    return {title: rows for title, rows in known.items() if rows}


def as_list(rows: Facts) -> str:
    """Rows as a list in Markdown."""
    return "\n".join(f"- {cell(name)}: {cell(value)}" for name, value in rows)


def asked(run: ScoredRun) -> list[tuple[str, Any]]:
    found = run.figures(Accuracy)
    if not found:
        return []
    families = found.families or {}
    kinds = f"{len(families)}: {', '.join(name.replace('_', ' ') for name in families)}"
    return [
        ("questions", f"{count(found.n)} of the {run.split} split"),
        ("kinds", kinds if any(name in FAMILIES for name in families) else ""),
        ("counted as right", "the whole answer, word for word" if families else ""),
        ("looser match", _shown(found.prefix, "with the answer cut to the truth's length, as the course grades")),
        ("mean over kinds", _shown(found.macro_exact)),
        ("closed answers", _shown(found.closed_exact, "taking the likeliest answer of each kind")),
    ]


def data(run: ScoredRun) -> list[tuple[str, Any]]:
    scored, trained = run.predictions, run.training
    parts = {"picture": "image_file", "race": "race", "track": "track"}
    sizes = [counted(len({getattr(p, name) for p in scored}), noun) for noun, name in parts.items()]
    learnt = [counted(trained[name], name.removesuffix("s")) for name in ("pictures", "questions") if name in trained]
    return [
        ("frames", frames_name(run) if run.config else ""),
        ("scored on", ", ".join(sizes) if scored else ""),
        ("trained on", ", ".join(learnt)),
        ("questions from", public(run.parameter("QA_FILE") or ("the labelling rule" if scored else ""))),
    ]


def model(run: ScoredRun) -> list[tuple[str, Any]]:
    metrics, settings = run.metrics, settings_of(run)
    base = as_object(run.adapter.get("base"))
    revision = f", revision {base['revision'][:12]}" if base.get("revision") else ""
    rank = f", LoRA rank {settings['lora_rank']}, alpha {settings.get('lora_alpha')}" if "lora_rank" in settings else ""
    size = f"{metrics['adapter_mb']:.2f} MB" if is_number(metrics.get("adapter_mb")) else ""
    rate = metrics.get("qa_per_second_eval")
    memory = metrics.get("peak_memory_mb")
    return [
        ("base", f"{metrics['base_model']}{revision}" if "base_model" in metrics else ""),
        ("stored as", {"nf4": "4 bit (NF4)", "none": "not quantized"}.get(metrics.get("quantization"), "")),
        ("computed in", metrics.get("precision", "")),
        ("adapter", f"{size}{rank}"),
        ("training", _training(metrics) if metrics else ""),
        ("answering", f"{number(rate)} questions per second" if is_number(rate) else ""),
        ("peak memory", f"{number(memory, 0)} MB" if is_number(memory) else ""),
        ("device", run.manifest.get("device")),
    ]


def settings_of(run: ScoredRun) -> dict:
    """The settings that the adapter was trained with, as it records them."""
    return as_object(run.adapter.get("settings"))


def frames_name(run: ScoredRun) -> str:
    """The data folders by name; of absolute paths only the last part, as the rest means nothing elsewhere."""
    given = run.parameter("FRAMES_DIR")
    return ", ".join(public(given).split(os.pathsep)) if given else "the bundled frames"


def public(value: Any) -> str:
    """A parameter as it may stand in public: of absolute paths, also of several, only the last part."""
    parts = str(value).split(os.pathsep)
    return os.pathsep.join(Path(part).name if Path(part).is_absolute() else part for part in parts)


def _shown(share: float | None, words: str = "") -> str:
    return f"{percent(share)} {words}".strip() if share is not None else ""


def _training(metrics: dict) -> str:
    seconds = metrics.get("train_seconds")
    if not is_number(seconds):
        return "none in this run: an existing adapter was scored"
    return f"{seconds / 60:.1f} minutes, {number(metrics.get('qa_per_second_train'))} questions per second"


def command(run: ScoredRun, show: Callable[[Any], str] = str) -> str:
    """The call that repeats the run: its profile and every parameter that differs from it, as `show` writes it."""
    if run.parameters("04") and "03" not in run.config:
        given = {n: v for n, v in run.parameters("04").items() if v != getattr(STEPS["04"][1], n.lower(), v)}
        parts = [f"papermill -k python3 notebooks/{STEPS['04'][0]}.ipynb out.ipynb -p RUN_DIR outputs/again"]
    else:
        match = re.search(rf"-({'|'.join(PROFILES)})-", f"-{run.run_id}-")
        profile = match[1] if match else "cpu"
        given, parts = {}, [f"./run_all.sh {profile}"]
        for step, (_, kind) in STEPS.items():
            usual = {n: PROFILES[profile].get(n, getattr(kind, n.lower(), v)) for n, v in run.parameters(step).items()}
            given |= {n: v for n, v in run.parameters(step).items() if v != usual[n]}
    return " ".join([*parts, *(f"-p {name} {shlex.quote(show(value))}" for name, value in given.items())])


def origin(run: ScoredRun) -> Facts:
    """Seed, commit, versions, device, and the hash of the base's weights: what a repetition is held against."""
    manifest = run.manifest
    rows = [
        ("seed", run.metrics.get("seed", manifest.get("seed"))),
        ("commit", _made_by(manifest)),
        ("versions", ", ".join(f"{n} {v}" for n, v in as_object(manifest.get("versions")).items())),
        ("device", manifest.get("device")),
        ("base weights, SHA-256", as_object(run.adapter.get("base")).get("sha256") or run.metrics.get("base_sha256")),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "")]


def _made_by(manifest: dict) -> Any:
    """The commit that trained, and that which scored where it was another; whoever only reads a run changes neither."""
    steps = as_object(manifest.get("steps"))
    commits = dict.fromkeys(as_object(steps.get(step)).get("commit") for step in ("03", "04"))
    return ", then ".join(filter(None, commits)) or manifest.get("commit")


def hashes(manifest: dict) -> list[tuple[str, str, str]]:
    """(step, file, SHA-256) of all that the steps read and wrote."""
    return [
        (step, name, str(value))
        for step, entry in as_object(manifest.get("steps")).items()
        for kind in ("inputs", "artefacts")
        for name, value in as_object(as_object(entry).get(kind)).items()
    ]


def limits(run: ScoredRun) -> list[str]:
    races = len({p.race for p in run.predictions})
    told = [
        f"The scored questions come from {races or 'few'} races. Questions about one race share its track, karts and "
        "light, so the intervals resample whole races; other races may score outside them. Where all races agree, as "
        "where every answer is right, there is nothing to resample, and the interval is Wilson's over so many races.",
        f"Labels follow the course's rule: a kart counts as visible if its box is at least {MIN_SIDE} px wide and high "
        "in the 150x100 picture, even if something hides it; the ego kart is the one nearest the middle; left, right, "
        "front and back are read off the picture, not off the track.",
        "This is one training with one seed; another seed gives other figures, and the spread is not measured here.",
        "Results from a GPU are not bit-identical from one run to the next.",
        "The confidence is the probability of the generated answer, at the temperature that came with the adapter; "
        "where the scored races are harder than those that it was fitted on, it is too high.",
    ]
    if "extended" in run.metrics:
        told.append(
            "Extended questions, wordings and contrast pairs follow stricter rules and leave out what is doubtful; "
            "their scores and those of the ten forms cannot be compared."
        )
    return told
