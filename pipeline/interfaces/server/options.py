"""What an operator decides of a server: where it listens, who may use it, and how much of it."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from pipeline.domain import FetchPolicy, ImageLimits
from pipeline.errors import RecipeError, SettingsError

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8000

# The client whose token is made at the start, or in PIPELINE_TOKEN.
OPERATOR: Final = "operator"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one server takes.

    Attributes
    ----------
    waiting_jobs : int
        Jobs in the queue, those of all servers together.
    urls_per_job, files_per_upload : int
    json_bytes, upload_bytes, file_bytes : int
        Of a request's JSON, of a whole upload, and of one file of it.
    submissions_per_second, submission_burst : float
        The token bucket of each client.
    body_timeout_s : float
        For the whole body of a request.
    sockets_per_client : int
    jobs_per_socket : int
        That one WebSocket may follow.
    message_bytes : int
        Of a WebSocket's message.
    socket_deadline_s : float
        Within which a client has to take the latest state.
    """

    waiting_jobs: int = 1000
    urls_per_job: int = 10_000
    files_per_upload: int = 1000
    json_bytes: int = 4 * 2**20
    upload_bytes: int = 512 * 2**20
    file_bytes: int = 64 * 2**20
    submissions_per_second: float = 20.0
    submission_burst: float = 100.0
    body_timeout_s: float = 300.0
    sockets_per_client: int = 1000
    jobs_per_socket: int = 1000
    message_bytes: int = 16 * 2**10
    socket_deadline_s: float = 30.0

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise SettingsError(f"the server's limit {limit.name} is {value!r}; allowed is a number above 0")


@dataclass(frozen=True, slots=True)
class Client:
    """Somebody who knows a token.

    Attributes
    ----------
    name : str
    is_admin : bool
        Whether he sees the jobs of all.
    """

    name: str
    is_admin: bool = False


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """A server's options.

    Attributes
    ----------
    root : Path
        Its destination: job ID's results go to ``ROOT/ID/``.
    host, port : str and int
        Where it listens; port 0 takes a free one.
    unix_socket : Path or None
        A socket file, the user's only, on which it listens instead: for a proxy of the same user's, such as Jupyter.
    clients : mapping of bytes to Client
        By the SHA-256 of each one's token.
    allowed_hosts : tuple of str
        Names under which it may be reached beside those of loopback, addresses, and the one it listens on.
    trusts_proxy : bool
        Whether ``X-Forwarded-*`` headers are believed.
    allow_private : bool
        Whether sources may be on addresses that are not public.
    collections, destinations : tuple of str
        What a client's ``collection`` and ``destination`` may begin with; never a local path unless it is listed.
    fetching : FetchPolicy
        How web servers are asked; where clients may fetch from is decided by the other options.
    images : ImageLimits
        What one image may take.
    limits : Limits
    """

    root: Path
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    unix_socket: Path | None = None
    clients: Mapping[bytes, Client] = field(default_factory=dict)
    allowed_hosts: tuple[str, ...] = ()
    trusts_proxy: bool = False
    allow_private: bool = False
    collections: tuple[str, ...] = ("s3://",)
    destinations: tuple[str, ...] = ("s3://",)
    fetching: FetchPolicy = field(default_factory=FetchPolicy)
    images: ImageLimits = field(default_factory=ImageLimits)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"the server's port is {self.port!r}; allowed is 0 to 65535")


