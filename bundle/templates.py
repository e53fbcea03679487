"""Pages from jinja2 templates."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

__all__ = ["render"]


def render(template: str | Path, **values: Any) -> str:
    """Return a page. The filter ``link`` turns a relative path into a URL.

    Args:
        template: the file; if it ends in ``.html`` all values are escaped.
        values: by their names in the template.
    """
    path = Path(template)
    return _environment(path.parent).get_template(path.name).render(values)


@cache
def _environment(folder: Path) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["link"] = lambda path: quote(os.fsencode(path))
    return environment
