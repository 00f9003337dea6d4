"""The chart of images per second over time, a line a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from bokeh.models import ColumnDataSource, CustomJSTickFormatter, HoverTool, Range1d
from bokeh.plotting import figure

from pipeline.interfaces.dashboard.board import Run
from pipeline.interfaces.dashboard.cards import colour_of

SHORTEST_SPAN_S: Final = 60.0
HEADROOM: Final = 1.15
FONT: Final = "Helvetica, Arial, sans-serif"

# Seconds before now, in the largest unit that fits.
AGO: Final = """
if (tick >= 0) return "now";
const [unit, seconds] = tick > -120 ? ["s", 1] : tick > -7200 ? ["min", 60] : ["h", 3600];
return `−${Number((-tick / seconds).toFixed(1))} ${unit}`;
"""


def lines_of(runs: Sequence[Run], now_s: float) -> dict[str, list[Any]]:
    """Return the columns that the chart draws: one row a run.

    Returns
    -------
    dict
        ``xs`` seconds before now, negative; ``ys`` images/s; ``area_xs``, ``area_ys`` what is below; ``job``;
        ``colour``, ``alpha``, ``shade``.
    """
    columns: dict[str, list[Any]] = {
        name: [] for name in ("xs", "ys", "area_xs", "area_ys", "job", "colour", "alpha", "shade")
    }
    for run in runs:
        points = run.speed.points
        if len(points) < 2:
            continue
        xs = [time_s - now_s for time_s, _ in points]
        ys = [speed for _, speed in points]
        columns["xs"].append(xs)
        columns["ys"].append(ys)
        columns["area_xs"].append([xs[0], *xs, xs[-1]])
        columns["area_ys"].append([0.0, *ys, 0.0])
        columns["job"].append(run.progress.job_id)
        columns["colour"].append(colour_of(run))
        columns["alpha"].append(0.4 if run.has_ended else 1.0)
        columns["shade"].append(0.05 if run.has_ended else 0.14)
    return columns


def span_of(runs: Sequence[Run], now_s: float) -> float:
    """Return how many seconds back the chart looks: to the start of what still runs, or else of what has run."""
    shown = [run for run in runs if not run.has_ended] or runs
    starts = [run.speed.points[0][0] for run in shown if run.speed.points]
    return max([SHORTEST_SPAN_S, *(now_s - start for start in starts)])


class SpeedChart:
    """The figure, and what brings it up to date."""

    def __init__(self) -> None:
        self._source = ColumnDataSource(lines_of([], 0.0))
        self.figure = chart = figure(
            name="speed",
            title="Images per second",
            height=250,
            sizing_mode="stretch_width",
            toolbar_location=None,
            tools="",
            x_range=Range1d(-SHORTEST_SPAN_S, 0.0),
            y_range=Range1d(0.0, 1.0),
        )
        chart.patches("area_xs", "area_ys", source=self._source, color="colour", alpha="shade", line_color=None)
        lines = chart.multi_line(
            "xs", "ys", source=self._source, color="colour", alpha="alpha", line_width=2, line_join="round"
        )
        tooltips = [("job", "@job"), ("images/s", "$data_y{0.[0]}")]
        chart.add_tools(HoverTool(renderers=[lines], tooltips=tooltips, line_policy="nearest"))
        chart.xaxis.formatter = CustomJSTickFormatter(code=AGO)
        chart.xgrid.visible = False
        chart.ygrid.grid_line_color = "#e3e6eb"
        chart.axis.axis_line_color = chart.axis.minor_tick_line_color = None
        chart.axis.major_tick_line_color = chart.outline_line_color = None
        chart.axis.major_label_text_color = "#5a6370"
        chart.axis.major_label_text_font = chart.title.text_font = FONT
        chart.title.text_font_size = "14px"
        chart.title.text_color = "#1b2029"
        chart.yaxis.ticker.desired_num_ticks = 4
        chart.xaxis.ticker.desired_num_ticks = 5

    def update(self, runs: Sequence[Run], now_s: float) -> None:
        """Draw the runs as they are now."""
        columns = lines_of(runs, now_s)
        self._source.data = columns
        self.figure.x_range.start = -span_of(runs, now_s)
        self.figure.y_range.end = HEADROOM * max((max(ys) for ys in columns["ys"]), default=0.0) or 1.0
