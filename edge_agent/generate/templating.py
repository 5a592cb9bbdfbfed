"""The templates of `templates/`: a name that nobody gave is an error, and nothing is escaped."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from edge_agent.generate.quoting import FILTERS


def render(name: str, **values: object) -> str:
    """A template's text; every value in it went through a filter of `quoting.py`."""
    return _environment().get_template(f"{name}.j2").render(values)


@cache
def _environment() -> Environment:
    # HTML's escapes would damage every other format; the filters quote instead.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(FILTERS)
    return environment
