"""The promises of the embedded server, kept while its users and its keeper are killed."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from pipeline.domain import Job
from pipeline.errors import StateError
from pipeline.state import connect
from pipeline.state.embedded import is_answering, socket_path

JOB = Job("1-photos", "photos/", "out/")
USER = """
import sys
from pathlib import Path
from redis import Redis
from pipeline.domain import Job
from pipeline.state import connect
from pipeline.state.embedded import socket_path
folder = Path(sys.argv[1])
with connect(None, folder) as store:
    store.create(Job("1-photos", "photos/", "out/"))
    with Redis(unix_socket_path=str(socket_path(folder))) as redis:
        print(redis.info("server")["process_id"], flush=True)
    sys.stdin.read()
"""

StartUser = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Give the test a data folder of its own, whose server must be gone after it."""
    folder = (tmp_path / "data of mine").resolve()
    yield folder
    if folder.is_dir():
        wait_for_keepers_end(folder)


@pytest.fixture
def start_user(folder: Path) -> Iterator[StartUser]:
    """Start another process that uses the server and creates JOB; it prints the server's process id."""
    users = []

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", USER, str(folder)]
        env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        user = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        users.append(user)
        return user

    yield start
    for user in users:
        user.kill()
        user.communicate()


def server_of(user: subprocess.Popen[str]) -> psutil.Process:
    assert user.stdout
    return psutil.Process(int(user.stdout.readline()))


def server_in(folder: Path) -> psutil.Process:
    with Redis(unix_socket_path=str(socket_path(folder))) as redis:
        return psutil.Process(redis.info("server")["process_id"])


def wait_for_keepers_end(folder: Path) -> None:
    """Wait for the lock, which the kernel gives when the keeper's process has ended."""
    with (folder / "keeper.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def kill(process: psutil.Process) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(10)


def test_the_first_users_death_leaves_the_others_going(folder: Path, start_user: StartUser) -> None:
    starter = start_user()
    server = server_of(starter)
    with connect(None, folder) as store:
        starter.kill()
        starter.wait()
        assert store.load_job(JOB.id) == JOB
        assert server_in(folder) == server


def test_the_last_users_death_ends_the_server(folder: Path, start_user: StartUser) -> None:
    first, second = start_user(), start_user()
    server = server_of(first)
    assert server_of(second) == server
    first.kill()
    first.wait()
    assert is_answering(folder)
    second.kill()
    wait_for_keepers_end(folder)
    assert not server.is_running()


def test_the_state_is_there_afterwards(folder: Path) -> None:
    with connect(None, folder) as store:
        created = store.create(JOB)
    wait_for_keepers_end(folder)
    with connect(None, folder) as store:
        assert store.progress(JOB.id) == created


def test_ten_users_at_once_share_one_server(folder: Path, start_user: StartUser) -> None:
    users = [start_user() for _ in range(10)]
    assert len({server_of(user).pid for user in users}) == 1


def test_whoever_comes_while_the_server_ends_gets_one(folder: Path) -> None:
    for _ in range(10):
        with connect(None, folder) as store:
            store.create(JOB)


def test_a_killed_keepers_server_is_adopted_and_still_ends(folder: Path) -> None:
    with connect(None, folder) as store:
        server = server_in(folder)
        keeper = server.parent()
        assert keeper
        kill(keeper)
        store.create(JOB)
        with connect(None, folder) as other:
            assert other.load_job(JOB.id) == JOB
            assert server_in(folder) == server
    wait_for_keepers_end(folder)
    server.wait(10)


def test_a_killed_server_is_started_again(folder: Path) -> None:
    with connect(None, folder) as store:
        server = server_in(folder)
        kill(server)
        store.create(JOB)
        assert server_in(folder) != server


KEEPER = """
import fcntl, sys
from pathlib import Path
from pipeline.state import keeper
keeper._SHORT_LIFE_S = float(sys.argv[2])
keeper.keep_server(Path(sys.argv[1]))
"""


@pytest.mark.parametrize(("short_life_s", "is_kept"), [("0", True), ("60", False)])
def test_a_server_is_started_again_for_ever_unless_it_ends_at_once(
    folder: Path, short_life_s: str, is_kept: bool
) -> None:
    """It may be killed once a month, for years."""
    folder.mkdir()
    with (folder / "users.lock").open("ab") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        keeper = subprocess.Popen([sys.executable, "-c", KEEPER, str(folder), short_life_s], env=environment)
        killed = 0
        while killed < 8 and keeper.poll() is None:
            if is_answering(folder):
                kill(server_in(folder))
                killed += 1
        assert killed == (8 if is_kept else 5)
    keeper.wait(10)


def test_a_crash_of_everything_leaves_nothing_in_the_way(folder: Path) -> None:
    with connect(None, folder):
        server = server_in(folder)
        keeper = server.parent()
        assert keeper
        kill(keeper)
        kill(server)
    assert socket_path(folder).exists()
    with connect(None, folder) as store:
        store.create(JOB)


def test_the_server_listens_on_nothing_but_its_own_users_socket(folder: Path) -> None:
    with connect(None, folder):
        assert server_in(folder).net_connections("inet") == []
        assert stat.S_IMODE(socket_path(folder).stat().st_mode) == 0o700
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_keeper_has_no_terminal_and_holds_no_files_of_its_starter(folder: Path) -> None:
    with (folder.parent / "open").open("wb") as held, connect(None, folder):
        os.set_inheritable(held.fileno(), True)
        keeper = server_in(folder).parent()
        assert keeper
        assert os.getsid(keeper.pid) != os.getsid(0)
        for process in (keeper, server_in(folder)):
            paths = {Path(file.path) for file in process.open_files()}
            assert all(path.is_relative_to(folder) for path in paths)


def test_a_child_process_does_not_keep_the_server(folder: Path) -> None:
    with connect(None, folder):
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False)
    wait_for_keepers_end(folder)
    assert child.poll() is None
    child.communicate()


def test_a_folder_with_a_long_name_has_its_socket_elsewhere(tmp_path: Path) -> None:
    folder = (tmp_path / ("long" * 30)).resolve()
    with connect(None, folder) as store:
        store.create(JOB)
        assert socket_path(folder).parent != folder
        assert stat.S_IMODE(socket_path(folder).parent.stat().st_mode) == 0o700
    wait_for_keepers_end(folder)
    assert not socket_path(folder).exists()


@given(st.lists(st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=60), max_size=5))
def test_a_sockets_path_is_never_too_long(names: list[str]) -> None:
    path = socket_path(Path("/", *names))
    assert path.is_absolute()
    assert len(os.fsencode(path)) <= 100


def test_a_server_that_cannot_start_says_where_to_look(folder: Path) -> None:
    folder.mkdir()
    (folder / "appendonlydir").write_bytes(b"not a folder")
    with pytest.raises(StateError, match=r"ended at once: see '.*valkey\.log', or set REDIS_URL"):
        connect(None, folder)
    assert (folder / "valkey.log").read_text()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StateError, match=r"cannot use '.*file/data' for the embedded Valkey: Not a directory"):
        connect(None, tmp_path / "file" / "data")


def test_a_platform_without_valkey_is_told_of_redis_url(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.state.embedded.find_spec", lambda _: None)
    with pytest.raises(StateError, match="set REDIS_URL"):
        connect(None, folder)
