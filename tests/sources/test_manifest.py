"""Rules of manifests."""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import json
import lzma
import tracemalloc
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import Item, ManifestColumns
from pipeline.errors import SourceError
from pipeline.sources import key_for_url, open_collection
from pipeline.sources.rows import decode_lines, read_json_lines, read_table, read_text
from tests.fixtures.web import Reply, Web

CAT = "https://example.com/cat.jpg"
DOG = "https://example.com/dog.jpg?size=1,2"

CONTENT_BY_NAME = {
    "list.txt": f"# photos\n\n{CAT}\n  {DOG}  \r\n",
    "list.csv": f'id,url,title\r\n1,{CAT},"a ""cat"",\non two lines"\n,,\n2,"{DOG}",\n',
    "list.tsv": f'url\ttitle\n{CAT}\t5" cat\n{DOG}\t"open\n',
    "list.jsonl": f'{{"id": 1, "url": "{CAT}"}}\n\n"{DOG}"\n',
    "list.NDJSON": f'"{CAT}"\n{{"url": "{DOG}"}}',
    "objects.json": f'\n[{{"id": 1, "url": "{CAT}"}},\n {{"url": "{DOG}", "tags": ["a, ]"]}} ]\n',
    "list.json": f'["{CAT}","{DOG}"]',
}
COMPRESS_BY_SUFFIX: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("suffix", COMPRESS_BY_SUFFIX)
@pytest.mark.parametrize("name", CONTENT_BY_NAME)
def test_each_kind_of_manifest_gives_its_urls(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / (name + suffix.upper())
    path.write_bytes(COMPRESS_BY_SUFFIX[suffix](CONTENT_BY_NAME[name].encode("utf-8-sig")))
    collection = open_collection(path)
    assert list(collection) == [Item(key_for_url(CAT), CAT), Item(key_for_url(DOG), DOG)]
    assert list(collection) == list(collection)


def write_parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


def test_parquet_gives_its_urls_from_one_file_or_a_folder_of_parts(tmp_path: Path) -> None:
    urls = [CAT, None, "b/dog.jpg", DOG]
    write_parquet(tmp_path / "list.parquet", url=pa.array(urls).dictionary_encode(), more=[b"x"] * 4)
    parts = tmp_path / "parts.parquet"
    parts.mkdir()
    (parts / "_SUCCESS").touch()
    (parts / "_metadata.parquet").touch()
    write_parquet(parts / "part-1.parquet", url=pa.array(urls[2:], pa.large_string()))
    write_parquet(parts / "part-0.parquet", url=urls[:2])
    for name in ("list.parquet", "parts.parquet"):
        cat, bad, dog, other = open_collection(tmp_path / name)
        assert (cat, dog.url, other.url) == (Item(key_for_url(CAT), CAT), f"{tmp_path}/b/dog.jpg", DOG)
        assert bad == Item("row-000002", "", problem=f"row 2 of '{tmp_path / name}': no URL or path in 'url'")


def test_relative_paths_are_relative_to_the_manifest_and_their_keys_move_with_it(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "list.txt").write_text("img/cat.jpg\n/abs/dog.jpg\n")
    one, other = (list(open_collection(tmp_path / folder / "list.txt")) for folder in ("one", "other"))
    assert [item.url for item in one] == [f"{tmp_path}/one/img/cat.jpg", "/abs/dog.jpg"]
    assert [item.url for item in other] == [f"{tmp_path}/other/img/cat.jpg", "/abs/dog.jpg"]
    assert [item.key for item in one] == [item.key for item in other]


def test_a_manifest_may_be_on_another_file_system(tmp_path: Path) -> None:
    files = {
        "all.csv.gz": gzip.compress(b"image\ncat.jpg\n"),
        "all.json": b'[{"image": "cat.jpg"}]',
        "all.parquet": write_parquet(tmp_path / "all.parquet", image=["cat.jpg"]).read_bytes(),
        "parts.parquet/0.parquet": (tmp_path / "all.parquet").read_bytes(),
    }
    for name, content in files.items():
        MemoryFileSystem().pipe(f"/lists/{name}", content)
        place = f"memory://lists/{name.partition('/')[0]}"
        (item,) = open_collection(place, columns=ManifestColumns("image"))
        assert item == Item(key_for_url("cat.jpg"), "memory://lists/cat.jpg")


@pytest.mark.parametrize("name", ["list.csv.zst", "list.parquet"])
def test_a_manifest_on_the_web_is_read_and_names_nothing_on_this_machine(tmp_path: Path, web: Web, name: str) -> None:
    urls = ["img/cat.jpg", "/dog.jpg", CAT, "file:///etc/passwd"]
    content = COMPRESS_BY_SUFFIX[".zst"]("\n".join(["url", *urls]).encode())
    if name.endswith("parquet"):
        content = write_parquet(tmp_path / name, url=urls).read_bytes()
    place = web.serve(f"/a/{name}", content)
    *items, bad = open_collection(f"{place}?token=secret")
    assert [item.url for item in items] == [web.url("/a/img/cat.jpg"), web.url("/dog.jpg"), CAT]
    assert "names no files of this machine" in bad.problem
    assert "secret" not in bad.problem


def test_a_manifest_on_the_web_that_is_missing_or_forbidden_is_refused(web: Web) -> None:
    place = web.reply("/list.csv", Reply(status=404))
    with pytest.raises(SourceError, match=r"^cannot read '.*/list.csv\?…': no such file or folder$"):
        open_collection(f"{place}?token=secret")
    with pytest.raises(SourceError, match="over HTTP: give the URLs that it lists instead"):
        open_collection(place, places=("https://",))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("bad.csv", f"url,n\n{CAT},1\n ,2\n", "line 3 of '{path}': no URL or path in 'url'"),
        ("short.csv", f"n,url\n1,{CAT}\n2\n", "line 3 of '{path}': no URL or path in 'url'"),
        ("bad.jsonl", f'"{CAT}"\n\n{{"url": \n', "line 3 of '{path}': no JSON: Expecting value"),
        ("no.jsonl", f'{{"url": "{CAT}"}}\n{{"uri": "{DOG}"}}\n', "line 2 of '{path}': no URL or path in 'url'"),
        ("number.jsonl", f'"{CAT}"\n7\n', "line 2 of '{path}': 'url' is 7; allowed is a URL or path as text"),
        ("null.jsonl", f'"{CAT}"\n{{"url": null}}\n', "line 2 of '{path}': no URL or path in 'url'"),
        ("deep.jsonl", f'"{CAT}"\n{"[" * 100_000}\n', "line 2 of '{path}': no JSON: maximum recursion"),
        ("list.json", f'["{CAT}", ["{DOG}"]]', "row 2 of '{path}': 'url' is ["),
    ],
)
def test_a_row_without_url_is_an_item_that_says_which_and_why(
    tmp_path: Path, name: str, content: str, problem: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    cat, bad = open_collection(path)
    assert cat.url == CAT
    assert bad.problem.startswith(problem.replace("{path}", str(path)))
    unit, number = bad.problem.split()[:2]
    assert (bad.key, bad.url) == (f"{unit}-{int(number):06d}", "")


BROKEN = [
    ("a.csv", b"id,link\n1,x\n", "it has no column 'url'; its columns are 'id', 'link'"),
    ("a.tsv", b"", "it is empty; its first row must name the columns"),
    ("a.jsonl", b'{"link": "x"}\n', "it has no column 'url'; its columns are 'link'"),
    ("a.json", b'[{"link": "x"}]', "it has no column 'url'; its columns are 'link'"),
    (
        "b.json",
        b'{"url": ["x"]}',
        "it begins with '{'; allowed is an array of strings or of objects: [{…}, {…}]",
    ),
    ("c.json", b" ", "it is empty; allowed is an array"),
    ("d.json", b'["a" "b"]', "after entry 1 comes '\"' instead of ',' or ']'"),
    ("e.json", b'[{"url": 1', "entry 1: Expecting ',' delimiter"),
    ("f.json", b'["' + b"x" * 2**21, "entry 1 is broken, or longer than 1048576 characters"),
    ("g.json", b'["a.jpg"', "it ends after entry 1, without ']'"),
    ("h.json", b"[" * 50_000, "entry 1: maximum recursion depth exceeded"),
    ("i.json", b'["\xe9"]', "it is not UTF-8"),
    ("a.txt", "h\u00e9".encode("latin-1"), "line 1 is not UTF-8"),
    ("b.txt", "cat.jpg\n".encode("utf-16"), "line 1 is not UTF-8: it looks like UTF-16"),
    ("c.csv", gzip.compress(b"url\ncat.jpg\n"), "line 1 is not UTF-8: it looks like gzip"),
    ("a.txt.gz", b"cat.jpg", "Not a gzipped file (b'ca')"),
    ("b.txt.gz", gzip.compress(b"cat.jpg")[:-9], "Compressed file ended before the end-of-stream marker"),
    ("a.txt.bz2", b"cat.jpg", "Invalid data stream"),
    ("a.txt.xz", b"cat.jpg", "Input format not supported by decoder"),
    ("a.txt.zst", b"cat.jpg", "ZSTD decompress failed: Unknown frame descriptor"),
    ("b.txt.zst", COMPRESS_BY_SUFFIX[".zst"](b"cat.jpg")[:-3], "Truncated compressed stream"),
    ("a.parquet", b"PAR1 and no more", "Parquet magic bytes not found in footer"),
]


@pytest.mark.parametrize(("name", "content", "reason"), BROKEN, ids=[name for name, *_ in BROKEN])
def test_a_broken_manifest_says_why_when_it_is_opened(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        list(open_collection(path))
    assert str(caught.value).startswith(f"cannot read '{path}': {reason}")
    assert "\n" not in str(caught.value)


def test_a_column_of_parquet_that_holds_no_text_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "list.parquet", url=[1], image=[b"x"], link=[CAT])
    for columns, message in (
        (ManifestColumns(), "its column 'url' is of type int64; allowed is text: URLs or paths"),
        (ManifestColumns("image"), "its column 'image' is of type binary; allowed is text: URLs or paths"),
        (ManifestColumns("link", carry=("image",)), "its column 'image' is of type binary; allowed are text, numbers"),
        (ManifestColumns("link", key="id"), "it has no column 'id'; its columns are 'url', 'image', 'link'"),
    ):
        with pytest.raises(SourceError) as caught:
            open_collection(path, columns=columns)
        assert str(caught.value).startswith(f"cannot read '{path}': {message}")


def test_a_parquet_file_that_is_cut_off_is_an_error(tmp_path: Path) -> None:
    """Before any image is fetched: what tells where its columns are is at its end."""
    path = write_parquet(tmp_path / "list.parquet", url=[CAT, DOG] * 1000)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SourceError, match=r"cannot read '.*list.parquet': Parquet magic bytes not found"):
        open_collection(path)


