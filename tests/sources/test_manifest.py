"""Rules of manifests."""

from __future__ import annotations

import contextlib
import gzip
from itertools import islice
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import Item
from pipeline.errors import SourceError
from pipeline.sources import key_for_url, open_collection
from pipeline.sources.manifest import decode_lines, read_json_lines, read_table, read_text

CAT = "https://example.com/cat.jpg"
DOG = "https://example.com/dog.jpg?size=1,2"

CONTENT_BY_NAME = {
    "list.txt": f"# photos\n\n{CAT}\n  {DOG}  \r\n",
    "list.csv": f'id,url,title\n1,{CAT},"a ""cat"",\non two lines"\n,,\n2,"{DOG}",\n',
    "list.tsv": f'url\ttitle\n{CAT}\t5" cat\n{DOG}\t"open\n',
    "list.jsonl": f'{{"id": 1, "url": "{CAT}"}}\n\n"{DOG}"\n',
    "list.NDJSON": f'"{CAT}"\n{{"url": "{DOG}"}}',
}


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("name", CONTENT_BY_NAME)
def test_each_kind_of_manifest_gives_its_urls(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / (name + suffix)
    content = CONTENT_BY_NAME[name].encode("utf-8-sig")
    path.write_bytes(gzip.compress(content) if suffix else content)
    collection = open_collection(path)
    assert list(collection) == [Item(key_for_url(CAT), CAT), Item(key_for_url(DOG), DOG)]
    assert list(collection) == list(collection)


def test_relative_paths_are_relative_to_the_manifest_and_their_keys_move_with_it(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "list.txt").write_text("img/cat.jpg\n/abs/dog.jpg\n")
    one, other = (list(open_collection(tmp_path / folder / "list.txt")) for folder in ("one", "other"))
    assert [item.url for item in one] == [f"{tmp_path}/one/img/cat.jpg", "/abs/dog.jpg"]
    assert [item.url for item in other] == [f"{tmp_path}/other/img/cat.jpg", "/abs/dog.jpg"]
    assert [item.key for item in one] == [item.key for item in other]


def test_a_manifest_may_be_on_another_file_system() -> None:
    MemoryFileSystem().pipe("/lists/all.csv.gz", gzip.compress(b"image\ncat.jpg\n"))
    (item,) = open_collection("memory://lists/all.csv.gz", url_column="image")
    assert item == Item(key_for_url("cat.jpg"), "memory://lists/cat.jpg")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bad.csv", f"url,n\n{CAT},1\n ,2\n"),
        ("short.csv", f"n,url\n1,{CAT}\n2\n"),
        ("bad.jsonl", f'"{CAT}"\n\n{{"url": \n'),
        ("no.jsonl", f'{{"url": "{CAT}"}}\n{{"uri": "{DOG}"}}\n'),
        ("number.jsonl", f'"{CAT}"\n7\n'),
        ("null.jsonl", f'"{CAT}"\n{{"url": null}}\n'),
        ("deep.jsonl", f'"{CAT}"\n{"[" * 100_000}\n'),
    ],
)
def test_a_row_without_url_is_an_item_that_fails(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    cat, bad = open_collection(path)
    assert cat.url == CAT
    line = len(content.splitlines())
    assert bad == Item(f"line-{line:06d}", "")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"id,link\n1,x\n", "it has no column 'url'; its columns are 'id', 'link'"),
        ("a.tsv", b"", "it is empty; its first row must name the columns"),
        ("a.jsonl", b'{"link": "x"}\n', "it has no column 'url'; its columns are 'link'"),
        ("a.txt", "h\u00e9".encode("latin-1"), "line 1 is not UTF-8"),
        ("b.txt", "cat.jpg\n".encode("utf-16"), "line 1 is not UTF-8"),
        ("a.txt.gz", b"cat.jpg", "Not a gzipped file (b'ca')"),
        ("b.txt.gz", gzip.compress(b"cat.jpg")[:-9], "Compressed file ended before the end-of-stream marker"),
    ],
)
def test_a_broken_manifest_says_why_when_it_is_opened(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        open_collection(path)
    assert str(caught.value).startswith(f"cannot read '{path}': {reason}")


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


def test_a_url_that_cannot_be_encoded_can_be_written_down(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text('"https://example.com/\\ud800.jpg"\n')
    (item,) = open_collection(path)
    assert item.url.encode()
    assert item.key.startswith("_-")


def test_the_first_item_comes_before_the_rest_is_read() -> None:
    taken = []

    def lines():
        for number in range(1_000_000):
            taken.append(number)
            yield b"https://example.com/%d.jpg\n" % number

    assert next(read_text(decode_lines(lines()))) == (1, "https://example.com/0.jpg")
    assert taken == [0]


def test_a_big_manifest_is_opened_without_reading_it_all(tmp_path: Path) -> None:
    """What comes late is not even looked at."""
    path = tmp_path / "big.txt"
    with path.open("wb") as file:
        file.write(b"https://example.com/cat.jpg\n" * 100_000)
        file.write(b"\xff")
    collection = open_collection(path)
    assert next(iter(collection)).url == CAT


@given(st.text())
def test_any_text_is_read_or_refused_as_a_whole(text: str) -> None:
    lines = text.splitlines(keepends=True)
    for rows in (read_text(lines), read_table(lines, "url"), read_json_lines(lines, "url")):
        numbers = []
        with contextlib.suppress(ValueError):
            numbers += [number for number, _ in rows]
        assert numbers == sorted(set(numbers))
        assert len(numbers) <= len(lines)


def test_a_line_without_end_and_blank_lines_without_end_are_refused(tmp_path):
    """A small archive may hold gigabytes of either."""
    for text, words in (("x" * (2**20 + 1), "line 1 is longer"), ("\n" * (2**20 + 1), "are blank")):
        path = tmp_path / "list.txt.gz"
        path.write_bytes(gzip.compress(text.encode()))
        with pytest.raises(SourceError, match=words):
            list(open_collection(path))
