"""The document on schedules: its lines and units, taken out of it and run."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import pytest
from distributed import Client

from pipeline.domain import Recipe
from pipeline.interfaces.cli import exits
from tests.fixtures.photographs import make_photograph
from tests.interfaces.commands import Ended, Running, ledger_rows, stored_bytes

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "schedules.md").read_text("utf-8")
UNITS = {name: text for text in re.findall(r"```ini\n(.*?)```", DOCUMENT, re.DOTALL) for name in [text.split()[1]]}

# All that cron gives to a command, and systemd to a service with User=.
CRON = {"SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
SYSTEMD = {"SHELL": "/bin/sh", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="no systemd-analyze here: apt-get install systemd"
)


def block(language: str, containing: str = "") -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    (found,) = [text for text in blocks if containing in text]
    return str(found)


def unit(name: str) -> configparser.SectionProxy:
    """Return what the unit's part of its kind says."""
    parser = configparser.ConfigParser(interpolation=None, delimiters="=")
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(UNITS[name])
    return parser["Service" if name.endswith(".service") else "Timer"]


@dataclass(frozen=True)
class Site:
    """What the document has in ``/srv/images``, in another folder.

    Attributes
    ----------
    folder : Path
    environment : mapping of str to str
        Added to what the scheduler gives: where the tests' state is.
    """

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def make(self, count: int) -> None:
        """Lay the folders out as the document says; yesterday's holds so many images."""
        for name in re.findall(r"mkdir -p ([a-z ]+)", DOCUMENT)[0].split():
            (self.folder / name).mkdir(parents=True)
        commands = self.folder / ".venv" / "bin"
        commands.mkdir(parents=True)
        for name in ("pipeline", "papermill", "dask"):
            command = f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {sys.executable} -m {name} "$@"\n'
            (commands / name).write_text(command)
            (commands / name).chmod(0o755)
        (self.folder / "nightly.toml").write_text(block("toml"))
        shutil.copy(ROOT / "notebooks" / "5-scheduled-batch.ipynb", self.folder)
        incoming = self.folder / "incoming" / self.day
        incoming.mkdir(parents=True)
        bodies = [make_photograph(seed, 96, 72) for seed in range(5)]
        for number in range(count):
            (incoming / f"{number:04}.jpg").write_bytes(bodies[number % 5])
        # Should midnight pass, the day is another one, with the same images.
        (incoming.parent / f"{date.today():%F}").symlink_to(incoming, target_is_directory=True)

    @property
    def day(self) -> str:
        """The day that the lines mean."""
        return f"{date.today() - timedelta(days=1):%F}"

    @property
    def out(self) -> Path:
        """The folder of the day's results, once there is one."""
        return next(iter(sorted((self.folder / "results").glob("*"))), self.folder / "results" / self.day)

    @property
    def job(self) -> str:
        """The day's job."""
        return f"nightly-{self.out.name}"

    @property
    def report(self) -> str:
        """The day's report; an error if there is none."""
        return (self.folder / "reports" / f"{self.out.name}.html").read_text("utf-8")

    def images(self) -> int:
        """Count the results."""
        return sum(1 for _ in self.out.glob("*.webp"))

    @contextmanager
    def start(self, command: list[str], given: Mapping[str, str]) -> Iterator[Running]:
        """Start a command with nothing in its environment but what it is given."""
        home = {"HOME": str(self.folder / "home"), "LOGNAME": "images"}
        running = Running(command, {**home, **given, **self.environment}, self.folder)
        try:
            yield running
        finally:
            if running.is_running():
                for process in running.family():
                    process.kill()
                running.end()

    def run(self, line: str, given: Mapping[str, str]) -> Ended:
        """Run a line of a shell to its end."""
        assert "/srv/images" in DOCUMENT
        with self.start(["/bin/sh", "-c", line.replace("/srv/images", str(self.folder))], given) as running:
            return running.end()

    @contextmanager
    def start_unit(self) -> Iterator[Running]:
        """Start what the service starts, as systemd reads it."""
        service = unit("nightly.service")
        name, _, value = service["Environment"].partition("=")
        assert name == "PIPELINE_DATA_DIR"
        assert service["WorkingDirectory"] == "/srv/images"
        # A bare one would be a specifier, or a variable of systemd's.
        assert not re.search("[%$]", service["ExecStart"].replace("$$", "").replace("%%", ""))
        command = shlex.split(service["ExecStart"].replace("$$", "$").replace("%%", "%"))
        state = f"{self.folder}{value}"
        with self.start(command, {**SYSTEMD, name: state}) as running:
            yield running

    def run_unit(self) -> Ended:
        """Run what the service starts to its end."""
        with self.start_unit() as running:
            return running.end()