ROWS: list[dict[str, Any]] = [
    {"url": "a.jpg", "id": 7, "sha": "AB", "ratio": 0.5, "ok": True, "text": 'ü, "x"\n'},
    {"url": "b.jpg", "id": 2**60, "sha": None, "ratio": None, "ok": False, "text": None},
]


def write_rows(path: Path) -> Path:
    match path.suffix:
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(ROWS), path)
        case ".json":
            path.write_text(json.dumps(ROWS, indent=1))
        case ".jsonl":
            path.write_text("\n".join(map(json.dumps, ROWS)))
        case ".csv":
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(ROWS[0]))
                writer.writeheader()
                writer.writerows(row | {"ok": json.dumps(row["ok"])} for row in ROWS)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".json", ".jsonl", ".csv"])
def test_columns_by_name_are_the_same_in_every_format(tmp_path: Path, suffix: str) -> None:
    """But for CSV, which does not know an empty text from none."""
    columns = ManifestColumns(key="id", hash="sha", carry=("id", "ratio", "ok", "text"))
    one, other = open_collection(write_rows(tmp_path / f"list{suffix}"), columns=columns)
    none = "" if suffix == ".csv" else None
    assert (one.key, one.url, one.expected_hash) == ("7", f"{tmp_path}/a.jpg", "AB")
    assert one.extra == (("id", "7"), ("ratio", "0.5"), ("ok", "true"), ("text", 'ü, "x"\n'))
    assert (other.key, other.expected_hash) == (str(2**60), "")
    assert other.extra == (("id", str(2**60)), ("ratio", none), ("ok", "false"), ("text", none))


