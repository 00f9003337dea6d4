"""Everything that the pipeline raises on purpose.

::

    PipelineError
    ├── SettingsError            an environment variable or a settings file means nothing
    ├── RecipeError              a field of the Recipe is out of range
    ├── SourceError              the collection is missing, empty or unreadable
    ├── DestinationError         the destination cannot be written
    ├── LedgerError              the ledger cannot be read or written
    │   └── PartsRemovedError    somebody has removed parts of it while the job ran
    ├── SealError                what was sealed with another key cannot be opened
    ├── ModelError               the enhancement model is unknown or cannot be used
    ├── ClusterError             no Dask scheduler answers, or no worker that can do the work
    ├── StateError               Redis does not answer, or answers something unusable
    │   ├── JobNotFoundError     no job has that id
    │   ├── JobConflictError     the job is in a state that forbids it
    │   │   └── JobRunningError      another process runs it
    │   ├── QueueFullError       too many jobs wait
    │   └── LeaseLostError       the job was taken from the driver that writes its state
    └── StageError               one image failed in one stage; it becomes a failed Outcome
        ├── FetchError           its bytes could not be had
        │   ├── MissingError         nothing is there (404, 410, no such file)
        │   ├── AccessError          not allowed (401, 403, file permissions)
        │   ├── AddressError         the URL or its address is refused
        │   ├── LinkError            a link that leads out of the collection's folder
        │   ├── RobotsError          the server forbids such use of it (X-Robots-Tag)
        │   ├── ServerError          the server failed or answers something else
        │   ├── TimeoutFetchError    no whole answer in time
        │   ├── TooLargeError        more bytes than the limit
        │   ├── HashError            other bytes than the manifest promises
        │   └── RowError             the manifest's row names no image
        ├── DecodeError          the bytes are no usable image
        │   ├── NotAnImageError      of no known format
        │   ├── TruncatedError       it ends too early, or is damaged
        │   └── TooManyPixelsError   more pixels than the limit
        ├── EnhanceError         the model failed on it
        ├── StoreError           the result could not be encoded or written
        ├── TooHeavyError        it takes more memory than one image may
        ├── TooSlowError         it takes more time than one image may
        └── WorkerLostError      it ended the process that handled it (a codec's crash, memory)

A child exists where a caller would do something else about it; `remedy` says what. Every error pickles, since it
crosses processes: its arguments are positional and all of them reach ``super().__init__``.
"""

from __future__ import annotations

from typing import ClassVar


class PipelineError(Exception):
    """The root: ``except PipelineError`` catches whatever the pipeline raises on purpose."""

    remedy: ClassVar[str] = ""


class SettingsError(PipelineError):
    """An environment variable, or something in a settings file, means nothing."""


class RecipeError(PipelineError, ValueError):
    """A field of the Recipe is out of range."""


class SourceError(PipelineError):
    """The collection is missing, empty or unreadable."""


class DestinationError(PipelineError):
    """The destination cannot be written."""


class LedgerError(PipelineError):
    """The ledger cannot be read or written."""


class PartsRemovedError(LedgerError):
    """Somebody has removed parts of the ledger while the job ran; the images in them are likely gone too."""


class SealError(PipelineError):
    """What was sealed, a signed URL for one, cannot be opened with the key that is here."""


class ModelError(PipelineError):
    """The enhancement model is unknown or cannot be used."""


class ClusterError(PipelineError):
    """No Dask scheduler answers, or no worker that can do the work."""


class StateError(PipelineError):
    """Redis does not answer, or answers something unusable."""


class JobNotFoundError(StateError):
    """No job has that id."""


class JobConflictError(StateError):
    """The job is in a state that forbids what was asked."""


class JobRunningError(JobConflictError):
    """Another process runs the job; it can be followed, or cancelled first."""


class QueueFullError(StateError):
    """So many jobs wait for a queue worker that no more are taken."""


