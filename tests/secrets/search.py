"""Where secrets may have been left: files, tables, Redis, pages."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urljoin

import pyarrow.parquet as pq
import requests
from redis import Redis

from tests.fixtures import s3

# In every secret of these tests, whatever it is for.
MARK = "tOpSeCrEt"


def forms_of(secret: str) -> Iterator[bytes]:
    """Yield a secret as it may stand somewhere: plain, in any case of hexadecimal, and in base64 at any place."""
    plain = secret.encode()
    yield plain
    yield plain.hex().encode()
    yield plain.hex().upper().encode()
    for shift in range(3):
        # The letters that its neighbours have a part in are left out.
        coded = base64.b64encode(bytes(shift) + plain)
        yield coded[-(-shift * 4 // 3) + (1 if shift else 0) : (shift + len(plain)) * 4 // 3 - 1]


# Where links begin; /sitemap.json would say so too, but Dask answers it with 500.
_PAGES = [
    *("status", "workers", "tasks", "system", "profile", "profile-server", "graph", "groups", "events", "hardware"),
    *("info/main/workers.html", "info/main/logs.html", "info/main/exceptions.html", "json/counts.json"),
    *("json/identity.json", "json/index.html", "metrics", "health", "api/v1", "sitemap.json"),
]
FORMS = [form for secret in (MARK, s3.SECRET) for form in forms_of(secret)]


def secrets_in(text: str | bytes, where: str, forms: Iterable[bytes] = FORMS) -> list[str]:
    """Return where secrets are, each with what stands around it."""
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    found = []
    for form in forms:
        if (place := data.find(form)) >= 0:
            around = data[max(0, place - 120) : place + 60].decode("utf-8", "replace")
            found.append(f"{where}: {around}")
    return found


def secrets_in_files(root: Path, leave_out: Iterable[Path] = ()) -> list[str]:
    """Search all files below a folder: their names, their bytes, and what Parquet files hold."""
    found = []
    passed = {*leave_out}
    for path in sorted(root.rglob("*")):
        found += secrets_in(path.name, f"the name of {path}")
        if path in passed or not path.is_file():
            continue
        found += secrets_in(path.read_bytes(), str(path))
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            found += secrets_in(f"{table.schema} {table.to_pylist()}", str(path))
    return found


def secrets_in_redis(redis: Redis) -> list[str]:
    """Search all keys of a server and what they hold."""
    found = []
    for key in redis.scan_iter():
        held: object
        match redis.type(key):
            case "hash":
                held = redis.hgetall(key)
            case "zset":
                held = redis.zrange(key, 0, -1)
            case "string":
                held = redis.get(key)
            case kind:
                raise AssertionError(f"{key} is a {kind}, which nobody searches")
        found += secrets_in(f"{key} {held}", f"Redis, {key}")
    return found


def pages_of(dashboard: str, at_most: int = 120) -> dict[str, str]:
    """Return all pages of a Dask dashboard that can be reached by links, by their addresses."""
    waiting = [f"{dashboard}/{path}" for path in _PAGES]
    plots = requests.get(f"{dashboard}/individual-plots.json", timeout=60).json()
    waiting += [f"{dashboard}{path}" for path in plots.values()]
    pages: dict[str, str] = {}
    while waiting and len(pages) < at_most:
        address = waiting.pop(0).partition("#")[0]
        if address in pages or not address.startswith(dashboard) or "eventstream" in address or "/statics" in address:
            continue
        with requests.get(address, timeout=60, stream=True) as answer:
            kind = answer.headers.get("Content-Type", "")
            pages[address] = (
                f"{answer.status_code} {answer.text}" if kind.startswith(("text", "application/json")) else ""
            )
        waiting += [urljoin(address, link) for link in re.findall(r'href="([^"]+)"', pages[address])]
    return pages
