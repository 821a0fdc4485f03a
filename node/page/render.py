"""From blocks to HTML. Every text is escaped by the template, and what cannot be seen is written out first."""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ...protocol.names import shown

FOLDER = Path(__file__).parent


def plain(value: object) -> object:
    """Return a value for people. HTML of the templates' own stays; all other text shows its invisible characters."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return shown(str(value))


@cache
def environment() -> Environment:
    """Return the templates' environment."""
    made = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        finalize=plain,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["kind"] = lambda cell: getattr(cell, "kind", "text")
    return made


def page(template: str, **values: Any) -> str:
    """Return a page."""
    return environment().get_template(template).render(**values)