def keys_of(path: Path, rows: list[tuple[str, str]]) -> list[Item]:
    path.write_text("\n".join(json.dumps({"url": url, "name": name}) for name, url in rows))
    return list(open_collection(path, columns=ManifestColumns(key="name")))


def test_names_of_the_user_s_are_keys_that_are_safe_and_unique(tmp_path: Path) -> None:
    names = [
        "cats/1.jpg", "IMG_1", "img_1", "../../etc/passwd", "/abs", "con", "a:b", "a_b", "x" * 300, "x" * 301,
        "IMG_1-0123456789abcdef", "line-000001", "cat.webp/1", "v1.2", "a/../b", "é", "e\u0301", "\ud800",
        "/".join("ab" * 200),
    ]  # fmt: skip
    items = keys_of(tmp_path / "list.jsonl", [(name, f"{number}.jpg") for number, name in enumerate(names)])
    keys = [item.key for item in items]
    assert not [item.problem for item in items if item.problem]
    assert len({key.casefold() for key in keys}) == len(names)
    assert (keys[0], keys[1], keys[7], keys[13]) == ("cats/1", "IMG_1", "a_b", "v1.2")
    for key in keys:
        assert not {"..", ".", "", "con"} & {*key.split("/")}
        assert len(key.encode()) <= 500
    again = keys_of(tmp_path / "list.jsonl", [(name, f"{number}.jpg") for number, name in enumerate(names)])
    assert again == items


