"""What a report says of a run, in words: headline, data and model, how to repeat it, known limits."""

import re
import shlex
from typing import Any

from stkvlm_lib.config import PROFILES, STEPS
from stkvlm_lib.grammar.scene import MIN_SIDE
from stkvlm_lib.number_text import NOTHING, count, interval, is_number, number, percent, points
from stkvlm_lib.reports.artefacts import Artefacts

EXTENDED_LIMITS = (
    "Extended questions, wordings and contrast pairs follow stricter rules and leave out what is doubtful; their "
    "scores and those of the ten forms cannot be compared.",
)


def headline(metrics: dict) -> str:
    """The result in a few sentences, with what it has not reached."""
    if not is_number(metrics.get("exact")):
        return "This run has no readable score; run notebook 04_error_analysis to make one."
    races = f" of {count(metrics['n_clusters'])} races" if metrics.get("clusters") == "race" else " of one race"
    races = races if "n_clusters" in metrics else ""
    split, ours = metrics.get("split", "scored"), interval(metrics.get("exact_ci95"))
    text = (
        f"With the adapter, {percent(metrics['exact'])} of {count(metrics.get('n'))} questions on pictures{races} in "
        f"the {split} set are answered exactly right (95% interval {ours}). The most frequent answer of each family "
        f"reaches {percent(metrics.get('majority'))}, the same adapter without seeing the picture "
        f"{percent(metrics.get('blind'))}, the base model without the adapter {percent(metrics.get('base_exact'))}."
    )
    if is_number(metrics.get("gain_over_blind")):
        text += (
            f" Seeing the picture is worth {points(metrics['gain_over_blind'])} points (95% interval "
            f"{interval(metrics.get('gain_over_blind_ci95'), points)})."
        )
    if is_number(metrics.get("gain_over_base")):
        text += (
            f" The gain over the base is {points(metrics['gain_over_base'])} points on the same questions (95% "
            f"interval {interval(metrics.get('gain_over_base_ci95'), points)})."
        )
    families = metrics.get("families") if isinstance(metrics.get("families"), dict) else {}
    lost = [name for name, row in families.items() if row.get("exact", 0) <= row.get("majority", -1)]
    if lost:
        text += f" No better than the most frequent answer: {', '.join(lost)}."
    return text


def facts(found: Artefacts) -> list[tuple[str, str]]:
    """Data and model in rows of name and value."""
    metrics, scored = found.metrics, found.predictions
    pictures, races, tracks = ({getattr(p, name) for p in scored} for name in ("image_file", "race", "track"))
    rows = [
        ("questions scored", f"{count(metrics.get('n'))} of split {metrics.get('split', NOTHING)}"),
        ("of", f"{len(pictures):,} pictures, {len(races)} races, {len(tracks)} tracks" if scored else NOTHING),
        ("data folder", _parameter(found.config, "FRAMES_DIR") or "the bundled frames"),
        ("base model", metrics.get("base_model", NOTHING)),
        ("adapter", f"{number(metrics.get('adapter_mb'), 2)} MB"),
        ("mean over families", percent(metrics.get("macro_exact"))),
        ("prefix match", percent(metrics.get("prefix"))),
        ("likeliest of the family's answers", percent(metrics.get("closed_exact"))),
        ("training", _training(metrics)),
        ("answering", f"{number(metrics.get('qa_per_second_eval'))} questions per second"),
        ("peak memory", f"{number(metrics.get('peak_memory_mb'), 0)} MB"),
        ("device", found.manifest.get("device", NOTHING)),
        ("seed", metrics.get("seed", NOTHING)),
    ]  # fmt: skip
    return [(name, str(value)) for name, value in rows]


def _training(metrics: dict) -> str:
    seconds = metrics.get("train_seconds")
    if not is_number(seconds):
        return "none in this run: an existing adapter was scored"
    return f"{seconds / 60:.1f} minutes, {number(metrics.get('qa_per_second_train'))} questions per second"


def command(found: Artefacts) -> str:
    """The call that repeats the run: its profile and every parameter that differs from it."""
    alone = found.config.get("04")
    if isinstance(alone, dict) and "03" not in found.config:
        given = {n: v for n, v in alone.items() if v != getattr(STEPS["04"][1], n.lower(), v)}
        pairs = "".join(f" -p {name} {shlex.quote(str(value))}" for name, value in given.items())
        return f"papermill -k python3 notebooks/{STEPS['04'][0]}.ipynb out.ipynb -p RUN_DIR outputs/again{pairs}"
    match = re.search(rf"-({'|'.join(PROFILES)})-", f"-{found.run_id}-")
    profile = match[1] if match else "cpu"
    changed = {}
    for step, (_, kind) in STEPS.items():
        recorded = found.config.get(step)
        for name, value in (recorded if isinstance(recorded, dict) else {}).items():
            if value != PROFILES[profile].get(name, getattr(kind, name.lower(), value)):
                changed[name] = value
    return " ".join(
        ["./run_all.sh", profile, *(f"-p {name} {shlex.quote(str(value))}" for name, value in changed.items())]
    )


def hashes(manifest: dict) -> list[tuple[str, str, str]]:
    """(step, file, SHA-256) of all that the steps read and wrote."""
    steps = manifest.get("steps")
    return [
        (step, name, str(value))
        for step, entry in (steps.items() if isinstance(steps, dict) else ())
        if isinstance(entry, dict)
        for kind in ("inputs", "artefacts")
        for name, value in (entry.get(kind) or {}).items()
    ]


def limits(found: Artefacts) -> list[str]:
    races = len({p.race for p in found.predictions})
    return [
        f"The scored questions come from {races or 'few'} races. Questions about one race share its track, karts and "
        "light, so the intervals resample whole races; other races may score outside them.",
        f"Labels follow the course's rule: a kart counts as visible if its box is at least {MIN_SIDE} px wide and high "
        "in the 150x100 picture, even if something hides it; the ego kart is the one nearest the middle; left, right, "
        "front and back are read off the picture, not off the track.",
        "Results from a GPU are not bit-identical from one run to the next.",
        "The confidence is the probability of the generated answer; it is not calibrated.",
        *(EXTENDED_LIMITS if "extended" in found.metrics else ()),
    ]


def versions(manifest: dict) -> str:
    versions = manifest.get("versions")
    listed = [f"{name} {value}" for name, value in versions.items()] if isinstance(versions, dict) else []
    return ", ".join([*listed, f"commit {manifest['commit']}"] if "commit" in manifest else listed)


def _parameter(config: dict, name: str) -> Any:
    """A parameter's value in the last step that recorded it."""
    values = [step[name] for _, step in sorted(config.items()) if isinstance(step, dict) and name in step]
    return values[-1] if values else None
