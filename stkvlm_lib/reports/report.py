"""The report of a run, written from its artefacts alone: report.html (one file, offline) and its short twin report.md.

What is missing or broken is named in the report, and the rest is shown.
"""

import re
from pathlib import Path

import jinja2

from stkvlm_lib.files import write_text
from stkvlm_lib.number_text import NOTHING, interval, is_number, percent, points
from stkvlm_lib.reports.artefacts import EXPECTED, Artefacts, read_artefacts
from stkvlm_lib.reports.error_sections import error_sections
from stkvlm_lib.reports.report_sections import Section, alternative, score_sections, sections
from stkvlm_lib.reports.report_text import command, facts, hashes, headline, limits, versions
from stkvlm_lib.scores.score_tables import Rows

TITLE = "Answering questions about SuperTuxKart frames"
_WORDS = ("question", "held-out wording")
"""Columns of running text: left out on a narrow screen and in report.md."""
_LEFT = (
    *(*_WORDS, "truth", "answered", "picture", "example", "how often", "family"),
    *("answers", "must hold of the answers", "when", "what would lift it"),
)
"""Columns that are not figures."""


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


def html_page(found: Artefacts) -> str:
    """The whole page; every text is escaped by the template."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    pages = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return pages.get_template("report_template.html").render(
        title=TITLE,
        run_id=found.run_id,
        device=found.manifest.get("device", ""),
        headline=headline(found.metrics),
        problems=found.problems,
        cards=_cards(found.metrics),
        sections=sections(found, error_sections),
        words=_WORDS,
        left=_LEFT,
        facts=facts(found),
        command=command(found),
        versions=versions(found.manifest),
        hashes=hashes(found.manifest),
        limits=limits(found),
    )


def markdown(found: Artefacts) -> str:
    """Headline, tables, main figures and how to reproduce, short enough for a pull request."""
    parts = [f"# {TITLE}", headline(found.metrics)]
    if found.problems:
        parts.append("Not all of this run could be read:\n\n" + "\n".join(f"- {_plain(p)}" for p in found.problems))
    first, *others = [*score_sections(found, {}), None, *error_sections(found, {})]
    if first:
        parts.append(_table(first.table.rows))
    parts += [f"![{alternative(name, found)}](figures/{name}.png)" for name in EXPECTED if name in found.figures]
    parts += [_part(section) for section in others if section and section.table]
    parts.append(f"Reproduce: `{command(found)}`, commit {found.manifest.get('commit', NOTHING)}.")
    parts.append("Known limits:\n\n" + "\n".join(f"- {limit}" for limit in limits(found)))
    return "\n\n".join(parts) + "\n"


def _part(section: Section) -> str:
    return "\n\n".join((f"## {section.title}", section.text, _table(section.table.rows)))


def _table(rows: Rows) -> str:
    columns = [name for name in rows[0] if name not in _WORDS]
    body = [[_plain(row[name]) for name in columns] for row in rows]
    lines = [columns, ["---", *["--:"] * (len(columns) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is, in one line."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(text.split()))


def _cards(metrics: dict) -> list[tuple[str, str]]:
    if not is_number(metrics.get("exact")):
        return []
    return [
        (percent(metrics["exact"]), f"exactly right, {interval(metrics.get('exact_ci95'))}"),
        (percent(metrics.get("majority")), "most frequent answer"),
        (percent(metrics.get("blind")), "without seeing the picture"),
        (percent(metrics.get("base_exact")), "base without adapter"),
        (points(metrics.get("gain_over_base")),
         f"points gained by fine-tuning, {interval(metrics.get('gain_over_base_ci95'), points)}"),
    ]  # fmt: skip
