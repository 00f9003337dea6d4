"""What a user says of his cluster: an address, a scheduler file, or a settings file that may name any class of Dask's.

A settings file is TOML, with one of `class`, `address` and `scheduler_file`::

    class = "dask_jobqueue.SLURMCluster"   # any class that Dask knows as a cluster
    minimum = 2                            # it grows and shrinks; or workers = 8
    maximum = 40
    patience_s = 300                       # how long its first worker may take
    enhance_resources = { GPU = 1 }        # the model runs only on workers that have these

    [arguments]                            # of the class
    cores = 8

    [security]                             # TLS; paths are relative to this file
    ca_file = "ca.pem"
    client_cert = "client.pem"
    client_key = "client.key"

A class is code: the file belongs to whoever starts the run, and nothing that a client of the service sends names one.
"""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pipeline.errors import SettingsError

# How long a scheduler may take to answer, and a cluster's first worker to come: the latter waits in a queue.
ANSWER_PATIENCE_S: Final = 5.0
QUEUE_PATIENCE_S: Final = 300.0

_PLACES: Final = ("class", "address", "scheduler_file")
_OF_A_CLASS: Final = ("workers", "minimum", "maximum", "arguments")
_KEYS: Final = (*_PLACES, *_OF_A_CLASS, "patience_s", "enhance_resources", "security")
_SECURITY_KEYS: Final = ("ca_file", "client_cert", "client_key")


@dataclass(frozen=True, slots=True)
class Tls:
    """The files with which a client shows who it is, and knows whom it speaks to."""

    ca_file: Path
    client_cert: Path
    client_key: Path


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """Where the tasks run, and how many workers there are to be.

    Attributes
    ----------
    name : str
        What the user calls it: the address, the file, or the class.
    address : str
        Of a scheduler that somebody else runs; empty if `class_name` is given.
    class_name : str
        Module and name of a class of Dask's; empty if `address` is given.
    arguments : mapping
        The class's; never shown, since some are secret.
    workers : int or None
        A fixed number of them.
    minimum, maximum : int or None
        Between which the cluster grows and shrinks by itself.
    patience_s : float
        Seconds that a worker may take to come.
    enhance_resources : mapping of str to float
        What a worker has to have if the model is to run there; empty: nothing.
    tls : Tls or None
        None: as Dask's own configuration says.
    """

    name: str
    address: str = ""
    class_name: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)
    workers: int | None = None
    minimum: int | None = None
    maximum: int | None = None
    patience_s: float = ANSWER_PATIENCE_S
    enhance_resources: Mapping[str, float] = field(default_factory=dict)
    tls: Tls | None = None


def read_cluster(place: str | os.PathLike[str] | Mapping[str, Any]) -> ClusterSpec:
    """Read what ``--cluster``, ``PIPELINE_CLUSTER`` or ``cluster=`` says.

    Parameters
    ----------
    place : str, path or mapping
        An address; the path of a scheduler file (``.json``) or of a settings file (``.toml``); or a mapping with the
        keys of a settings file.

    Raises
    ------
    SettingsError
        If a file cannot be read, or says something that is not allowed.
    """
    if isinstance(place, Mapping):
        return parse_settings(place, Path.cwd(), "cluster")
    name = os.fspath(place)
    path = Path(name)
    match path.suffix:
        case ".json":
            return ClusterSpec(name, address=_read_scheduler_file(path))
        case ".toml":
            try:
                content = tomllib.loads(path.read_text("utf-8"))
            except (OSError, ValueError) as error:
                raise SettingsError(f"cannot read the cluster's settings {name!r}: {error}") from error
            return parse_settings(content, path.absolute().parent, name)
    return ClusterSpec(name, address=name)


