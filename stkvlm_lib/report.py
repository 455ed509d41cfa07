"""The report of a run, written from its artefacts alone: report.html (one file, offline) and its short twin report.md.

What is missing or broken is named in the report, and the rest is shown.
"""

import base64
import io
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from PIL import Image

from stkvlm_lib.config import PROFILES, STEPS
from stkvlm_lib.files import read_json, read_jsonl, write_text
from stkvlm_lib.galleries import typical_errors, worst_errors
from stkvlm_lib.plots import in_order
from stkvlm_lib.questions import FAMILIES
from stkvlm_lib.scene import MIN_SIDE

if TYPE_CHECKING:
    from stkvlm_lib.scoring import Prediction

TITLE = "Answering questions about SuperTuxKart frames"
NOTHING = "–"
"""Stands where a figure is missing."""
EXPECTED = ("score_families", "score_worst", "score_typical")
SECTIONS = {
    "Scores as figures": ("score_families", "score_confusion"),
    "Errors": ("score_worst", "score_typical"),
    "Training": ("train_",),
    "Data": ("data_", "qa_"),
}
"""Section -> how the names of its figures begin, in the order in which they are shown; others come under `More`."""
CAPTIONS = {
    "score_families": "Questions answered exactly right, by family, with 95% intervals and the three baselines.",
    "score_confusion": "What was answered (columns) where each answer was true (rows); framed cells are right.",
    "score_worst": "Wrong answers of which the model was most sure; the ego kart is yellow.",
    "score_typical": "The most frequent confusions, one picture each, with how often they happened.",
    "train_curve": "Training loss, and the share of valid questions answered exactly right, over the training steps.",
    "data_contact": "Pictures with their track and number of visible karts.",
    "data_overlays": "Karts by their place relative to the ego kart, under the rule that makes the answers.",
    "data_statistics": "Brightness, visible karts and kart sizes of the splits.",
    "qa_composition": "How often each answer is the right one, by family; dark: the most frequent answer.",
    "qa_samples": "Questions and answers drawn from every family, on their pictures.",
}


@dataclass
class Artefacts:
    """What a run folder holds; `problems` names what could not be read."""

    folder: Path
    metrics: dict = field(default_factory=dict)
    manifest: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict)
    predictions: list["Prediction"] = field(default_factory=list)
    log: list[dict] = field(default_factory=list)
    figures: dict[str, bytes] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def write_report(run_dir: str | Path) -> Path:
    """Write report.html and report.md into a run folder; -> the path of report.html. Raises for a folder not there."""
    folder = Path(run_dir)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such run folder; give one with metrics.json and predictions.jsonl")
    artefacts = read_artefacts(folder)
    write_text(folder / "report.md", markdown(artefacts))
    path = folder / "report.html"
    write_text(path, html_page(artefacts))
    return path


def read_artefacts(folder: Path) -> Artefacts:
    """Read what is there."""
    from stkvlm_lib.scoring import read_predictions  # loads torch, which the rest of the report does without

    found = Artefacts(folder)

    def read(reader: Callable, name: str, empty: Any) -> Any:
        try:
            value = reader(folder / name)
            if isinstance(value, type(empty)):
                return value
            found.problems.append(f"{name}: holds a {type(value).__name__}, not a {type(empty).__name__}")
        except FileNotFoundError:
            found.problems.append(f"{name}: not there")
        except (OSError, ValueError, TypeError, AttributeError) as error:
            found.problems.append(f"{name}: not readable ({str(error).replace(f'{folder}/', '')})")
        return empty

    found.metrics = read(read_json, "metrics.json", {})
    found.predictions = read(read_predictions, "predictions.jsonl", [])
    found.manifest = read(read_json, "manifest.json", {})
    found.config = read(read_json, "config.json", {})
    if found.metrics.get("train_seconds") is not None or (folder / "train_log.jsonl").exists():
        found.log = read(read_jsonl, "train_log.jsonl", [])
    for path in sorted((folder / "figures").glob("*.png")):
        if data := read(_read_picture, f"figures/{path.name}", b""):
            found.figures[path.stem] = data
    named = {problem.split(":")[0] for problem in found.problems}
    for name in EXPECTED:
        if name not in found.figures and (file := f"figures/{name}.png") not in named:
            found.problems.append(f"{file}: not there")
    n, scored = len(found.predictions), found.metrics.get("n")
    if found.predictions and found.metrics and n != scored:
        found.problems.append(f"predictions.jsonl: {n} rows, but metrics.json says n = {scored}; score again")
    return found


def _read_picture(path: Path) -> bytes:
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        image.verify()
    return data


# what the report says


