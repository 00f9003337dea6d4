"""A job and its outcomes as clients see them: nothing of the server's own paths. Pure."""

from __future__ import annotations

import hashlib
import json
import posixpath
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

from pipeline.domain import FINAL_STATUSES, STAGES
from pipeline.errors import SealError, remedy_for
from pipeline.interfaces.server.submission import FIELD_BY_OPTION
from pipeline.sealing import Seal, open_url

# What of a job's state is of no use to a client, or tells of the machine.
_HIDDEN: Final = frozenset({"driver", "owner"})

UPLOADS: Final = "_uploads"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A job's state, ready to be sent.

    Attributes
    ----------
    job_id : str
    version : int
    is_final : bool
    text : str
        The JSON object that ``GET /jobs/ID`` answers.
    frame : bytes
        The same for whoever follows the job, as a WebSocket's frame: made once for thousands of sockets.
    owner : str
    """

    job_id: str
    version: int
    is_final: bool
    text: str
    frame: bytes
    owner: str

    @classmethod
    def of_text(cls, text: str, root: Path | None) -> Self:
        """Read what the job's channel carries; without a root, paths are shown as they are."""
        fields = json.loads(text)
        shown = json.dumps(present_job(fields, root))
        return cls(
            job_id=fields["id"],
            version=int(fields["version"]),
            is_final=fields["status"] in FINAL_STATUSES,
            text=shown,
            frame=text_frame(f'{{"jobId": {json.dumps(fields["id"])}, "status": {shown}}}'),
            owner=str(fields.get("owner", "")),
        )


def text_frame(text: str) -> bytes:
    """Return a text as one whole frame of a WebSocket server, RFC 6455, section 5.2."""
    payload = text.encode()
    if len(payload) < 126:
        head = struct.pack("!BB", 0x81, len(payload))
    elif len(payload) < 2**16:
        head = struct.pack("!BBH", 0x81, 126, len(payload))
    else:
        head = struct.pack("!BBQ", 0x81, 127, len(payload))
    return head + payload


def job_folder(root: Path, job_id: str) -> Path:
    """Return where the results of a job go that names no other place."""
    return root / job_id


def uploads_folder(root: Path, job_id: str) -> Path:
    """Return where a job's uploaded files are; no key can begin like that."""
    return root / job_id / UPLOADS


def present_job(fields: Mapping[str, Any], root: Path | None) -> dict[str, Any]:
    """Return a job's fields with paths below the server's root, if any, replaced by relative URLs of the service."""
    shown = {name: value for name, value in fields.items() if name not in _HIDDEN}
    if root is not None:
        _hide_paths(shown, root)
    return shown | _present_recipe(shown.pop("recipe", {}))


def _hide_paths(shown: dict[str, Any], root: Path) -> None:
    own = str(job_folder(root, str(shown["id"])))
    shown["error"] = str(shown.get("error", "")).replace(f"{root}/", "")
    if str(shown.get("collection", "")).startswith(own):
        shown["collection"] = "uploads" if UPLOADS in shown["collection"] else "list"
    if shown.get("destination") == own:
        shown["destination"] = f"results/{quote(str(shown['id']))}"
        if key := _key_of(str(shown.get("resultUrl", "")), own):
            shown["resultUrl"] = result_url(str(shown["id"]), key)


def _present_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {option: recipe[field] for option, field in FIELD_BY_OPTION.items() if field in recipe}


def present_outcome(row: Mapping[str, Any], job_id: str, own_folder: Path | None) -> dict[str, Any]:
    """Return a row of the ledger in the words of the service.

    Parameters
    ----------
    row : mapping
    job_id : str
    own_folder : Path or None
        The job's folder, if its destination is the server's own.
    """
    shown = {
        "key": row["key"],
        "url": row["url"],
        "status": row["status"],
        "width": row["width"],
        "height": row["height"],
        "bytesIn": row["bytes_in"],
        "bytesOut": row["bytes_out"],
        "sha256": row["sha256"],
        "attempts": row["attempts"],
        "stage": row["stage"],
        "error": row["error"],
        "message": row["message"],
        "remedy": remedy_for(row["error"]),
        "finishedAt": row["finished_at"].timestamp(),
        "seconds": {stage: row[f"seconds_{stage}"] for stage in STAGES},
    }
    if own_folder is None:
        return shown | {"output": row["output"]}
    if row["output"]:
        shown["resultUrl"] = result_url(job_id, row["key"])
    if str(row["url"]).startswith(str(own_folder / UPLOADS)):
        name = posixpath.basename(row["url"])
        # The number in front is ours: two files of one name stay two.
        shown["url"] = name[5:]
        shown["message"] = str(row["message"]).replace(str(row["url"]), name[5:])
        shown["sourceUrl"] = f"sources/{quote(job_id)}/{quote(str(row['key']))}"
    return shown


def url_digest(row: Mapping[str, Any], job_id: str, seal: Seal) -> dict[str, str]:
    """Return what tells a client his URLs apart, of which ``url`` shows no query; nothing for what has no secret."""
    sealed = row.get("sealed_url") or ""
    try:
        url = open_url(row["url"], sealed, job_id, seal)
    except SealError:
        return {}
    return {"urlSha256": hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()} if sealed else {}


def result_url(job_id: str, key: str) -> str:
    """Return where a result is, relative to the root of the service."""
    return f"results/{quote(job_id)}/{quote(key)}"


def _key_of(output: str, own: str) -> str:
    prefix = own + "/"
    return posixpath.splitext(output.removeprefix(prefix))[0] if output.startswith(prefix) else ""
