"""Texts from Jinja templates, strict: a value that a template wants and does not get is an error."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render(template: Path, **values: Any) -> str:
    """A template filled in. Of one in HTML (`.html`) every value is escaped; of one in Markdown none is.

    It may include its neighbours, and page_style.css.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=template.suffix == ".html",
        trim_blocks=template.suffix == ".md",
        lstrip_blocks=template.suffix == ".md",
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    return environment.get_template(template.name).render(**values)
