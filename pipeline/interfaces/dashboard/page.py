"""The page as a Bokeh document on the scheduler: it looks at the board twice a second while somebody looks at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import time
from typing import Any, Final

from bokeh.document import Document
from bokeh.models import ColumnDataSource, CustomJS
from distributed import Scheduler
from distributed.dashboard.components import add_periodic_callback
from distributed.dashboard.components.scheduler import BOKEH_THEME
from distributed.dashboard.components.scheduler import env as dask_templates
from distributed.diagnostics.plugin import SchedulerPlugin
from jinja2 import ChoiceLoader, Environment, PackageLoader

from pipeline.display.wording import format_seconds
from pipeline.interfaces.dashboard.board import Board
from pipeline.interfaces.dashboard.cards import Card, make_card
from pipeline.interfaces.dashboard.queue import COLUMNS, count_tasks
from pipeline.interfaces.dashboard.speed import SpeedChart
from pipeline.runner.announcer import TOPIC, from_event

REFRESH_INTERVAL_MS: Final = 500

SHOW_CARDS: Final = "showCards(cards.data.html[0])"

CARDS: Final = "pipeline-cards.html"

# Our pages extend Dask's, which has its menu.
TEMPLATES: Final = Environment(
    loader=ChoiceLoader([PackageLoader(__package__), dask_templates.loader]),
    # Dask's pages hold markup that Bokeh has made; what is ours to fill in is in the cards.
    autoescape=lambda name: name == CARDS,
    trim_blocks=True,
    lstrip_blocks=True,
)


class BoardPlugin(SchedulerPlugin):  # type: ignore[misc]  # Dask ships no types
    """Hears what drivers announce to its scheduler."""

    name = "pipeline-board"

    def __init__(self) -> None:
        self.board = Board()

    def log_event(self, topic: str, msg: Any) -> None:
        """Take an event in, if a driver has sent it."""
        if topic == TOPIC and (announced := from_event(msg)):
            self.board.hear(*announced, time())


def board_of(scheduler: Scheduler) -> Board:
    """Return the scheduler's board; on first use, a board of what the scheduler still knows of earlier events."""
    if BoardPlugin.name not in scheduler.plugins:
        plugin = BoardPlugin()
        for time_s, msg in scheduler.get_events(TOPIC):
            if announced := from_event(msg):
                plugin.board.hear(*announced, time_s)
        scheduler.add_plugin(plugin)
    board: Board = scheduler.plugins[BoardPlugin.name].board
    return board


@dataclass(frozen=True, slots=True)
class Cluster:
    """The scheduler's own numbers."""

    workers: int
    threads: int
    processing: int
    queued: int
    occupancy: str


def render_cards(cluster: Cluster, cards: list[Card]) -> str:
    """Return the page's content as HTML, every text escaped."""
    return TEMPLATES.get_template(CARDS).render(cluster=cluster, cards=cards, columns=list(COLUMNS))


class Overview:
    """The models of one visitor's document: the chart, and the cards as text.

    The page's script moves what has changed of that text into the page. An element of Bokeh's would be replaced as a
    whole twice a second: nobody could select a word of it, and no bar would glide.
    """

    def __init__(self, scheduler: Scheduler, board: Board) -> None:
        self._scheduler = scheduler
        self._board = board
        self.chart = SpeedChart()
        self.cards = ColumnDataSource({"html": [""]}, name="cards")
        self.cards.js_on_change("data", CustomJS(code=SHOW_CARDS, args={"cards": self.cards}))
        # A model that is not drawn belongs to a document through one that is.
        self.chart.figure.tags = [self.cards]

    def update(self) -> None:
        """Look at the board and at the scheduler's tasks."""
        now_s = time()
        runs = self._board.runs(self._scheduler.clients, now_s)
        states_by_group = {name: group.states for name, group in self._scheduler.task_groups.items()}
        cards = [make_card(run, count_tasks(states_by_group, run.progress)) for run in runs]
        self.chart.update(runs, now_s)
        data = {"html": [render_cards(_cluster_of(self._scheduler), cards)]}
        if self.cards.data != data:
            self.cards.data = data


def page(scheduler: Scheduler, extra: Mapping[str, Any], doc: Document, template: str = "pipeline-page.html") -> None:
    """Fill a document for one visitor, as Dask calls for it."""
    overview = Overview(scheduler, board_of(scheduler))
    overview.update()
    add_periodic_callback(doc, overview, REFRESH_INTERVAL_MS)
    doc.add_root(overview.chart.figure)
    doc.js_on_event("document_ready", CustomJS(code=SHOW_CARDS, args={"cards": overview.cards}))
    doc.title = "Dask: Pipeline"
    doc.theme = BOKEH_THEME
    doc.template = TEMPLATES.get_template(template)
    doc.template_variables.update(extra)


def panel(scheduler: Scheduler, extra: Mapping[str, Any], doc: Document) -> None:
    """Fill a document without the menu, as JupyterLab's Dask extension shows it."""
    page(scheduler, extra, doc, "pipeline-panel.html")


def _cluster_of(scheduler: Scheduler) -> Cluster:
    workers = scheduler.workers.values()
    return Cluster(
        workers=len(workers),
        threads=sum(worker.nthreads for worker in workers),
        processing=sum(len(worker.processing) for worker in workers),
        queued=len(scheduler.queued) + len(scheduler.unrunnable),
        occupancy=format_seconds(scheduler.total_occupancy),
    )