def headline(metrics: dict) -> str:
    """The result in a few sentences, with what it has not reached."""
    if not _is_number(metrics.get("exact")):
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
    if _is_number(metrics.get("gain_over_blind")):
        text += (
            f" Seeing the picture is worth {points(metrics['gain_over_blind'])} points (95% interval "
            f"{interval(metrics.get('gain_over_blind_ci95'), points)})."
        )
    if _is_number(metrics.get("gain_over_base")):
        text += (
            f" The gain over the base is {points(metrics['gain_over_base'])} points on the same questions (95% "
            f"interval {interval(metrics.get('gain_over_base_ci95'), points)})."
        )
    families = metrics.get("families") if isinstance(metrics.get("families"), dict) else {}
    lost = [name for name, row in families.items() if row.get("exact", 0) <= row.get("majority", -1)]
    if lost:
        text += f" No better than the most frequent answer: {', '.join(lost)}."
    return text


def family_rows(metrics: dict) -> list[dict[str, str]]:
    """The table of families as text, all questions first."""
    families = metrics.get("families")
    if not isinstance(families, dict):
        return []
    overall = {**metrics, "base": metrics.get("base_exact")}
    rows = [("all", overall), *((name, families[name]) for name in in_order(families))]
    return [
        {
            "name": name,
            "question": FAMILIES[name].template if name in FAMILIES else "",
            "n": count(row.get("n")),
            "interval": interval(row.get("exact_ci95")),
            **{key: percent(row.get(key)) for key in ("exact", "prefix", "majority", "blind", "base")},
        }
        for name, row in rows
        if isinstance(row, dict)
    ]


def facts(found: Artefacts) -> list[tuple[str, str]]:
    """Data and model in rows of name and value."""
    metrics, scored = found.metrics, found.predictions
    pictures, races, tracks = ({getattr(p, name) for p in scored} for name in ("image_file", "race", "track"))
    rows = [
        ("questions scored", f"{count(metrics.get('n'))} of split {metrics.get('split', NOTHING)}"),
        ("of", f"{len(pictures):,} pictures, {len(races)} races, {len(tracks)} tracks" if scored else NOTHING),
        ("data folder", _parameter(found.config, "FRAMES_DIR") or "the bundled frames"),
        ("base model", metrics.get("base_model", NOTHING)),
        ("adapter", f"{_number(metrics.get('adapter_mb'), 2)} MB"),
        ("mean over families", percent(metrics.get("macro_exact"))),
        ("prefix match", percent(metrics.get("prefix"))),
        ("training", _training(metrics)),
        ("answering", f"{_number(metrics.get('qa_per_second_eval'))} questions per second"),
        ("peak memory", f"{_number(metrics.get('peak_memory_mb'), 0)} MB"),
        ("device", found.manifest.get("device", NOTHING)),
        ("seed", metrics.get("seed", NOTHING)),
    ]  # fmt: skip
    return [(name, str(value)) for name, value in rows]


def _training(metrics: dict) -> str:
    seconds = metrics.get("train_seconds")
    if not _is_number(seconds):
        return "none in this run: an existing adapter was scored"
    return f"{seconds / 60:.1f} minutes, {_number(metrics.get('qa_per_second_train'))} questions per second"


def command(found: Artefacts) -> str:
    """The call that repeats the run: its profile and every parameter that differs from it."""
    alone = found.config.get("04")
    if isinstance(alone, dict) and "03" not in found.config:
        given = {n: v for n, v in alone.items() if v != getattr(STEPS["04"][1], n.lower(), v)}
        pairs = "".join(f" -p {name} {shlex.quote(str(value))}" for name, value in given.items())
        return f"papermill -k python3 notebooks/{STEPS['04'][0]}.ipynb out.ipynb -p RUN_DIR outputs/again{pairs}"
    run_id = str(found.manifest.get("run_id", found.folder.name))
    match = re.search(rf"-({'|'.join(PROFILES)})-", f"-{run_id}-")
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
    ]


# pages


