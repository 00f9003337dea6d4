"""Rules of keys."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.keys import MAX_COMPONENT_BYTES, clean_component, key_for_url, name_files, name_folders

# Everything that a directory can hold, lone surrogates (names that are not UTF-8) too, with what is likely to clash.
any_text = st.text(st.characters(), max_size=300)
file_names = st.one_of(
    any_text,
    st.text("aAbB_:?ß. -\u0301é", max_size=4).map(lambda stem: stem + ".jpg"),
    st.sampled_from(["con.jpg", "CON.png", "_ledger", "cat-0123456789abcdef.jpg", "a" * 200 + ".jpg", "ﬁ", "fi", "ı"]),
).filter(lambda name: name not in {"", ".", ".."} and "/" not in name)


def assert_safe(component: str) -> None:
    assert component
    assert len(component.encode()) <= MAX_COMPONENT_BYTES
    assert component.isprintable()
    assert not set(component) & set('<>:"/\\|?*')
    assert component == component.strip(" .")
    assert component == unicodedata.normalize("NFC", component)
    assert component.split(".")[0].strip().upper() not in {"CON", "NUL", "COM1", "LPT¹"}
    assert component.casefold() != "_ledger"


@given(any_text)
def test_cleaned_text_is_a_safe_component(text: str) -> None:
    assert_safe(clean_component(text))


@given(st.lists(file_names, unique=True), st.sampled_from([name_files, name_folders]), st.randoms())
def test_keys_of_a_directory_are_safe_unique_without_regard_to_case_and_to_order(names, name_entries, random) -> None:
    key_by_name = name_entries(names)
    assert list(key_by_name) == names
    for key in key_by_name.values():
        assert_safe(key)
    for fold in (str.lower, str.upper, str.casefold, lambda key: unicodedata.normalize("NFD", key).casefold()):
        assert len({fold(key) for key in key_by_name.values()}) == len(names)
    random.shuffle(names)
    assert name_entries(names) == key_by_name


@given(any_text)
def test_key_for_any_text_is_one_safe_component_and_always_the_same(url: str) -> None:
    key = key_for_url(url)
    assert_safe(key)
    assert key == key_for_url(url)


@given(any_text, any_text)
def test_different_urls_have_different_keys(one: str, other: str) -> None:
    assert (key_for_url(one) == key_for_url(other)) == (one == other)


def test_plain_names_stay_as_they_are() -> None:
    names = ["cat.jpg", "Grüße aus Köln.png", "写真 (2).webp", "a.b.tiff", "no suffix"]
    assert list(name_files(names).values()) == ["cat", "Grüße aus Köln", "写真 (2)", "a.b", "no suffix"]


@pytest.mark.parametrize(
    "names",
    [
        ["cat.jpg", "cat.png"],
        ["Cat.JPG", "cat.jpg"],
        ["a:b.jpg", "a_b.jpg"],
        ["café.jpg", "cafe\u0301.jpg"],
        ["straße.jpg", "STRASSE.jpg"],
        ["a .jpg", "a.jpg"],
        ["x" * 200 + "1.jpg", "x" * 200 + "2.jpg"],
    ],
)
def test_all_that_clash_get_a_digest_and_nothing_else(names: list[str]) -> None:
    key_by_name = name_files([*names, "dog.jpg"])
    assert key_by_name.pop("dog.jpg") == "dog"
    for key in key_by_name.values():
        assert len(key.rpartition("-")[2]) == 16


def test_a_file_cannot_be_named_like_the_key_of_another() -> None:
    names = ["cat.jpg", "cat.png"]
    forged = [f"{key}.jpg" for key in name_files(names).values()]
    keys = name_files([*names, *forged]).values()
    assert len(set(keys)) == 4


def test_a_folder_is_not_named_like_a_result() -> None:
    """``cat.jpg`` may be stored as ``cat.webp``, which the folder ``cat.webp`` would be in the way of."""
    assert name_folders(["cat.webp"])["cat.webp"].startswith("cat.webp-")
    assert name_folders(["cat", "v1.2"]) == {"cat": "cat", "v1.2": "v1.2"}
    assert name_files(["cat.webp.jpg"]) == {"cat.webp.jpg": "cat.webp"}


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("..", "_"),
        ("...hidden", "hidden"),
        ("con", "_con"),
        ("Com1.old", "_Com1.old"),
        ("console", "console"),
        ("_ledger", "__ledger"),
        ("tab\there\0", "tab_here_"),
        ("evil\u202egpj", "evil_gpj"),
        (" padded. ", "padded"),
        ("\udce9t\udce9", "_t_"),
    ],
)
def test_unsafe_text_is_made_safe(text: str, cleaned: str) -> None:
    assert clean_component(text) == cleaned


@pytest.mark.parametrize(
    ("url", "readable"),
    [
        ("https://example.com/a/cat.jpg", "cat"),
        ("https://example.com/cat%20%C3%A9.jpg?token=secret#part", "cat é"),
        ("https://example.com/a%2F..%2Fb.png", "a_.._b"),
        ("https://example.com/cat.jpg;jsessionid=secret", "cat"),
        ("https://example.com/folder/", "folder"),
        ("https://user:secret@example.com:8080/?u=secret/x", "example.com"),
        ("https://example.com", "example.com"),
        ("https://example.com?next=/secret", "example.com"),
        ("s3://bucket/a/cat.tar.jpg", "cat.tar"),
        ("/photos/50%20off?.jpg", "50%20off_"),
    ],
)
def test_key_for_url_shows_the_name_and_no_secret(url: str, readable: str) -> None:
    key = key_for_url(url)
    assert key.rpartition("-")[0] == readable
    assert "secret" not in key


def test_keys_never_change() -> None:
    """Outputs and ledgers of earlier releases are found by them."""
    assert key_for_url("https://example.com/cat.jpg?v=1") == "cat-1632489c0c46e493"
    assert name_files(["cat.jpg", "cat.png"]) == {"cat.jpg": "cat-f05b04a5b52a5b1e", "cat.png": "cat-2ed4c03704b71e4f"}
