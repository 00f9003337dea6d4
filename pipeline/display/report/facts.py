"""The numbers of a report: pure functions from the ledger to what is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import pandas as pd

from pipeline.display.wording import format_bytes, format_seconds
from pipeline.domain import Progress, Recipe, Stage

# The chart of speed has bars of equal length from the run's start to its end: not so many that chance rules them.
MOST_BARS: Final = 48
SHORTEST_BAR_S: Final = 0.5
IMAGES_A_BAR: Final = 8

MOST_HOSTS: Final = 12

# A URL's host and port, without user and password. Signs that no host has would be markup in somebody's hands.
HOST_PATTERN: Final = r"(?i)^https?://(?:[^/?#@]*@)?([\w.:\[\]-]+)"

# What else is counted over time, in millions.
RATES: Final[Mapping[str, Callable[[pd.DataFrame], pd.Series[float]]]] = {
    "megapixels": lambda outcomes: outcomes["width"].astype("float64") * outcomes["height"] / 1e6,
    "megabytes_in": lambda outcomes: outcomes["bytes_in"] / 1e6,
    "megabytes_out": lambda outcomes: outcomes["bytes_out"] / 1e6,
}

# Fewer threads than this at work on average: computing was not what the run waited for, however large the cluster.
IDLE_THREADS: Final = 0.6

ADVICE_BY_STAGE: Final[Mapping[Stage, str]] = {
    "fetch": "Workers nearer to the source, or a faster source, would shorten the run; more workers would not.",
    "resize": "Decoding large sources costs most: more workers share it, smaller sources avoid it.",
    "enhance": "The model costs by the pixel: more workers share it, a smaller --max-width and --max-height shrink it.",
    "store": "Encoding or writing costs most: JPEG is the fastest to encode, AVIF the slowest; "
    "otherwise look at how fast the destination takes files.",
}


class Tile(NamedTuple):
    """One number of the head of the page."""

    label: str
    value: str
    note: str = ""


class StageTime(NamedTuple):
    """What one stage took, summed over images; `share` is of all stages, 0 to 1, `width` of the longest."""

    stage: Stage
    seconds: str
    share: float
    width: float
    mean: str


def of_latest_run(outcomes: pd.DataFrame, progress: Progress) -> pd.DataFrame:
    """Return the outcomes of the job's last run: earlier ones, perhaps days ago, say nothing about its speed."""
    finished = outcomes["finished_at"]
    started = pd.to_datetime(progress.started_at, utc=True, errors="coerce")
    latest = outcomes[finished >= started] if pd.notna(started) else outcomes
    return outcomes if latest.empty else latest


def totals(outcomes: pd.DataFrame, progress: Progress) -> list[Tile]:
    """Return the numbers of the head of the page."""
    stored = outcomes[outcomes["status"] == "stored"]
    megapixels = float((stored["width"].astype("int64") * stored["height"]).sum()) / 1e6
    per_image = megapixels / len(outcomes) if len(outcomes) else 0.0
    ratio = progress.bytes_out / progress.bytes_in if progress.bytes_in else 0.0
    return [
        Tile("stored", f"{progress.stored:,}", _share(progress.stored, progress.done)),
        Tile("failed", f"{progress.failed:,}", _share(progress.failed, progress.done)),
        Tile("skipped", f"{progress.skipped:,}", _share(progress.skipped, progress.done)),
        Tile("time", format_seconds(progress.seconds), "of the last run"),
        Tile("images/s", f"{progress.images_per_second:,.1f}"),
        Tile("megapixels/s", f"{per_image * progress.images_per_second:,.1f}", "of output"),
        Tile("bytes in", format_bytes(progress.bytes_in)),
        Tile("bytes out", format_bytes(progress.bytes_out), f"{ratio:.0%} of what came in" if ratio else ""),
    ]