class LeaseLostError(StateError):
    """The job was taken from the driver that writes its state: it has to stop."""


class StageError(PipelineError):
    """One image failed in one stage; it becomes a failed Outcome, and the run goes on."""


class FetchError(StageError):
    """The bytes of an image could not be had."""

    remedy = "Check that the source can be reached from the workers, then retry."


class MissingError(FetchError):
    """Nothing is there: 404, 410 or no such file."""

    remedy = "Take it out of the collection, or put the file back; a retry alone will not help."


class AccessError(FetchError):
    """Reading it is not allowed: 401, 403 or the file's permissions."""

    remedy = "Give the workers the right to read it (credentials, a fresh signed URL, file permissions), then retry."


class AddressError(FetchError):
    """The URL, or the address that it leads to, is refused."""

    remedy = "Only http and https to public addresses are fetched; allow private ones with --allow-private."


class LinkError(FetchError):
    """It is a link that leads out of the folder that the user has named."""

    remedy = "Follow such links with --follow-links if you trust whoever has made the folder; or put the file there."


class RobotsError(FetchError):
    """The server forbids such use of it, by the header ``X-Robots-Tag``."""

    remedy = "Ask whoever publishes it; with his leave, --ignore-robots stores it nevertheless."


class ServerError(FetchError):
    """The server failed, or answered something other than a whole body."""

    remedy = "The server refused or failed: retry later."


class TimeoutFetchError(FetchError):
    """No whole answer came in time."""

    remedy = "Retry later, or give slow servers more time with --timeout."


class TooLargeError(FetchError):
    """It has more bytes than the limit."""

    remedy = "Take it out of the collection, or make it smaller at the source."


class HashError(FetchError):
    """Its bytes are not those that the manifest promises, or what it promises is no hash."""

    remedy = "The source has changed or is damaged, or the manifest's hash is wrong: mend the one that is, then retry."


class RowError(FetchError):
    """The manifest's row names no image: no URL, no JSON, or a key that another image has."""

    remedy = "Correct the row in the manifest and run that again: what is stored already is not done twice."


class DecodeError(StageError):
    """The bytes are no usable image."""

    remedy = "Open it in another program; if that works, please report it with the file."


class NotAnImageError(DecodeError):
    """The bytes are of no known image format."""

    remedy = "Often an error page or an empty file: look at what the source really sends."


class TruncatedError(DecodeError):
    """The image ends too early or is damaged."""

    remedy = "The file itself is broken: get a whole copy, then retry."


class TooManyPixelsError(DecodeError):
    """The image has more pixels than the limit."""

    remedy = "Take it out of the collection, or scale it down at the source."


class EnhanceError(StageError):
    """The enhancement model failed on it."""

    remedy = "Retry; if it fails again, run without --enhance and please report it."


class StoreError(StageError):
    """The result could not be encoded or written."""

    remedy = "Check the destination's free space and permissions, then retry."


class TooHeavyError(StageError):
    """It takes more memory than one image may, as its header tells or as it turned out."""

    remedy = "Scale it down at the source or take it out of the collection; or allow more memory with --image-memory."


class TooSlowError(StageError):
    """It takes more time than one image may, as its header tells or as it turned out."""

    remedy = "Take it out of the collection, or allow more time with --image-timeout."


class WorkerLostError(StageError):
    """It ended the process that handled it, by a codec's crash or by its use of memory."""

    remedy = "A crash in a codec, or too little memory: take it out, or allow more with --image-memory; then report it."


def error_named(name: str) -> type[PipelineError] | None:
    """Return the class of an error by its name, as a Failure keeps it; None if it is not of this tree."""
    error = globals().get(name)
    return error if isinstance(error, type) and issubclass(error, PipelineError) else None


def remedy_for(error_name: str) -> str:
    """Return what a user can do about an error, by the name of its class; empty if nothing is known."""
    error = error_named(error_name)
    return error.remedy if error else ""
