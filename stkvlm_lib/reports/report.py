"""The report of a run: report.html (one file, offline) and its short twin report.md, of the sections that notebook 05
shows, and of the figures that the notebooks before it left.

What is missing or broken is named in the report, and the rest is shown.
"""

import base64
import io
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from stkvlm_lib.analysis.accuracy import Accuracy
from stkvlm_lib.analysis.measured import Interval
from stkvlm_lib.analysis.run_words import as_list, command, facts, hashes, headline, limits, origin, taught
from stkvlm_lib.analysis.scored_run import ScoredRun
from stkvlm_lib.analysis.sections import Section, Shown
from stkvlm_lib.analysis.story import Story
from stkvlm_lib.explore.links import explorer_link
from stkvlm_lib.files import write_text
from stkvlm_lib.markdown import cell, folded
from stkvlm_lib.number_text import count, interval, number, percent
from stkvlm_lib.templates import render

TITLE = "Answering questions about SuperTuxKart frames"
TEMPLATE = Path(__file__).with_name("report_template.html")
IN_MARKDOWN = ("score_families",)
"""Figures that the short report shows too."""
CAPTIONS = {
    "train_curve": "Training loss, and the share of valid questions answered exactly right, over the training steps.",
    "data_line_ups": "Which karts drive which track in each split, and how much of it held-out races share with train.",
    "data_contact": "Pictures with their track and number of visible karts.",
    "data_overlays": "Karts by their place relative to the ego kart, under the rule that makes the answers.",
    "data_statistics": "Brightness, visible karts and kart sizes of the splits.",
    "data_visibility": "How much of each kart one sees in rendered frames: share not covered, pixels, distance.",
    "data_colours": "Which colour each kart has, with the median of its views; those without one clear are named.",
    "qa_composition": "How often each answer is the right one, by family; dark: the most frequent answer.",
    "qa_samples_extended": "Questions of the families beside the ten forms, on their pictures.",
    "qa_samples": "Questions and answers drawn from every family, on their pictures.",
    "qa_alike": "The pictures of two splits that look most alike; no race, frame or identical picture is in two.",
    "qa_declined": "Extended questions of each family that stay, are left out to balance, or are declined, and why.",
    "qa_balance": "The most frequent answer's share of each extended family before and after balancing.",
    "qa_guesses": "What each family can be guessed at without the picture, by guesses that learn from train.",
    "qa_contrast": "One question, two pictures, two answers: mirrored, or the same moment from behind another kart.",
}
"""Figures of notebooks 01 to 03, by how their names begin."""
BEFORE = {"Training": ("train_",), "Data": ("data_", "qa_")}
"""Section -> how the names of its figures begin; those of no section come under `More`."""
PICTURES = ("picture", "example")
"""Columns of tables that name a picture; the page links them into the explorer."""
_WORDS = ("question", "held-out wording")
"""Columns of running text: left out on a narrow screen and in report.md."""
_LEFT = (
    *(*_WORDS, "truth", "answered", "picture", "example", "how often", "family"),
    *("answers", "must hold of the answers", "when", "what would lift it", "what is wrong", "such as", "what to do"),
)
"""Columns that are not figures."""


def write_report(story: Story | str | Path) -> Path:
    """Write report.html and report.md into a run folder; -> the path of report.html. Raises for a folder not there."""
    story = story if isinstance(story, Story) else Story(ScoredRun(Path(story)))
    run = story.run
    if not run.folder.is_dir():
        raise FileNotFoundError(f"{run.folder}: no such run folder; give one with metrics.json and predictions.jsonl")
    told = story.sections
    shown = [*told, *_of_notebooks_before(run, {figure.name for part in told for figure in part.figures})]
    n, scored = len(run.predictions), run.metrics.get("n")
    if run.predictions and run.metrics and n != scored:
        run.problems.append(f"predictions.jsonl: {n} rows, but metrics.json says n = {scored}; score again")
    write_text(run.folder / "report.md", markdown_report(run, told))
    path = run.folder / "report.html"
    write_text(path, html_page(run, shown))
    return path