@dataclass(frozen=True, slots=True)
class OptionsFile:
    """What a TOML file says of a server; every part may be missing.

    Attributes
    ----------
    clients : mapping of bytes to Client
    access : mapping
        Fields of `ServerOptions`: ``allowed_hosts trusts_proxy collections destinations``.
    fetching : FetchPolicy
    images : ImageLimits
    limits : Limits
    """

    clients: Mapping[bytes, Client] = field(default_factory=dict)
    access: Mapping[str, Any] = field(default_factory=dict)
    fetching: FetchPolicy = field(default_factory=FetchPolicy)
    images: ImageLimits = field(default_factory=ImageLimits)
    limits: Limits = field(default_factory=Limits)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file.

        Such as::

            [clients.alice]
            token = "a long secret"     # or sha256 = "its SHA-256"
            [clients.operator]
            token = "another one"
            admin = true
            [access]
            allowed_hosts = ["images.example.org"]
            trusts_proxy = true
            collections = ["s3://photos/"]
            [fetching]
            requests_per_second = 5
            [images]
            memory_mib = 512
            [limits]
            urls_per_job = 1000

        Raises
        ------
        SettingsError
            If it cannot be read, or says what means nothing.
        """
        try:
            tables = tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise SettingsError(f"cannot read the server's settings {str(path)!r}: {error}") from error
        _require_known(path, "table", tables, {"clients", "access", "fetching", "images", "limits"})
        for name in tables:
            if not isinstance(tables[name], dict):
                raise SettingsError(f"{name} in {str(path)!r} is {tables[name]!r}; it has to be a table")
        access, limits = tables.get("access", {}), tables.get("limits", {})
        _require_known(path, "access", access, _ACCESS)
        _require_known(path, "limit", limits, {limit.name for limit in fields(Limits)})
        known = [_read_client(path, name, table) for name, table in tables.get("clients", {}).items()]
        if len(dict(known)) < len(known):
            raise SettingsError(f"two clients in {str(path)!r} have the same token")
        return cls(
            clients=dict(known),
            fetching=_read_policy(path, "fetching", tables.get("fetching", {}), FetchPolicy, _FETCHING),
            images=_read_policy(path, "images", tables.get("images", {}), ImageLimits, _IMAGES),
            access={name: _read_access(path, name, value) for name, value in access.items()},
            limits=Limits(**limits),
        )


def hash_token(token: str) -> bytes:
    """Return the SHA-256 by which a token is known: comparing and keeping hashes tells nothing of the tokens."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


_ACCESS: Final = frozenset({"allowed_hosts", "trusts_proxy", "collections", "destinations"})
_FETCHING: Final = frozenset({"connections_per_host", "requests_per_second", "respect_robots", "user_agent"})
_IMAGES: Final = frozenset(limit.name for limit in fields(ImageLimits))
_Policy = TypeVar("_Policy", FetchPolicy, ImageLimits)


def _read_client(path: Path, name: str, table: Any) -> tuple[bytes, Client]:
    if not name or name == OPERATOR:
        raise SettingsError(f"a client in {str(path)!r} is called {name!r}; that name is taken")
    if not isinstance(table, dict):
        raise SettingsError(f"client {name!r} in {str(path)!r} has to be a table with a token")
    _require_known(path, f"field of client {name!r}", table, {"token", "sha256", "admin"})
    match table:
        case {"token": str(token)} if len(token) >= 16:
            key = hash_token(token)
        case {"sha256": str(digits)} if len(digits) == 64:
            try:
                key = bytes.fromhex(digits)
            except ValueError:
                raise SettingsError(f"sha256 of client {name!r} in {str(path)!r} is no hexadecimal number") from None
        case _:
            raise SettingsError(
                f"client {name!r} in {str(path)!r} has no usable token; "
                "allowed is token, of 16 letters or more, or the sha256 of one"
            )
    return key, Client(name, bool(table.get("admin", False)))


def _read_access(path: Path, name: str, value: Any) -> Any:
    if name == "trusts_proxy":
        if isinstance(value, bool):
            return value
        raise SettingsError(f"trusts_proxy in {str(path)!r} is {value!r}; allowed is true or false")
    if isinstance(value, list) and all(isinstance(entry, str) and entry for entry in value):
        return tuple(value)
    raise SettingsError(f"{name} in {str(path)!r} is {value!r}; allowed is a list of texts")


def _read_policy(
    path: Path, name: str, values: Mapping[str, Any], kind: type[_Policy], known: frozenset[str]
) -> _Policy:
    _require_known(path, f"field of {name}", values, known)
    try:
        return kind(**values)
    except RecipeError as error:
        raise SettingsError(f"{name} in {str(path)!r}: {error}") from error


def _require_known(path: Path, kind: str, given: Mapping[str, Any], known: frozenset[str] | set[str]) -> None:
    for name in given:
        if name not in known:
            raise SettingsError(f"no {kind} {name!r} is known in {str(path)!r}; there are: {', '.join(sorted(known))}")
