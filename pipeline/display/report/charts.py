"""The report's charts in Bokeh. Their text and lines take their colours from the page's style sheet, light or dark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from bokeh.embed import components
from bokeh.models import ColumnDataSource, HoverTool
from bokeh.plotting import figure
from bokeh.resources import INLINE

from pipeline.display.style import COLOUR_BY_STAGE, COLOUR_FAILED, COLOUR_STORED

if TYPE_CHECKING:
    import pandas as pd

LONGEST_LABEL: Final = 22
FONT: Final = "system-ui, sans-serif"


def render_figures(figures: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Return the scripts, Bokeh's own library included, and by name the element of each figure."""
    if not figures:
        return "", {}
    script, element_by_name = components(dict(figures))
    # Figures need the core alone: no widgets, tables or formulas.
    library = INLINE.clone(components=["bokeh"]).render()
    return f"{library}\n{script}", element_by_name


def draw_speed(speed: pd.DataFrame) -> Any | None:
    """Draw images a second over time, as `facts.speed_over_time` counts them; None if one number says it all."""
    if len(speed) < 2:
        return None
    span_s = float(speed["end_s"].max())
    unit, unit_s = time_unit(span_s)
    bars = ColumnDataSource(
        {
            "left": speed["start_s"] / unit_s,
            "right": speed["end_s"] / unit_s,
            # A hair's breadth between neighbours.
            "edge": (speed["end_s"] - 0.05 * span_s / len(speed)) / unit_s,
            "stored": speed["stored"],
            "failed": speed["failed"],
            "top": speed["stored"] + speed["failed"],
        }
    )
    chart = _figure(height=240, x_axis_label=f"{unit} since the start", y_axis_label="images/s")
    gap = {"line_color": None, "source": bars, "left": "left", "right": "edge"}
    done = chart.quad(bottom=0, top="stored", color=COLOUR_STORED, **gap)
    lost = chart.quad(bottom="stored", top="top", color=COLOUR_FAILED, **gap)
    tooltips = [
        (unit, "@left{0.[0]} to @right{0.[0]}"),
        ("stored", "@stored{0.[0]} images/s"),
        ("failed", "@failed{0.[0]} images/s"),
    ]
    chart.add_tools(HoverTool(renderers=[done, lost], tooltips=tooltips, mode="vline"))
    chart.y_range.start = 0
    chart.x_range.start, chart.x_range.end = 0, span_s / unit_s
    chart.xgrid.visible = False
    return chart


def draw_rates(speed: pd.DataFrame, colour_by_rate: Mapping[str, str], label: str) -> Any | None:
    """Draw what is worked off a second over time, a step line for each column of `facts.speed_over_time`."""
    if len(speed) < 2:
        return None
    span_s = float(speed["end_s"].max())
    unit, unit_s = time_unit(span_s)
    chart = _figure(height=190, x_axis_label=f"{unit} since the start", y_axis_label=label)
    # Each bar's value from its start to its end.
    times = [time / unit_s for bar in zip(speed["start_s"], speed["end_s"], strict=True) for time in bar]
    for rate, colour in colour_by_rate.items():
        values = [value for value in speed[rate] for _ in range(2)]
        steps = ColumnDataSource({"time": times, "value": values})
        chart.varea(x="time", y1=0, y2="value", source=steps, color=colour, alpha=0.15)
        line = chart.line("time", "value", source=steps, color=colour, line_width=2)
        chart.add_tools(HoverTool(renderers=[line], tooltips=[(label, "@value{0.[00]}")], mode="vline"))
    chart.y_range.start = 0
    chart.x_range.start, chart.x_range.end = 0, span_s / unit_s
    chart.xgrid.visible = False
    return chart


def draw_hosts(latency: pd.DataFrame) -> Any | None:
    """Draw how long fetching took by host, as `facts.latency_by_host` measures it; None if there are no hosts."""
    if latency.empty:
        return None
    unit, unit_s = ("ms", 0.001) if latency["p95_s"].max() < 1 else ("seconds", 1.0)
    # Numbered: two long names may be alike when they are cut.
    rows = list(range(len(latency)))[::-1]
    bars = ColumnDataSource(
        {
            "row": rows,
            "host": latency["host"],
            "images": latency["images"],
            "p50": latency["p50_s"] / unit_s,
            "p95": latency["p95_s"] / unit_s,
        }
    )
    chart = _figure(height=64 + 34 * len(rows), x_axis_label=unit, y_range=(-0.6, len(rows) - 0.4))
    shape = {"y": "row", "left": 0, "line_color": None, "source": bars, "color": COLOUR_BY_STAGE["fetch"]}
    outer = chart.hbar(right="p95", height=0.56, alpha=0.35, **shape)
    chart.hbar(right="p50", height=0.56, **shape)
    tooltips = [
        ("host", "@host"),
        ("images", "@images{0,0}"),
        ("p50", f"@p50{{0.[0]}} {unit}"),
        ("p95", f"@p95{{0.[0]}} {unit}"),
    ]
    chart.add_tools(HoverTool(renderers=[outer], tooltips=tooltips, mode="hline"))
    chart.x_range.start = 0
    # A phone has no room for more.
    chart.xaxis.ticker.desired_num_ticks = 5
    chart.yaxis.ticker = rows
    chart.yaxis.major_label_overrides = {row: shorten(host) for row, host in zip(rows, latency["host"], strict=True)}
    # Not by its colour: the page's style sheet would give it one.
    chart.ygrid.visible = False
    return chart


def time_unit(span_s: float) -> tuple[str, float]:
    """Return the unit in which a span is best read, and its length in seconds."""
    if span_s <= 180:
        return "seconds", 1.0
    return ("minutes", 60.0) if span_s <= 3 * 3600 else ("hours", 3600.0)


def shorten(host: str) -> str:
    """Return a host's name short enough for a phone, its end kept: that is what tells servers of one kind apart."""
    return host if len(host) <= LONGEST_LABEL else f"…{host[1 - LONGEST_LABEL :]}"


def _figure(**options: Any) -> Any:
    chart = figure(
        sizing_mode="stretch_width",
        tools="",
        toolbar_location=None,
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        min_border_right=12,
        **options,
    )
    for axis in chart.axis:
        axis.axis_label_text_font = axis.major_label_text_font = FONT
        axis.axis_label_text_font_style = "normal"
        axis.minor_tick_line_color = None
        axis.major_tick_line_color = None
    return chart
