"""What a client asks for: JSON in, a checked Submission out. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from pipeline.domain import Recipe, show_value
from pipeline.errors import RecipeError
from pipeline.interfaces.server.errors import RequestError
from pipeline.interfaces.server.options import ServerOptions
from pipeline.urls import is_within, redact

_FIELDS: Final = ("imageUrl", "imageUrls", "collection", "destination", "options", "jobId")
FIELD_BY_OPTION: Final[Mapping[str, str]] = {
    "maxWidth": "max_width",
    "maxHeight": "max_height",
    "fit": "fit",
    "quality": "quality",
    "format": "format",
    "enhance": "enhance",
    "strength": "strength",
    "enlarge": "enlarge",
    "background": "background",
    "keepCopyright": "keep_copyright",
}

_OPTION_BY_FIELD: Final = {field: option for option, field in FIELD_BY_OPTION.items()}

_MAX_URL: Final = 4096


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that a client wants.

    Attributes
    ----------
    urls : tuple of str
        The images; empty if there is a collection, or if they are uploaded.
    collection : str
        Where the images are found; empty if they are listed.
    destination : str
        Where the results go; empty for the server's own.
    recipe : Recipe
    job_id : str
        The client's own; empty if it has none.
    """

    urls: tuple[str, ...] = ()
    collection: str = ""
    destination: str = ""
    recipe: Recipe = field(default_factory=Recipe)
    job_id: str = ""


def parse_json(body: bytes, what: str = "the body") -> Mapping[str, Any]:
    """Read a JSON object.

    Raises
    ------
    RequestError
        400 if it is no JSON, 422 if it is no object.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, f"{what} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise _unusable(what, type(value).__name__, "an object")
    return value


def read_submission(body: Mapping[str, Any], options: ServerOptions) -> Submission:
    """Check a JSON submission.

    Raises
    ------
    RequestError
        413 for too many URLs, 403 for places that the operator has not opened, 422 for what else is wrong.
    RecipeError
        If an option is out of range.
    """
    _require_known(body, _FIELDS, "")
    kinds = [name for name in ("imageUrl", "imageUrls", "collection") if name in body]
    if len(kinds) != 1:
        raise _unprocessable(
            f"one of imageUrl, imageUrls and collection is needed; given: {', '.join(kinds) or 'none'}"
        )
    if "destination" in body and kinds != ["collection"]:
        raise _unprocessable("destination goes with collection: the results of imageUrls are the server's own")
    collection, destination = (_read_text(body, name) for name in ("collection", "destination"))
    if collection:
        _require_open("collection", collection, options.collections)
    if destination:
        _require_open("destination", destination, options.destinations)
        if redact(destination) != destination:
            raise _unusable("destination", redact(destination), "a URL without user name, password and query")
    return Submission(
        urls=_read_urls(body, options.limits.urls_per_job),
        collection=collection,
        destination=destination,
        recipe=read_recipe(body.get("options", {})),
        job_id=_read_text(body, "jobId"),
    )


def read_recipe(given: Any) -> Recipe:
    """Make a Recipe of a client's options.

    Raises
    ------
    RequestError
        422 if there is an option of another name.
    RecipeError
        If one is out of range.
    """
    if not isinstance(given, dict):
        raise _unusable("options", given, "an object")
    _require_known(given, tuple(FIELD_BY_OPTION), "options.")
    values = {FIELD_BY_OPTION[name]: value for name, value in given.items()}
    if values.get("enhance") == "none":
        values["enhance"] = None
    try:
        return Recipe.from_mapping(values)
    except RecipeError as error:
        # In the client's words.
        name, _, rest = str(error).partition(" ")
        raise RecipeError(f"{_OPTION_BY_FIELD.get(name, name)} {rest}") from error


def _read_urls(body: Mapping[str, Any], max_urls: int) -> tuple[str, ...]:
    if "imageUrl" in body:
        urls: Any = [body["imageUrl"]]
    elif "imageUrls" in body:
        urls = body["imageUrls"]
    else:
        return ()
    if not isinstance(urls, Sequence) or isinstance(urls, str) or not urls:
        raise _unusable("imageUrls", urls, "a list of URLs that is not empty")
    if len(urls) > max_urls:
        raise RequestError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"imageUrls has {len(urls)} URLs; allowed are {max_urls} a job: send them in several jobs",
        )
    for number, url in enumerate(urls):
        _require_web_url(f"imageUrls[{number}]" if "imageUrls" in body else "imageUrl", url)
    return tuple(urls)


def _require_web_url(where: str, url: Any) -> None:
    if not isinstance(url, str) or len(url) > _MAX_URL:
        raise _unusable(where, url, f"an http or https URL of at most {_MAX_URL} letters")
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme.lower() in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    # Of what prints, the space is the only one that is no part of a URL.
    if not is_usable or " " in url or not url.isprintable():
        raise _unusable(where, redact(url), "an http or https URL")


def _require_open(name: str, place: str, prefixes: Sequence[str]) -> None:
    """Refuse a place outside what the operator has opened to clients, by any way of writing it."""
    if not is_within(place, prefixes):
        allowed = ", ".join(prefixes) or "nothing"
        raise RequestError(
            HTTPStatus.FORBIDDEN, f"{name} is {redact(place)!r}; the operator of this server has opened {allowed}"
        )


def _read_text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str) or (name in body and not value) or len(value) > _MAX_URL:
        raise _unusable(name, value, f"a text of 1 to {_MAX_URL} letters")
    return value


def _require_known(given: Mapping[str, Any], known: Sequence[str], prefix: str) -> None:
    for name in given:
        if name not in known:
            raise _unprocessable(f"no field {prefix}{name[:100]} is known; there are: {', '.join(known)}")


def _unusable(name: str, value: Any, allowed: str) -> RequestError:
    return _unprocessable(f"{name} is {show_value(value)}; allowed is {allowed}")


def _unprocessable(message: str) -> RequestError:
    return RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, message)
