"""The environment, read at the edge: where a user's call or command begins, and nowhere below."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from platformdirs import user_config_path, user_data_path

from pipeline.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Settings:
    """What the machine decides rather than the job.

    Attributes
    ----------
    redis_url : str or None
        ``REDIS_URL``; None for the embedded Valkey.
    cluster : str or None
        ``PIPELINE_CLUSTER``: a scheduler's address, a scheduler file or a settings file; None for a local cluster.
    allow_private : bool
        ``PIPELINE_ALLOW_PRIVATE``: whether sources may be on addresses that are not public.
    data_dir : Path
        ``PIPELINE_DATA_DIR``: the embedded server's files, and the key that seals.
    secret : str or None
        ``PIPELINE_SECRET``: what seals the secrets that must be written down; None for a key in `data_dir`.
    models : Path
        ``PIPELINE_MODELS``: the file in which an operator registers enhancement models; it need not exist.
    """

    redis_url: str | None = None
    cluster: str | None = None
    allow_private: bool = False
    data_dir: Path = field(default_factory=lambda: user_data_path("image-pipeline"))
    secret: str | None = field(default=None, repr=False)
    models: Path = field(default_factory=lambda: user_config_path("image-pipeline") / "models.toml")

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read the environment.

        Raises
        ------
        SettingsError
            If a variable has a value that means nothing.
        """
        paths = {
            name: Path(environ[variable])
            for name, variable in (("data_dir", "PIPELINE_DATA_DIR"), ("models", "PIPELINE_MODELS"))
            if environ.get(variable)
        }
        return cls(
            redis_url=environ.get("REDIS_URL") or None,
            cluster=environ.get("PIPELINE_CLUSTER") or None,
            secret=environ.get("PIPELINE_SECRET") or None,
            allow_private=_read_flag(environ, "PIPELINE_ALLOW_PRIVATE"),
            **paths,
        )


def _read_flag(environ: Mapping[str, str], name: str) -> bool:
    value = environ.get(name, "").strip().lower()
    if value in {"1", "true", "yes", "on"}:
        return True
    if value in {"", "0", "false", "no", "off"}:
        return False
    raise SettingsError(f"{name} is {value!r}; allowed is 1 or 0, true or false, yes or no, on or off")