def test_a_name_that_another_image_has_fails_that_row_alone(tmp_path: Path) -> None:
    items = keys_of(tmp_path / "list.jsonl", [("a", CAT), ("a", CAT), ("a", DOG), ("", CAT), ("b", DOG)])
    assert [item.key for item in items] == ["a", "a", "line-000003", "line-000004", "b"]
    assert items[2].problem.endswith("its 'name' is 'a', which another image above has; each needs its own")
    assert items[3].problem.endswith("its 'name' is empty; allowed is a text or a number")


@pytest.mark.parametrize("collection", ["list.txt", "folder", "cat.jpg", ["cat.jpg"], "https://example.com/cat.jpg"])
def test_columns_are_asked_of_nothing_that_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collection: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "cat.jpg").touch()
    (tmp_path / "list.txt").write_text("cat.jpg")
    with pytest.raises(SourceError, match=r"cannot read the column 'id' of .*: allowed are manifests that have"):
        open_collection(collection, columns=ManifestColumns(key="id"))


def test_strings_of_json_have_no_columns(tmp_path: Path) -> None:
    for name, content in (("a.json", '["a.jpg"]'), ("a.jsonl", '"a.jpg"\n')):
        (tmp_path / name).write_text(content)
        with pytest.raises(SourceError, match="it has no column 'id'; its entries are not objects"):
            open_collection(tmp_path / name, columns=ManifestColumns(key="id"))


