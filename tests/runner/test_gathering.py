"""Results of tasks whose worker has died or hangs between their end and the question for them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client

from pipeline.errors import ClusterError
from pipeline.runner import cluster
from pipeline.runner.cluster import gather_results
from tests.fixtures.cluster import DaskCommands
from tests.interfaces.commands import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def make_once(mark: str) -> int:
    """Return the process that it is made in; a second time, never."""
    import threading

    if Path(mark).exists():
        threading.Event().wait()
    Path(mark).touch()
    return os.getpid()


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "SILENCE_PATIENCE_S", 8.0)


@pytest.fixture
def own_client(dask_commands: DaskCommands) -> Iterator[Client]:
    """Run a scheduler and two workers, A and B."""
    for name in "AB":
        dask_commands.add_worker("--name", name)
    with dask_commands.connect(2) as client:
        yield client


@pytest.mark.usefixtures("short_patience")
@pytest.mark.parametrize("harm", [signal.SIGKILL, signal.SIGSTOP])
def test_what_a_lost_worker_had_is_not_waited_for(
    dask_commands: DaskCommands, own_client: Client, tmp_path: Path, harm: signal.Signals
) -> None:
    """Dask makes it again, which may take for ever; the scheduler answers, and the run goes on with what there is."""
    lost = own_client.submit(make_once, str(tmp_path / "lost"), workers=["A"], allow_other_workers=True, pure=False)
    kept = own_client.submit(make_once, str(tmp_path / "kept"), workers=["B"], pure=False)
    wait_until(lambda: {lost.status, kept.status} == {"finished"}, "both results", 60)
    _, holder, other = dask_commands.processes
    holder.send_signal(harm)
    found = gather_results(own_client, {"lost": lost, "kept": kept})
    assert found == ({"kept": other.pid} if harm == signal.SIGKILL else {})
    assert gather_results(own_client, {"kept": kept}) == {"kept": other.pid}


@pytest.mark.usefixtures("short_patience")
def test_a_scheduler_that_hangs_is_told_from_a_worker_that_does(
    dask_commands: DaskCommands, own_client: Client, tmp_path: Path
) -> None:
    """Only the first is an error of the run."""
    made = own_client.submit(make_once, str(tmp_path / "made"), pure=False)
    wait_until(lambda: made.status == "finished", "the result", 60)
    dask_commands.processes[0].send_signal(signal.SIGSTOP)
    with pytest.raises(ClusterError, match="has not answered for 8 seconds"):
        gather_results(own_client, {"made": made})
    dask_commands.processes[0].send_signal(signal.SIGCONT)
    assert gather_results(own_client, {"made": made}).keys() == {"made"}
