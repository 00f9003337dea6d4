"""The settings file in which an operator registers models of his own.

It is TOML, a table for each model::

    [models.crisp]
    url = "crisp.keras"       # beside this file, or anything that fsspec opens
    sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    scale = 1                 # or 2, for a model that doubles the size
    description = "crisper"   # optional
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.errors import ModelError

_FIELDS: Final = ("url", "sha256", "scale", "description")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}")


@dataclass(frozen=True, slots=True)
class Registered:
    """A model as the settings file has it; `url` is absolute."""

    url: str
    sha256: str
    scale: int
    description: str


def read_registry(path: Path) -> dict[str, Registered]:
    """Read the settings file; without one, nothing is registered.

    Returns
    -------
    dict of str to Registered
        By the model's name.

    Raises
    ------
    ModelError
        If it cannot be read, or an entry lacks something or has something wrong. The message names the file, the
        model, the field and what is allowed.
    """
    try:
        if not path.exists():
            return {}
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the models of {str(path)!r}: {error}") from error
    tables = content.get("models", {})
    if set(content) - {"models"} or not isinstance(tables, dict):
        raise ModelError(f"cannot read the models of {str(path)!r}: allowed are tables such as [models.crisp]")
    return {name: _read_entry(path, name, table) for name, table in tables.items()}


def _read_entry(path: Path, name: str, table: Any) -> Registered:
    subject = f"model {name!r} in {str(path)!r}"
    if not _NAME.fullmatch(name) or name == "none":
        raise ModelError(f"{subject}: a name has up to 50 letters, digits, '.', '_' and '-', and is not 'none'")
    if not isinstance(table, dict) or set(table) - set(_FIELDS):
        raise ModelError(f"{subject}: its fields are {', '.join(_FIELDS)}")
    url, sha256 = table.get("url"), table.get("sha256")
    if not isinstance(url, str) or not url:
        raise ModelError(f"{subject}: url is {url!r}; allowed is a path or a URL")
    if not isinstance(sha256, str) or not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise ModelError(
            f"{subject}: sha256 is {sha256!r}; allowed are 64 hexadecimal digits, as sha256sum prints them"
        )
    if table.get("scale") not in (1, 2) or isinstance(table["scale"], bool):
        raise ModelError(f"{subject}: scale is {table.get('scale')!r}; allowed is 1 or 2")
    place = url if "://" in url else str(path.absolute().parent / url)
    return Registered(place, sha256.lower(), int(table["scale"]), str(table.get("description", "")))