@pytest.mark.parametrize("rest", ['"open,4\nlost\nlost', '"cat" and dog,5\n'])
def test_quotes_that_would_swallow_rows_are_an_error(tmp_path: Path, rest: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(f"title,url\ncat,{CAT}\n{rest}")
    items = iter(open_collection(path))
    assert next(items).url == CAT
    with pytest.raises(SourceError, match=r"list.csv': line \d: .*; is a quote left open, or not doubled\?"):
        next(items)


def test_bytes_that_are_not_utf8_are_an_error_where_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"a.jpg\nb.jpg\ncaf\xe9.jpg\n")
    items = iter(open_collection(path))
    assert [item.url for item in islice(items, 2)] == [f"{tmp_path}/a.jpg", f"{tmp_path}/b.jpg"]
    with pytest.raises(SourceError, match="line 3 is not UTF-8"):
        next(items)


def test_a_text_that_cannot_be_encoded_can_be_written_down(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text('{"url": "https://example.com/\\ud800.jpg"}\n')
    (item,) = open_collection(path, columns=ManifestColumns(carry=("url",)))
    assert item.url.encode()
    assert str(item.extra).encode()
    assert item.key.startswith("_-")


def test_the_first_item_comes_before_the_rest_is_read() -> None:
    taken = []

    def lines():
        for number in range(1_000_000):
            taken.append(number)
            yield b"https://example.com/%d.jpg\n" % number

    assert next(read_text(decode_lines(lines()))) == (1, ("https://example.com/0.jpg",), "")
    assert taken == [0]


def test_a_big_manifest_is_opened_without_reading_it_all(tmp_path: Path) -> None:
    """What comes late is not even looked at."""
    path = tmp_path / "big.txt"
    with path.open("wb") as file:
        file.write(b"https://example.com/cat.jpg\n" * 100_000)
        file.write(b"\xff")
    collection = open_collection(path)
    assert next(iter(collection)).url == CAT


@pytest.mark.parametrize("name", ["list.csv.gz", "list.jsonl", "list.json.zst", "list.parquet"])
def test_a_long_manifest_is_read_in_pieces(tmp_path: Path, name: str) -> None:
    """All of its URLs take 20 MB or more; of pyarrow's memory the same is counted by its own pool."""
    path, count = tmp_path / name, 20_000
    urls = [f"https://example.com/{'long/' * 200}{number}.jpg" for number in range(count)]
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"url": urls, "id": range(count)}), path, row_group_size=count, use_dictionary=False)
    else:
        objects = [json.dumps({"url": url, "id": number}) for number, url in enumerate(urls)]
        text = {"csv": "url,id\n" + "".join(f"{url},{number}\n" for number, url in enumerate(urls))}
        text |= {"jsonl": "\n".join(objects), "json": f"[{','.join(objects)}]"}
        path.write_bytes(COMPRESS_BY_SUFFIX["".join(path.suffixes[1:])](text[name.split(".")[1]].encode()))
        del objects, text
    del urls
    collection = open_collection(path, columns=ManifestColumns(key="id", carry=("id",)))
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    tracemalloc.start()
    try:
        found = 0
        for found, _ in enumerate(collection, start=1):
            if found % 1000 == 0:
                assert pool.bytes_allocated() - before < 8e6
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()
    assert found == count


@given(st.text())
def test_any_text_is_read_or_refused_as_a_whole(text: str) -> None:
    lines = text.splitlines(keepends=True)
    for rows in (read_text(lines), read_table(lines, ["url"]), read_json_lines(lines, ["url"])):
        numbers = []
        with contextlib.suppress(ValueError):
            numbers += [row.number for row in rows]
        assert numbers == sorted(set(numbers))
        assert len(numbers) <= len(lines)


def test_a_line_without_end_and_blank_lines_without_end_are_refused(tmp_path):
    """A small archive may hold gigabytes of either."""
    for text, words in (("x" * (2**20 + 1), "line 1 is longer"), ("\n" * (2**20 + 1), "are blank")):
        path = tmp_path / "list.txt.gz"
        path.write_bytes(gzip.compress(text.encode()))
        with pytest.raises(SourceError, match=words):
            list(open_collection(path))