def speed_over_time(outcomes: pd.DataFrame, progress: Progress) -> pd.DataFrame:
    """Count what finished, in bars of equal length from the start of the run to its last image.

    Returns
    -------
    DataFrame
        Columns ``start_s end_s``, seconds since the run began; ``stored failed``, images a second; ``megapixels
        megabytes_in megabytes_out``, a second. Empty if there are no outcomes with a time.
    """
    # A worker that died told no time: the epoch stands there.
    is_timed = outcomes["finished_at"] > pd.Timestamp(0, tz="UTC")
    # What was there already took no time.
    known = outcomes[is_timed & (outcomes["status"] != "skipped")]
    if known.empty:
        return pd.DataFrame({name: [] for name in ("start_s", "end_s", "stored", "failed", *RATES)})
    first = known["finished_at"].min()
    started = pd.to_datetime(progress.started_at, utc=True, errors="coerce")
    origin = started if pd.notna(started) and started <= first else first
    elapsed_s = (known["finished_at"] - origin).dt.total_seconds()
    span_s = float(elapsed_s.max()) or 1.0
    bars = bar_count(span_s, len(known))
    bar_s = span_s / bars
    bar_of_image = (elapsed_s / bar_s).astype(int).clip(upper=bars - 1)
    is_failed = known["status"] == "failed"
    edges_s = pd.Series(range(bars)) * bar_s
    return pd.DataFrame(
        {
            "start_s": edges_s,
            "end_s": edges_s + bar_s,
            "stored": _count_by_bar(bar_of_image[~is_failed], bars) / bar_s,
            "failed": _count_by_bar(bar_of_image[is_failed], bars) / bar_s,
            **{name: _sum_by_bar(rate(known), bar_of_image, bars) / bar_s for name, rate in RATES.items()},
        }
    )


def bar_count(span_s: float, images: int) -> int:
    """Return in how many bars so many images in so many seconds are counted."""
    return max(1, min(MOST_BARS, int(span_s / SHORTEST_BAR_S), images // IMAGES_A_BAR))


def seconds_by_stage(outcomes: pd.DataFrame, recipe: Recipe) -> dict[Stage, float]:
    """Sum what each stage of the Recipe took over all images."""
    return {stage: float(outcomes[f"seconds_{stage}"].sum()) for stage in recipe.stages}


def stage_times(outcomes: pd.DataFrame, recipe: Recipe) -> list[StageTime]:
    """Return the seconds of each stage, ready to be shown; empty if nothing took any time."""
    seconds = seconds_by_stage(outcomes, recipe)
    whole, longest = sum(seconds.values()), max(seconds.values())
    if not whole:
        return []
    times = []
    for stage, spent in seconds.items():
        passed = int((outcomes[f"seconds_{stage}"] > 0).sum())
        mean = f"{1000 * spent / passed:,.1f} ms an image" if passed else "no image came this far"
        times.append(StageTime(stage, format_seconds(spent), spent / whole, spent / longest, mean))
    return times


def advise(outcomes: pd.DataFrame, progress: Progress, recipe: Recipe) -> str:
    """Say where the time goes and what to do about it; empty if nothing took any time."""
    seconds = seconds_by_stage(outcomes, recipe)
    computing = {stage: spent for stage, spent in seconds.items() if stage != "fetch"}
    computed = sum(computing.values())
    if not progress.seconds or not sum(seconds.values()):
        return ""
    threads, fetches = computed / progress.seconds, seconds["fetch"] / progress.seconds
    busy = f"On average {threads:.1f} threads were computing while {fetches:.1f} images were being fetched."
    if max(threads, fetches) < IDLE_THREADS:
        return f"{busy} The run was mostly starting up: a longer one tells more."
    if threads < IDLE_THREADS:
        return f"{busy} The run waited for its sources. {ADVICE_BY_STAGE['fetch']}"
    stage = max(computing, key=computing.__getitem__)
    return f"{busy} Of the computing, {stage} takes {computing[stage] / computed:.0%}. {ADVICE_BY_STAGE[stage]}"


def latency_by_host(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Measure how long fetching took, retries included, for the hosts with the most images.

    Returns
    -------
    DataFrame
        Columns ``host images p50_s p95_s``, the slowest host first; empty if the sources are no http URLs.
        ``attrs["left_out"]`` counts the hosts that are not in it.
    """
    hosts = outcomes["url"].astype("str").str.extract(HOST_PATTERN, expand=False).rename("host")
    fetched = outcomes["seconds_fetch"] > 0
    groups = outcomes.loc[fetched, "seconds_fetch"].groupby(hosts[fetched])
    latency = pd.DataFrame(
        {"images": groups.size(), "p50_s": groups.quantile(0.5), "p95_s": groups.quantile(0.95)}
    ).rename_axis("host")
    largest = latency.nlargest(MOST_HOSTS, "images").sort_values("p95_s", ascending=False).reset_index()
    largest.attrs["left_out"] = len(latency) - len(largest)
    return largest


def _sum_by_bar(amounts: pd.Series[float], bar_of_image: pd.Series[int], bars: int) -> pd.Series[float]:
    return amounts.groupby(bar_of_image).sum().reindex(range(bars), fill_value=0.0)


def _count_by_bar(bar_of_image: pd.Series[int], bars: int) -> pd.Series[int]:
    return bar_of_image.value_counts().reindex(range(bars), fill_value=0)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole and part else ""
