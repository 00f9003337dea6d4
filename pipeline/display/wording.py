"""Numbers as people read them, and when they mean something: the same in every interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pipeline.domain import Progress

_ETA_FROM_S: Final = 2.0


def is_starting(progress: Progress) -> bool:
    """Whether a job's workers are still starting."""
    return progress.status == "processing" and not progress.seconds


def has_eta(progress: Progress) -> bool:
    """Whether it is known how long a job will take; the first moments would promise hours."""
    return progress.eta_seconds is not None and progress.seconds >= _ETA_FROM_S and not progress.is_finished


def format_seconds(seconds: float) -> str:
    """Return a duration as people say it: ``850 ms``, ``8.6 s``, ``2 min 05 s``, ``3 h 07 min``."""
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms" if seconds else "0 s"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest_s:02} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes:02} min"


def format_bytes(count: int) -> str:
    """Return a number of bytes with the unit that leaves one to three digits before the point: ``53.5 MB``."""
    if count < 1000:
        return f"{count} B"
    size = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        size /= 1000
        if size < 999.95:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:,.1f} PB"