@pytest.fixture
def site(tmp_path: Path, valkey_url: str) -> Site:
    return Site(tmp_path, {"REDIS_URL": valkey_url})


def parse_crontab(text: str) -> tuple[dict[str, str], str, str]:
    """Return a crontab's environment, and its line's times and command, as cron reads them: crontab(5)."""
    *settings, line = text.splitlines()
    *times, command = line.split(None, 5)
    # The first bare percent sign would end the command; what follows is its input.
    assert not re.search(r"(?<!\\)%", command)
    return dict(setting.split("=") for setting in settings), " ".join(times), command.replace(r"\%", "%")


def test_the_recipe_is_one() -> None:
    recipe = Recipe.from_mapping(tomllib.loads(block("toml")))
    assert (recipe.max_width, recipe.format) == (1600, "webp")


def test_the_exit_codes_are_all_that_there_are() -> None:
    told = re.findall(r"^\| (\d+) \|", DOCUMENT, re.MULTILINE)
    there = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    assert [int(code) for code in told] == sorted(there)


def test_the_service_goes_on_only_with_what_starting_again_helps() -> None:
    service = unit("nightly.service")
    assert service["Restart"] == "on-failure"
    prevented = {int(code) for code in service["RestartPreventExitStatus"].split()}
    assert prevented == {exits.SOME_FAILED, exits.USAGE, exits.INTERRUPTED}
    assert "SuccessExitStatus" not in service


def test_cron_and_the_timer_mean_the_same_hour() -> None:
    _, times, _ = parse_crontab(block("crontab"))
    assert times == "0 2 * * *"
    assert unit("nightly.timer")["OnCalendar"] == "*-*-* 02:00"


@needs_systemd
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for name, text in UNITS.items():
        (tmp_path / name).write_text(text)
    names = ["nightly-failed.service", "nightly.service", "nightly.timer"]
    assert sorted(UNITS) == names
    verified = subprocess.run(
        ["systemd-analyze", "verify", *(str(tmp_path / name) for name in names)], capture_output=True, text=True
    )
    # It warns of other units of the machine too.
    assert [line for line in verified.stderr.splitlines() if "nightly" in line] == []
    assert verified.returncode == 0
    calendar = subprocess.run(
        ["systemd-analyze", "calendar", unit("nightly.timer")["OnCalendar"]], capture_output=True, text=True, check=True
    )
    assert "Normalized form: *-*-* 02:00:00" in calendar.stdout


@pytest.mark.slow
def test_cron_s_line_runs_the_day_before_and_prints_only_what_went_wrong(site: Site) -> None:
    """By the shell and in the environment that cron gives it; a second time, nothing is done again."""
    site.make(6)
    settings, _, command = parse_crontab(block("crontab"))
    first = site.run(command, {**CRON, **settings})
    assert first == Ended(0, "", "")
    assert site.images() == 6
    log = site.folder / "logs" / "nightly.log"
    assert "6 stored" in log.read_text()
    assert site.report.rstrip().endswith("</html>")
    written = {path: path.stat().st_mtime_ns for path in site.out.glob("*.webp")}

    again = site.run(command, {**CRON, **settings})

    assert again == first
    assert {path: path.stat().st_mtime_ns for path in site.out.glob("*.webp")} == written
    assert log.read_text().count("6 stored") == 2

    recipe = site.folder / "nightly.toml"
    recipe.write_text(recipe.read_text().replace("1600", "1200"))
    assert_told(site.run(command, {**CRON, **settings}), 3)
    assert "exists with another recipe" in log.read_text().splitlines()[-1]

    shutil.rmtree(site.folder / "incoming")
    assert_told(site.run(command, {**CRON, **settings}), 2)
    assert "no such file or folder" in log.read_text().splitlines()[-1]


