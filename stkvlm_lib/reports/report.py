"""The report of a run, written from its artefacts alone: report.html (one file, offline) and its short twin report.md.

What is missing or broken is named in the report, and the rest is shown.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import jinja2

from stkvlm_lib.explore.links import explorer_link
from stkvlm_lib.files import write_text
from stkvlm_lib.markdown import folded
from stkvlm_lib.number_text import count, interval, is_number, is_pair, percent
from stkvlm_lib.reports.artefacts import EXPECTED, Artefacts, read_artefacts
from stkvlm_lib.reports.error_sections import error_sections
from stkvlm_lib.reports.report_sections import PICTURES, Section, alternative, score_sections, sections
from stkvlm_lib.reports.report_text import command, facts, hashes, headline, limits, origin
from stkvlm_lib.scores.score_tables import Rows

TITLE = "Answering questions about SuperTuxKart frames"
_WORDS = ("question", "held-out wording")
"""Columns of running text: left out on a narrow screen and in report.md."""
_LEFT = (
    *(*_WORDS, "truth", "answered", "picture", "example", "how often", "family"),
    *("answers", "must hold of the answers", "when", "what would lift it", "what is wrong", "such as", "what to do"),
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
        headline=headline(found.metrics),
        problems=found.problems,
        scores=_scores(found.metrics),
        asked=count(found.metrics.get("n")),
        sections=sections(found, error_sections),
        words=_WORDS,
        left=_LEFT,
        pictures=PICTURES,
        explorer_link=explorer_link,
        facts=facts(found),
        command=command(found),
        origin=origin(found),
        hashes=hashes(found.manifest),
        limits=limits(found),
    )


def markdown(found: Artefacts) -> str:
    """Headline, tables, main figures and how to reproduce, short enough for a pull request."""
    parts = [f"# {TITLE}", headline(found.metrics)]
    if found.problems:
        parts.append("Not all of this run could be read:\n\n" + "\n".join(f"- {_plain(p)}" for p in found.problems))
    parts += [f"## {title}\n\n{_list(rows)}" for title, rows in facts(found).items()]
    first, *others = [*score_sections(found, {}), None]
    parts += [_part(first)] if first else []
    shown = [name for name in EXPECTED if name in found.figures]
    parts += [f"![{_plain(alternative(name, found))}](figures/{name}.png)" for name in shown]
    parts += [_part(section) for section in (*error_sections(found, {}), *others) if section and section.table]
    parts.append(f"## How to reproduce\n\n```bash\n{command(found)}\n```\n\n{_list(origin(found))}")
    if listed := hashes(found.manifest):
        named = [(f"{step} {name}", value) for step, name, value in listed]
        parts.append(folded("SHA-256 of what was read and written", _list(named)))
    parts.append("## Known limits\n\n" + "\n".join(f"- {limit}" for limit in limits(found)))
    return "\n\n".join(parts) + "\n"


def _part(section: Section) -> str:
    return "\n\n".join(filter(None, (f"## {section.title}", section.text, _table(section.table.rows))))


def _list(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"- {_plain(name)}: {_plain(value)}" for name, value in rows)


def _table(rows: Rows) -> str:
    columns = [name for name in rows[0] if name not in _WORDS]
    body = [[_plain(row[name]) for name in columns] for row in rows]
    lines = [columns, ["---", *["--:"] * (len(columns) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is, in one line."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(text.split()))


def _scores(metrics: dict) -> list[dict]:
    """The headline and its baselines as bars: name, value in words, share and interval from 0 to 1."""
    if not is_number(metrics.get("exact")):
        return []
    names = {
        "exact": "fine-tuned model",
        "majority": "most frequent answer",
        "blind": "the same model, blind",
        "base_exact": "base, not fine-tuned",
    }
    return [
        {
            "name": words,
            "text": percent(metrics[key]),
            "range": interval(given) if is_pair(given := metrics.get(f"{key}_ci95")) else "",
            "share": metrics[key],
            "low": given[0] if is_pair(given) else None,
            "high": given[1] if is_pair(given) else None,
        }
        for key, words in names.items()
        if is_number(metrics.get(key))
    ]
