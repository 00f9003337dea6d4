"""The HTML templates of all that is shown. What is put into them is escaped, unless a template says otherwise."""

from __future__ import annotations

import functools
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from pipeline.display import style
from pipeline.display.wording import format_bytes, format_seconds
from pipeline.urls import redact


def render(template: str, **values: Any) -> str:
    """Fill a template, which its file's name names, with values."""
    return find_template(template).render(**values)


def find_template(name: str) -> Template:
    """Return the template `name`, whose macros are attributes of its ``module``."""
    return _environment().get_template(name)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipeline.display"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"seconds": format_seconds, "bytes": format_bytes, "count": "{:,}".format, "redact": redact}
    environment.globals["colours"] = {**style.COLOUR_BY_STAGE, "failed": style.COLOUR_FAILED}
    return environment