def assert_told(ended: Ended, code: int) -> None:
    """What cron mails is one line that has the exit code."""
    assert (ended.code, ended.err) == (0, "")
    assert re.fullmatch(rf"nightly-[\d-]+: exit code {code}, see logs/nightly\.log and .*\.html\n", ended.out)


@pytest.mark.slow
def test_the_service_survives_sigterm_and_sigkill_and_being_started_twice(site: Site) -> None:
    """One day, in the embedded server that its environment names: every image once, and a whole report."""
    site = Site(site.folder)
    site.make(600)
    (site.folder / "incoming" / site.day / "broken.jpg").write_bytes(b"no image")

    with site.start_unit() as running:
        running.wait_until(site.images, "an image")
        running.send(signal.SIGTERM)
        stopped = running.end()
    assert (stopped.code, stopped.err) == (exits.INTERRUPTED, "")
    assert "cancelled" in site.report
    before = site.images()
    assert len(ledger_rows(site.out, site.job)) >= before > 0

    with site.start_unit() as running:
        running.wait_until(lambda: site.images() > before, "an image more")
        running.send(signal.SIGKILL)
        assert running.end().code == -signal.SIGKILL
    assert site.images() < 600

    with site.start_unit() as one, site.start_unit() as other:
        ends = [one.end(), other.end()]
    assert [(ended.code, ended.err) for ended in ends] == [(exits.SOME_FAILED, "")] * 2
    word = f"{site.job} is being run by another process already: following it\n"
    assert sorted(ended.out.count(word) for ended in ends) == [0, 1]
    rows = ledger_rows(site.out, site.job)
    assert len({row["key"] for row in rows}) == len(rows) == 601
    assert len(stored_bytes(site.out)) == 600
    assert site.report.rstrip().endswith("</html>")
    assert "completed" in site.report


@pytest.mark.slow
def test_the_papermill_line_keeps_the_record_of_the_night(site: Site) -> None:
    site.make(6)
    done = site.run(block("sh", "papermill"), CRON)
    assert done.code == 0, done.err
    assert site.images() == 6
    record = (site.folder / "runs" / f"{site.out.name}.ipynb").read_text("utf-8")
    assert f"{site.job}: 6 stored, 0 failed" in record
    assert site.report.rstrip().endswith("</html>")


@pytest.mark.slow
def test_the_dask_line_runs_on_the_cluster_of_its_scheduler_file(site: Site, client: Client) -> None:
    site.make(6)
    client.write_scheduler_file(str(site.folder / "scheduler.json"))
    done = site.run(block("sh", "dask pipeline"), CRON)
    assert (done.code, done.err) == (0, "")
    assert site.images() == 6
    assert site.report.rstrip().endswith("</html>")


@pytest.mark.slow
def test_the_line_of_a_growing_collection_does_only_what_is_new(site: Site) -> None:
    site.make(4)
    # `incoming` holds the days here: a link to one is not followed.
    line = block("sh", "nightly-all")
    first = site.run(line, CRON)
    (site.folder / "incoming" / site.day / "new.jpg").write_bytes(make_photograph(9, 96, 72))
    second = site.run(line.replace("nightly-all-", "nightly-all-next-"), CRON)
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert "1 stored" in second.out
    assert "4 skipped" in second.out
