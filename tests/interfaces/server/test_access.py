"""Who may do what: tokens, hosts, origins, token buckets, and the operator's settings file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import FetchPolicy, ImageLimits
from pipeline.errors import SettingsError
from pipeline.interfaces.server.access import TokenBucket, find_client, is_allowed_host, is_same_origin, read_bearer
from pipeline.interfaces.server.options import Client, Limits, OptionsFile, ServerOptions, hash_token
from pipeline.interfaces.server.services import may_see

ALICE = Client("alice")
OPTIONS = ServerOptions(Path("/srv"), host="192.0.2.1", allowed_hosts=("images.example.org",))


def test_a_client_is_found_by_its_whole_token_only():
    clients = {hash_token("one"): ALICE, hash_token("two"): Client("bob", is_admin=True)}
    assert find_client("one", clients) == ALICE
    assert [find_client(token, clients) for token in ("on", "one ", "", "ONE", "\udcff")] == [None] * 5


def test_a_client_sees_his_own_jobs_and_an_administrator_all():
    assert may_see(ALICE, "alice")
    assert not may_see(ALICE, "bob")
    assert not may_see(ALICE, "")
    assert may_see(Client("root", is_admin=True), "bob")


@pytest.mark.parametrize("header", ["Bearer abc", "bearer  abc ", "BEARER abc"])
def test_a_bearer_token_is_read(header):
    assert read_bearer(header) == "abc"
    assert read_bearer("Basic abc") == ""


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:80", "192.0.2.1", "images.example.org:443", "10.0.0.1"],
)
def test_the_servers_own_names_and_addresses_are_allowed(host):
    assert is_allowed_host(host, OPTIONS)


@pytest.mark.parametrize(
    "host", ["", "evil.example", "localhost.evil.example", "images.example.org.evil.example", "[", "a b"]
)
def test_a_name_that_leads_here_by_somebody_elses_doing_is_not(host):
    """DNS rebinding: the browser believes that the attacker's page and this server are one site."""
    assert not is_allowed_host(host, OPTIONS)


@pytest.mark.parametrize(
    ("origin", "is_same"),
    [
        ("http://localhost:8000", True),
        ("https://localhost:8000", True),
        ("http://localhost:8001", False),
        ("http://localhost", False),
        ("http://evil.example", False),
        ("null", False),
        ("file://localhost:8000", False),
    ],
)
def test_an_origin_is_the_servers_own_or_foreign(origin, is_same):
    assert is_same_origin(origin, "localhost:8000", "http", trusts_proxy=False) == is_same


def test_behind_a_trusted_proxy_the_scheme_counts_too():
    assert is_same_origin("https://a.example", "a.example", "https", trusts_proxy=True)
    assert not is_same_origin("http://a.example", "a.example", "https", trusts_proxy=True)


@given(
    rate=st.floats(0.1, 100),
    burst=st.integers(1, 50),
    steps=st.lists(st.floats(0, 2), min_size=1, max_size=200),
)
def test_a_token_bucket_never_lets_more_through_than_its_rate_and_burst(rate, burst, steps):
    now = 0.0
    bucket = TokenBucket(rate, burst, lambda: now)
    taken = 0
    for step in steps:
        now += step
        taken += bucket.seconds_to_wait("a") == 0
        assert taken <= burst + rate * now + 1e-6


def test_after_the_time_that_it_says_a_token_bucket_gives():
    now = 0.0
    bucket = TokenBucket(0.5, 1, lambda: now)
    assert bucket.seconds_to_wait("a") == 0
    now += bucket.seconds_to_wait("a")
    assert bucket.seconds_to_wait("a") == 0
    assert bucket.seconds_to_wait("b") == 0


def test_a_settings_file_gives_clients_access_and_limits(tmp_path):
    path = tmp_path / "server.toml"
    path.write_text(
        f"""
        [clients.alice]
        token = "long enough to be a secret"
        [clients.root]
        sha256 = "{hash_token("x").hex()}"
        admin = true
        [access]
        allowed_hosts = ["a.example"]
        trusts_proxy = true
        [fetching]
        requests_per_second = 5
        user_agent = "lab"
        [images]
        timeout_s = 5
        [limits]
        urls_per_job = 7
        """
    )
    given = OptionsFile.read(path)
    assert given.clients[hash_token("long enough to be a secret")] == ALICE
    assert given.clients[hash_token("x")] == Client("root", is_admin=True)
    assert given.access == {"allowed_hosts": ("a.example",), "trusts_proxy": True}
    assert given.fetching == FetchPolicy(requests_per_second=5, user_agent="lab")
    assert given.images == ImageLimits(timeout_s=5)
    assert given.limits == Limits(urls_per_job=7)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "cannot read"),
        ("[other]", "no table 'other'"),
        ("clients = 1", "has to be a table"),
        ('[clients.a]\ntoken = "short"', "16 letters or more"),
        ("[clients.a]\nadmin = true", "no usable token"),
        (f'[clients.a]\nsha256 = "{"z" * 64}"', "no hexadecimal number"),
        ("[limits]\nurls = 1", "no limit 'urls'"),
        ("[limits]\nurls_per_job = 0", "urls_per_job is 0; allowed is a number above 0"),
        ('[limits]\nurls_per_job = "many"', "urls_per_job is 'many'"),
        ("[access]\ntrusts_proxy = 1", "allowed is true or false"),
        ('[access]\nallowed_hosts = "a"', "a list of texts"),
        ("[images]\nmemory_mib = 0", "images in .*: image_memory_mib is 0; allowed is"),
        ("[images]\npixels = 1", "no field of images 'pixels'"),
        ("[fetching]\nallow_private = true", "no field of fetching 'allow_private'"),
        ("[fetching]\nrequests_per_second = 0", "fetching in .*: requests_per_second is 0; allowed is"),
    ],
)
def test_a_settings_file_that_means_nothing_is_refused_in_words(tmp_path, text, words):
    path = tmp_path / "server.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=words.replace("(", r"\(")):
        OptionsFile.read(path)


def test_options_never_show_a_token(tmp_path):
    options = ServerOptions(tmp_path, clients={hash_token("a very secret token"): ALICE})
    assert "a very secret token" not in repr(options)