def parse_settings(content: Mapping[str, Any], folder: Path, name: str) -> ClusterSpec:
    """Make a ClusterSpec of what a settings file holds.

    Parameters
    ----------
    content : mapping
    folder : Path
        What the file's paths are relative to.
    name : str
        The file's, for messages.

    Raises
    ------
    SettingsError
        If something is unknown, missing or of the wrong kind. The message names the key and what is allowed.
    """
    subject = f"the cluster's settings {name!r}"
    _require_known(content, _KEYS, subject)
    places = [key for key in _PLACES if content.get(key)]
    if len(places) != 1 or not isinstance(content[places[0]], str):
        raise SettingsError(f"{subject} have to name one of class, address and scheduler_file, as a string")
    common: dict[str, Any] = {
        "enhance_resources": _read_resources(content.get("enhance_resources", {}), subject),
        "tls": _read_tls(content["security"], folder, subject) if "security" in content else None,
        "patience_s": _read_patience(content, QUEUE_PATIENCE_S if places == ["class"] else ANSWER_PATIENCE_S, subject),
    }
    if places != ["class"]:
        if of_a_class := [key for key in _OF_A_CLASS if key in content]:
            raise SettingsError(f"{subject}: {', '.join(of_a_class)} only go with class")
        if places == ["address"]:
            return ClusterSpec(name, address=content["address"], **common)
        return ClusterSpec(name, address=_read_scheduler_file(folder / content["scheduler_file"]), **common)
    arguments = content.get("arguments", {})
    if not isinstance(arguments, Mapping):
        raise SettingsError(f"{subject}: arguments has to be a table")
    return ClusterSpec(
        content["class"], class_name=content["class"], arguments=arguments, **_read_size(content, subject), **common
    )


def has_resources(there: Mapping[str, float], needed: Mapping[str, float]) -> bool:
    """Return whether a worker has as much of everything as is needed."""
    return all(there.get(name, 0) >= amount for name, amount in needed.items())


def _require_known(content: Mapping[str, Any], allowed: tuple[str, ...], subject: str) -> None:
    if unknown := [str(key) for key in content if key not in allowed]:
        raise SettingsError(f"{subject}: unknown {', '.join(unknown)}; allowed are {', '.join(allowed)}")


def _read_size(content: Mapping[str, Any], subject: str) -> dict[str, Any]:
    workers, minimum, maximum = (content.get(key) for key in ("workers", "minimum", "maximum"))
    for key, value in (("workers", workers), ("minimum", minimum), ("maximum", maximum)):
        least = 0 if key == "minimum" else 1
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise SettingsError(f"{subject}: {key} is {value!r}; allowed is a whole number of at least {least}")
    if maximum is None and minimum is None:
        return {"workers": workers}
    if workers is not None or maximum is None:
        raise SettingsError(f"{subject}: allowed is either workers, or maximum with or without minimum")
    minimum = min(1, maximum) if minimum is None else minimum
    if minimum > maximum:
        raise SettingsError(f"{subject}: minimum is {minimum}, maximum {maximum}; allowed is at most the maximum")
    return {"minimum": minimum, "maximum": maximum}


def _read_patience(content: Mapping[str, Any], usual_s: float, subject: str) -> float:
    value = content.get("patience_s", usual_s)
    if not _is_positive(value):
        raise SettingsError(f"{subject}: patience_s is {value!r}; allowed are seconds, more than 0")
    return float(value)


def _read_resources(table: object, subject: str) -> dict[str, float]:
    if not isinstance(table, Mapping) or not all(_is_positive(amount) for amount in table.values()):
        raise SettingsError(f"{subject}: enhance_resources is {table!r}; allowed are names with amounts: {{ GPU = 1 }}")
    return {str(name): float(amount) for name, amount in table.items()}


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _read_tls(table: object, folder: Path, subject: str) -> Tls:
    if not isinstance(table, Mapping):
        raise SettingsError(f"{subject}: security has to be a table with {', '.join(_SECURITY_KEYS)}")
    _require_known(table, _SECURITY_KEYS, f"{subject}, [security]")
    paths = {}
    for key in _SECURITY_KEYS:
        if not isinstance(table.get(key), str):
            raise SettingsError(f"{subject}: [security] needs {', '.join(_SECURITY_KEYS)}; {key} is missing")
        paths[key] = folder / table[key]
        if not paths[key].is_file():
            raise SettingsError(f"{subject}: {key} is {str(paths[key])!r}, where there is no file")
    return Tls(**paths)


def _read_scheduler_file(path: Path) -> str:
    """Return the scheduler's address; it is read anew whenever a client is opened, as it may have moved."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"cannot read the scheduler file {str(path)!r}: {error}; `dask scheduler --scheduler-file` writes it"
        ) from error
    address = content.get("address") if isinstance(content, dict) else None
    if not isinstance(address, str) or not address:
        raise SettingsError(f"{str(path)!r} is no scheduler file: it has no address")
    return address