def html_page(found: Artefacts) -> str:
    """The whole page; every text is escaped by the template."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    pages = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return pages.get_template("report_template.html").render(
        title=TITLE,
        run_id=str(found.manifest.get("run_id", found.folder.name)),
        device=found.manifest.get("device", ""),
        headline=headline(found.metrics),
        problems=found.problems,
        cards=_cards(found.metrics),
        families=family_rows(found.metrics),
        sections=_sections(found),
        facts=facts(found),
        command=command(found),
        versions=_versions(found.manifest),
        hashes=hashes(found.manifest),
        limits=limits(found),
    )


def markdown(found: Artefacts) -> str:
    """Headline, table, main figures and how to reproduce, short enough for a pull request."""
    rows = family_rows(found.metrics)
    parts = [f"# {TITLE}", headline(found.metrics)]
    if found.problems:
        parts.append("Not all of this run could be read:\n\n" + "\n".join(f"- {_plain(p)}" for p in found.problems))
    if rows:
        keys = ("name", "n", "exact", "interval", "prefix", "majority", "blind", "base")
        head = ("family", "n", "exact", "95% interval", *keys[4:])
        lines = [head, ("---", *["--:"] * 7), *([_plain(row[key]) for key in keys] for row in rows)]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    parts += [f"![{_alt(name, found)}](figures/{name}.png)" for name in EXPECTED if name in found.figures]
    parts.append(f"Reproduce: `{command(found)}`, commit {found.manifest.get('commit', NOTHING)}.")
    parts.append("Known limits:\n\n" + "\n".join(f"- {limit}" for limit in limits(found)))
    return "\n\n".join(parts) + "\n"


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is, in one line."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(text.split()))


def _cards(metrics: dict) -> list[tuple[str, str]]:
    if not _is_number(metrics.get("exact")):
        return []
    return [
        (percent(metrics["exact"]), f"exactly right, {interval(metrics.get('exact_ci95'))}"),
        (percent(metrics.get("majority")), "most frequent answer"),
        (percent(metrics.get("blind")), "without seeing the picture"),
        (percent(metrics.get("base_exact")), "base without adapter"),
        (points(metrics.get("gain_over_base")),
         f"points gained by fine-tuning, {interval(metrics.get('gain_over_base_ci95'), points)}"),
    ]  # fmt: skip


def _sections(found: Artefacts) -> list[dict]:
    """Figures by section, each with caption, alternative text and size; the errors also as tables."""
    left = dict(found.figures)
    sections = []
    for title, starts in SECTIONS.items():
        names = [name for start in starts for name in left if name.startswith(start)]
        pictures = [_figure(name, left.pop(name), found) for name in names]
        tables = _error_tables(found.predictions) if title == "Errors" else []
        if pictures or tables:
            sections.append({"title": title, "figures": pictures, "tables": tables})
    if left:
        pictures = [_figure(name, data, found) for name, data in left.items()]
        sections.append({"title": "More", "figures": pictures, "tables": []})
    return sections


def _figure(name: str, data: bytes, found: Artefacts) -> dict:
    """A figure re-encoded as WebP, which keeps a page of pictures a fifth as large."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        image.convert("RGB").save(buffer, "WEBP", quality=88)
    text = base64.b64encode(buffer.getvalue()).decode()
    size = {"width": width, "height": height, "broad": width > 900}
    return {**size, "data": text, "alt": _alt(name, found), "caption": _caption(name)}


def _caption(name: str) -> str:
    words = name.replace("_", " ").capitalize()
    for start, caption in CAPTIONS.items():
        if name.startswith(start):
            rest = name.removeprefix(start).strip("_").replace("_", " ")
            return f"{rest.capitalize()}: {caption[0].lower()}{caption[1:]}" if rest else caption
    return f"{words}."


def _alt(name: str, found: Artefacts) -> str:
    """What a figure shows, with its numbers where they are few, for readers who cannot see it."""
    if name == "score_families" and (rows := family_rows(found.metrics)):
        listed = ", ".join(f"{row['name']} {row['exact']}" for row in rows)
        return f"Dot plot of the share answered exactly right: {listed}."
    if name in ("score_worst", "score_typical") and found.predictions:
        return f"{_caption(name)} The tables below list them as text."
    return _caption(name)


def _error_tables(predictions: Sequence["Prediction"]) -> list[dict]:
    if not any(not p.correct for p in predictions):
        return []
    worst = [
        (p.question, p.answer, p.prediction, percent(p.confidence), p.image_file) for p in worst_errors(predictions, 12)
    ]
    typical = [
        (f"{n} times", p.family, p.answer, p.prediction, p.image_file) for p, n in typical_errors(predictions, 12)
    ]
    return [
        {"title": "Most confident wrong answers as text", "rows": worst,
         "columns": ("question", "truth", "answered", "confidence", "picture")},
        {"title": "Most frequent confusions as text", "rows": typical,
         "columns": ("how often", "family", "truth", "answered", "example")},
    ]  # fmt: skip


# numbers as text


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def percent(value: Any) -> str:
    return f"{value:.1%}" if _is_number(value) else NOTHING


def points(value: Any) -> str:
    return f"{100 * value:+.1f}" if _is_number(value) else NOTHING


def count(value: Any) -> str:
    return f"{value:,}" if _is_number(value) else NOTHING


def interval(value: Any, show: Callable[[Any], str] = percent) -> str:
    """A pair as `low to high`."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return NOTHING
    return f"{show(value[0])} to {show(value[1])}"


def _number(value: Any, digits: int = 1) -> str:
    return f"{value:,.{digits}f}" if _is_number(value) else NOTHING


def _versions(manifest: dict) -> str:
    versions = manifest.get("versions")
    listed = [f"{name} {value}" for name, value in versions.items()] if isinstance(versions, dict) else []
    return ", ".join([*listed, f"commit {manifest['commit']}"] if "commit" in manifest else listed)


def _parameter(config: dict, name: str) -> Any:
    """A parameter's value in the last step that recorded it."""
    values = [step[name] for _, step in sorted(config.items()) if isinstance(step, dict) and name in step]
    return values[-1] if values else None
