import hashlib
import io
import os
import stat
from pathlib import Path

import fsspec
import pytest
from PIL import Image

from pipeline.domain import Recipe
from pipeline.errors import StoreError
from pipeline.stages.picture import Picture
from pipeline.stages.store import prepare_image, write_image
from pipeline.storage import open_folder
from tests.fixtures.s3 import S3, Gateway

PICTURE = Picture(Image.new("RGB", (30, 20), "red"), "PNG")


def store_image(picture, key, destination, recipe, storage_options=None):
    return write_image(prepare_image(picture, key, destination, recipe), destination, storage_options)


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_stored_tells_what_was_written(tmp_path, scheme):
    stored = store_image(PICTURE, "a/b c/cat", f"{scheme}{tmp_path}", Recipe(format="webp"))
    path = tmp_path / "a" / "b c" / "cat.webp"
    content = path.read_bytes()
    assert stored.output == str(path)
    assert (stored.width, stored.height, stored.bytes_out) == (30, 20, len(content))
    assert stored.sha256 == hashlib.sha256(content).hexdigest()
    assert files_below(tmp_path) == ["a/b c/cat.webp"]


def test_dots_in_a_key_are_kept(tmp_path):
    assert store_image(PICTURE, "v1.2/cat.old", str(tmp_path), Recipe()).output.endswith("v1.2/cat.old.jpg")


def test_storing_again_replaces(tmp_path):
    (tmp_path / "cat.jpg").write_bytes(b"old")
    store_image(PICTURE, "cat", str(tmp_path), Recipe())
    assert Image.open(io.BytesIO((tmp_path / "cat.jpg").read_bytes())).size == (30, 20)
    assert files_below(tmp_path) == ["cat.jpg"]


def test_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    store_image(PICTURE, "cat", str(tmp_path), Recipe())
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "cat.jpg")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("key", ["", "/etc/cat", "../cat", "a/../../cat", "a/..", "a\0b", "a/", "."])
@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_key_that_leaves_the_destination_is_refused(tmp_path, key, scheme):
    with pytest.raises(StoreError, match=r"cannot store .* a key is a relative name"):
        store_image(PICTURE, key, f"{scheme}{tmp_path}/out", Recipe())
    assert files_below(tmp_path) == []


def test_nothing_is_left_when_the_name_is_taken_by_a_folder(tmp_path):
    (tmp_path / "cat.jpg").mkdir()
    with pytest.raises(StoreError, match=r"cannot store '.*cat\.jpg': Is a directory"):
        store_image(PICTURE, "cat", str(tmp_path), Recipe())
    assert files_below(tmp_path) == []


def test_nothing_is_left_when_writing_fails(tmp_path):
    """A limit on the size of files fails as a full disk does: in the middle of writing."""
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    noise = Picture(Image.effect_noise((200, 200), 90), "PNG")
    (tmp_path / "cat.png").write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StoreError, match=r"cannot store '.*cat\.png': File too large"):
            store_image(noise, "cat", str(tmp_path), Recipe(format="png"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert files_below(tmp_path) == ["cat.png"]
    assert (tmp_path / "cat.png").read_bytes() == b"old"


def test_destination_below_a_file_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="Not a directory"):
        store_image(PICTURE, "cat", str(tmp_path / "file"), Recipe())


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_missing_permission_is_told(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="permission denied"):
        store_image(PICTURE, "cat", str(tmp_path), Recipe())


def test_name_as_long_as_the_file_system_allows_is_written(tmp_path):
    key = "k" * 251
    assert store_image(PICTURE, key, str(tmp_path), Recipe()).output.endswith(f"{key}.jpg")
    with pytest.raises(StoreError, match="File name too long"):
        store_image(PICTURE, "k" * 252, str(tmp_path), Recipe())


def test_object_store_gets_one_whole_object():
    stored = store_image(PICTURE, "a/cat", "memory://bucket/out/", Recipe(format="png"))
    assert stored.output == "memory://bucket/out/a/cat.png"
    with fsspec.open(stored.output) as file:
        assert Image.open(io.BytesIO(file.read())).size == (30, 20)


def test_folders_are_made_on_file_systems_that_need_them(tmp_path):
    store_image(PICTURE, "a/cat", f"local://{tmp_path}/x", Recipe())
    assert files_below(tmp_path) == ["x/a/cat.jpg"]


def test_unknown_protocol_is_told():
    with pytest.raises(StoreError, match=r"cannot store 'nosuch://x/cat\.jpg': Protocol not known"):
        store_image(PICTURE, "cat", "nosuch://x", Recipe())


@pytest.mark.parametrize("scheme", ["", "file://", "local://"])
def test_images_are_stored_where_others_open_the_destination(tmp_path, scheme):
    destination = f"{scheme}{tmp_path}/a%20b c"
    _, folder = open_folder(destination)
    assert store_image(PICTURE, "cat", destination, Recipe()).output == f"{folder}/cat.jpg"
    assert files_below(tmp_path) == ["a%20b c/cat.jpg"]


@pytest.mark.parametrize("key", ["cat", "../cat"])
def test_errors_do_not_show_the_secrets_of_a_destination(key):
    with pytest.raises(StoreError) as caught:
        store_image(PICTURE, key, "nosuch://user:secret@host/out", Recipe())
    assert "nosuch://host/out" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_put_that_breaks_off_leaves_nothing(gateway: tuple[Gateway, S3]) -> None:
    gate, through = gateway
    straight = S3(gate.endpoint, through.bucket)
    gate.cut = True
    options = {**through.options, "config_kwargs": {"retries": {"total_max_attempts": 1}}}
    with pytest.raises(StoreError, match=r"^cannot store 's3://.*/out/cat\.png': .+"):
        store_image(PICTURE, "cat", f"{through.bucket}/out", Recipe(format="png"), options)
    assert straight.object_keys() == []
    gate.cut = False
    stored = store_image(PICTURE, "cat", f"{through.bucket}/out", Recipe(format="png"), options)
    assert hashlib.sha256(straight.fs.cat_file(stored.output)).hexdigest() == stored.sha256


def test_a_store_that_is_asked_too_often_is_asked_again_later(gateway: tuple[Gateway, S3]) -> None:
    gate, through = gateway
    gate.refusals["PUT"] = [503, 429]
    store_image(PICTURE, "cat", f"{through.bucket}/out", Recipe(format="png"), through.options)
    assert gate.requests["PUT"] == 3
    assert S3(gate.endpoint, through.bucket).object_keys() == ["out/cat.png"]