def html_page(run: ScoredRun, told: list[Section]) -> str:
    """The whole page; every text is escaped by the template."""
    return render(
        TEMPLATE,
        title=TITLE,
        run_id=run.run_id,
        headline=headline(run),
        scores=_scores(run),
        asked=count(run.metrics.get("n")),
        percent=percent,
        interval=interval,
        sections=told,
        embedded=lambda shown: _embedded(run.picture(shown.name)),
        words=_WORDS,
        left=_LEFT,
        pictures=PICTURES,
        explorer_link=explorer_link,
        facts=facts(run),
        command=command(run),
        origin=origin(run),
        hashes=hashes(run.manifest),
        limits=limits(run),
        problems=run.problems,
    )


def markdown_report(run: ScoredRun, told: list[Section]) -> str:
    """Headline, tables, the main figure and how to reproduce, short enough for a pull request."""
    parts = [f"# {TITLE}", headline(run)]
    parts += [f"## {title}\n\n{as_list(rows)}" for title, rows in facts(run).items()]
    parts += [_part(section) for section in told if section.table]
    parts.append(f"## How to reproduce\n\n```bash\n{command(run)}\n```\n\n{as_list(origin(run))}")
    if listed := hashes(run.manifest):
        named = [(f"{step} {name}", value) for step, name, value in listed]
        parts.append(folded("SHA-256 of what was read and written", as_list(named)))
    parts.append("## Known limits\n\n" + "\n".join(f"- {limit}" for limit in limits(run)))
    if run.problems:
        named = "\n".join(f"- {cell(problem)}" for problem in run.problems)
        parts.insert(2, f"Not all of this run could be read:\n\n{named}")
    return "\n\n".join(parts) + "\n"


def _of_notebooks_before(run: ScoredRun, told: set[str]) -> Iterator[Section]:
    """The figures that lie in the run folder and are in no section yet."""
    left = [name for name in run.pictures() if name not in told and not name.startswith("score_")]
    for title, starts in (*BEFORE.items(), ("More", ("",))):
        names = [name for start in starts for name in left if name.startswith(start)]
        left = [name for name in left if name not in names]
        figures = [Shown(name, data, _caption(name), _alt(run, name)) for name in names if (data := run.picture(name))]
        if figures:
            yield Section(title, figures=figures)


def _caption(name: str) -> str:
    for start, caption in CAPTIONS.items():
        if name.startswith(start):
            rest = name.removeprefix(start).strip("_").replace("_", " ")
            return f"{rest.capitalize()}: {caption[0].lower()}{caption[1:]}" if rest else caption
    return f"{name.replace('_', ' ').capitalize()}."


def _alt(run: ScoredRun, name: str) -> str:
    """Of the training's curve, its first and last values in words."""
    if name != "train_curve":
        return ""
    parts = [_caption(name)]
    for key, words, show in (("loss", "Loss", number), ("valid_exact", "Exact match on valid", percent)):
        if values := [row[key] for row in run.log if key in row]:
            parts.append(f"{words} from {show(values[0])} to {show(values[-1])} over {len(values)} logged steps.")
    return " ".join(parts)


def _embedded(data: bytes) -> dict:
    """A PNG re-encoded as WebP, which keeps a page of pictures a fifth as large."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        image.convert("RGB").save(buffer, "WEBP", quality=88)
    text = base64.b64encode(buffer.getvalue()).decode()
    return {"width": width, "height": height, "broad": width > 1000, "data": text}


def _part(section: Section) -> str:
    shown = [f"![{cell(f.alt or f.caption)}](figures/{f.name}.png)" for f in section.figures if f.name in IN_MARKDOWN]
    return "\n\n".join(filter(None, (f"## {section.title}", section.text, *shown, section.table.markdown(_WORDS))))


def _scores(run: ScoredRun) -> list[tuple[str, float, Interval | None]]:
    """The headline and its baselines as bars, and what the base has never met: name, share and interval."""
    figures = run.figures(Accuracy)
    if not figures:
        return []
    rows = [
        ("fine-tuned model", figures.exact, figures.exact_ci95),
        ("most frequent answer", figures.majority, None),
        ("the same model, blind", figures.blind, None),
        ("base, not fine-tuned", figures.base_exact, None),
    ]
    for name, row in taught(run):
        rows += [(f"{name}: fine-tuned", row.exact, row.exact_ci95), (f"{name}: base, never met it", row.base, None)]
    return [row for row in rows if row[1] is not None]
