"""Files that are whole or absent, and the errors of the file systems that they are on."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import fsspec
import pytest
from botocore.exceptions import NoCredentialsError  # type: ignore[import-untyped]

from pipeline.errors import LedgerError, PipelineError, StoreError
from pipeline.storage import open_folder, storage_errors, write_whole


@pytest.mark.parametrize("scheme", ["", "file://", "local://"])
def test_a_folder_is_the_same_however_it_is_written(tmp_path: Path, scheme: str) -> None:
    """As everywhere in fsspec, nothing is unquoted."""
    fs, path = open_folder(f"{scheme}{tmp_path}/a%20b")
    write_whole(fs, f"{path}/c/file", b"abc")
    assert (tmp_path / "a%20b" / "c" / "file").read_bytes() == b"abc"


def test_folders_are_made_on_demand_on_other_file_systems_too(tmp_path: Path) -> None:
    fs = fsspec.filesystem("dir", path=str(tmp_path), fs=fsspec.filesystem("file"))
    write_whole(fs, "a/b/file", b"abc")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"abc"


def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    fs, path = open_folder(str(tmp_path / "a"))
    for _ in range(2):
        write_whole(fs, f"{path}/file", b"abc")
        (tmp_path / "a" / "file").unlink()
        (tmp_path / "a").rmdir()


def test_a_bucket_is_never_made() -> None:
    class Buckets(fsspec.AbstractFileSystem):  # type: ignore[misc]
        protocol = ("s3", "s3a")

        def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: object) -> None:
            raise FileNotFoundError("The specified bucket does not exist")

        def makedirs(self, path: str, exist_ok: bool = False) -> None:
            raise AssertionError("a misspelt bucket would be made")

    with pytest.raises(FileNotFoundError):
        write_whole(Buckets(), "misspelt/file", b"abc")


def test_a_file_is_for_whom_the_umask_says(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    fs, path = open_folder(str(tmp_path))
    write_whole(fs, f"{path}/file", b"abc")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_readers_see_all_of_a_file_or_none_and_the_rest_is_hidden(tmp_path: Path) -> None:
    fs, path = open_folder(str(tmp_path))
    contents = [bytes([number]) * 300_000 for number in range(20)]
    write_whole(fs, f"{path}/file", contents[0])

    def write_all() -> None:
        for content in contents:
            write_whole(fs, f"{path}/file", content)

    writer = threading.Thread(target=write_all)
    writer.start()
    while writer.is_alive():
        assert (tmp_path / "file").read_bytes() in contents
        assert [name for name in os.listdir(tmp_path) if not name.startswith(".")] == ["file"]  # noqa: PTH208
    writer.join()
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="files get a name from the first only on Linux")
def test_a_process_that_is_killed_while_it_writes_leaves_nothing(tmp_path: Path) -> None:
    """Its file has no name until it is whole."""
    script = """
import os, sys
from pipeline import local_files, storage
local_files._name = lambda *_: os.kill(os.getpid(), 9)
fs, path = storage.open_folder(sys.argv[1])
storage.write_whole(fs, f"{path}/file", b"abc")
"""
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, cwd=Path(__file__).parents[1])
    assert ended.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == []  # noqa: PTH208


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EISDIR])
def test_a_disk_that_knows_no_files_without_a_name_gets_hidden_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As network disks are."""

    def refuse(path: Path, flags: int, mode: int) -> int:
        assert path == tmp_path
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("pipeline.local_files.os.open", refuse)
    fs, path = open_folder(str(tmp_path))
    for content in (b"abc", b"de"):
        write_whole(fs, f"{path}/file", content)
        assert (tmp_path / "file").read_bytes() == content
        assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (FileNotFoundError("bucket/key"), "no such file or folder"),
        (PermissionError("Access Denied"), "permission denied"),
        (ValueError("Protocol not known: nosuch"), "Protocol not known: nosuch"),
        (ImportError("Please install gcsfs to access Google Storage"), "Please install gcsfs to access Google Storage"),
        (
            NoCredentialsError(),
            "there are no credentials; give storage_options=, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the "
            "environment",
        ),
        (OSError("http://me:secret@h/a?sig=secret\nis gone"), "http://h/a?… is gone"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_any_error_of_a_file_system_is_one_of_ours_in_one_line(error: Exception, reason: str) -> None:
    with pytest.raises(LedgerError) as caught, storage_errors(LedgerError, "cannot write 'x'"):
        raise error
    assert str(caught.value) == f"cannot write 'x': {reason}"
    assert caught.value.__cause__ is error


def test_what_is_ours_already_stays_as_it_is() -> None:
    with pytest.raises(PipelineError, match=r"^cannot encode$"), storage_errors(LedgerError, "cannot write 'x'"):
        raise StoreError("cannot encode")


@pytest.mark.parametrize("url", ["nosuch://bucket", "gs://bucket", "s3://bucket/a::nosuch://b"])
def test_a_file_system_that_cannot_be_opened_is_told(url: str) -> None:
    with (
        pytest.raises(LedgerError, match=r"^cannot open the ledger: .+"),
        storage_errors(LedgerError, "cannot open the ledger"),
    ):
        open_folder(url)
