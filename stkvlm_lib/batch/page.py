"""The comparison as a page of one file (batch.html, offline, without scripts) with CSV beside it."""

import base64
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from stkvlm_lib.analysis.comparison import Comparison as PairedFigures
from stkvlm_lib.batch import charts, tables
from stkvlm_lib.batch.results import Result
from stkvlm_lib.batch.tables import Comparison
from stkvlm_lib.config import from_root
from stkvlm_lib.files import whole_file, write_text
from stkvlm_lib.number_text import count, interval, number, percent, points
from stkvlm_lib.templates import render

PAGE = "batch.html"
COSTS = ("training, min", "memory, GB", "adapter, MB")
"""Columns of the tables that tell what a setting costs."""
MOST_IN_FRONT = 3
"""Where more parameters vary, their columns stand behind the scores, which would else be out of sight."""


def write_page(comparison: Comparison, folder: Path, *, title: str, command: str) -> Path:
    """Write PAGE, settings.csv and runs.csv into a folder; -> the path of the page.

    command: what makes it again.
    """
    _write_csv(folder / "settings.csv", tables.setting_records(comparison))
    _write_csv(folder / "runs.csv", tables.run_records(comparison))
    write_text(folder / PAGE, html_page(comparison, folder, title=title, command=command))
    return folder / PAGE


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with whole_file(path) as part:  # dtype: else pandas makes 12.0 of a 12 where a value below it is missing
        pd.DataFrame(rows, dtype=object).to_csv(part, index=False, lineterminator="\r\n")


def html_page(comparison: Comparison, folder: Path, *, title: str, command: str) -> str:
    """The whole page; every text is escaped by the template. folder: from which its links to reports count."""
    rows = tables.setting_rows(comparison)
    ends = [abs(end) for figures in comparison.differences.values() for end in figures.difference_ci95]
    reach = 1.05 * max([0.005, *ends])
    place = from_root(folder.resolve())
    return render(
        Path(__file__).with_name("batch_template.html"),
        title=title,
        place=folder.name if place.is_absolute() else place,
        headline=tables.headline(comparison),
        facts=_facts(comparison),
        notes=tables.notes(comparison),
        missing=tables.missing_rows(comparison),
        comparison=comparison,
        rows=rows,
        usual=next(row for row in rows if row["setting"] == comparison.baseline.name),
        few=len(comparison.varied) <= MOST_IN_FRONT,
        costs=[name for name in COSTS if name in rows[0]],
        style=charts.style,
        n_colours=len(charts.COLOURS),
        percent=percent,
        points=points,
        interval=interval,
        number=number,
        forest=lambda figures: _forest(figures, reach),
        figures=_figures(comparison),
        seeds=tables.seed_rows(comparison),
        families=tables.family_rows(comparison),
        report=lambda result: _link(result, folder),
        fixed=[{"parameter": name, "value": str(value)} for name, value in comparison.fixed.items()] or [{"": ""}],
        command=command,
    )


def _facts(comparison: Comparison) -> list[tuple[str, str]]:
    first = comparison.scored[0].figures
    races = first.get("n_clusters")
    took = [seconds for result in comparison.results if (seconds := result.figures.get("wall_seconds"))]
    facts = [
        ("settings", f"{len(comparison.settings)}"),
        ("runs with a score", f"{len(comparison.scored)} of {len(comparison.results)}"),
        ("scored on", f"{count(first.get('n'))} questions of {count(races)} {first.get('clusters', 'race')}s"),
        ("base", str(first.get("base_model", ""))),
        ("all runs took", f"{sum(took) / 60:,.0f} min" if took else ""),
    ]
    return [(name, value) for name, value in facts if value]


def _forest(figures: PairedFigures, reach: float) -> dict[str, float]:
    """Where dot and interval of a difference stand, in percent of a track from -reach to reach."""
    ends = figures.difference_ci95
    low, middle, high = (50 + 50 * value / reach for value in (ends[0], figures.difference, ends[1]))
    return {"left": low, "width": high - low, "middle": middle}


def _figures(comparison: Comparison) -> list[dict[str, str]]:
    shown = [
        (
            "Learning curves",
            charts.learning_curves(comparison.settings),
            "Loss and score on the valid races over the training steps: a thin line a run, a thick one the mean.",
        ),
        (
            "What accuracy costs",
            charts.accuracy_against_cost(comparison.settings),
            "Test accuracy against training time, peak memory and size of the adapter: small marks are runs, large "
            "ones means, bars the spread over the seeds.",
        ),
    ]
    return [{"title": title, "data": _svg(figure), "caption": caption} for title, figure, caption in shown]


def _svg(figure: Figure) -> str:
    """A figure as base64 of an SVG that is the same whenever it is drawn."""
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "stkvlm"}):  # else the names of its parts are drawn at random
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    return base64.b64encode(buffer.getvalue()).decode()


def _link(result: Result, folder: Path) -> str:
    """The address of a run's report, as it counts from a folder; empty where there is none."""
    report = result.folder / "report.html"
    return quote(os.path.relpath(report.resolve(), folder.resolve())) if report.is_file() else ""
