from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.stages.robots import FORBIDDING, find_forbidding, full_user_agent, join_tags, names_in
from pipeline.version import __version__

NAMES = frozenset({"image-pipeline"})


@pytest.mark.parametrize(
    ("values", "directive"),
    [
        ([], None),
        ([""], None),
        (["all"], None),
        (["nofollow, noarchive, nosnippet, noimageindexing"], None),
        (["noai"], "noai"),
        (["noimageai"], "noimageai"),
        (["noindex"], "noindex"),
        (["noimageindex"], "noimageindex"),
        (["none"], "none"),
        (["  NoAI  "], "noai"),
        (["nofollow,NOINDEX"], "noindex"),
        (["nofollow", "noai"], "noai"),
        # For a robot by its name.
        (["googlebot: noindex"], None),
        (["googlebot: nofollow, noindex"], None),
        (["googlebot: noindex", "noai"], "noai"),
        (["noai, googlebot: noindex"], "noai"),
        (["image-pipeline: noindex"], "noindex"),
        (["Image-Pipeline : noindex"], "noindex"),
        (["*: noindex"], "noindex"),
        (["googlebot: nofollow, image-pipeline: noai"], "noai"),
        (["image-pipeline: nofollow, googlebot: noai"], None),
        (["image-pipeline-2: noai"], None),
        # Directives with a value are no names.
        (["max-snippet: 50, noindex"], "noindex"),
        (["max-image-preview:large, noai"], "noai"),
        (["unavailable_after: Wednesday, 25 Jun 2027 15:00:00 PST, noai"], "noai"),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST"], None),
        (["googlebot: max-snippet: 50, noindex"], None),
    ],
)
def test_a_directive_forbids_if_it_is_one_of_ours_and_meant_for_us(values: list[str], directive: str | None) -> None:
    assert find_forbidding(values, NAMES) == directive


@given(st.lists(st.text(max_size=40), max_size=4))
def test_whatever_a_server_sends_is_read(values: list[str]) -> None:
    assert find_forbidding(values, NAMES) in {None, *FORBIDDING}
    assert len(join_tags(values)) <= 500


words = st.from_regex(r"[a-z]{1,12}", fullmatch=True)


@given(st.sampled_from(sorted(FORBIDDING)), st.lists(words), st.lists(words), st.booleans())
def test_what_forbids_does_so_among_any_others_in_any_case(
    directive: str, before: list[str], after: list[str], is_upper: bool
) -> None:
    value = ", ".join([*before, directive, *after])
    assert find_forbidding([value.upper() if is_upper else value], NAMES) is not None


@given(st.sampled_from(sorted(FORBIDDING)), words, st.lists(words))
def test_what_is_said_to_another_robot_forbids_us_nothing(directive: str, robot: str, before: list[str]) -> None:
    kept = [word for word in before if word not in FORBIDDING]
    assert find_forbidding([", ".join([*kept, f"{robot}: {directive}"])], NAMES) is None


@pytest.mark.parametrize(
    ("own", "names"),
    [
        (None, {"image-pipeline"}),
        ("lab", {"image-pipeline", "lab"}),
        ("Lab-Crawler/2.0 (+https://lab.example/bot; crawler) tool", {"image-pipeline", "lab-crawler", "tool"}),
    ],
)
def test_we_are_meant_by_every_product_that_we_call_ourselves(own: str | None, names: set[str]) -> None:
    assert names_in(full_user_agent(own)) == names


def test_we_say_our_version() -> None:
    assert full_user_agent(None) == f"image-pipeline/{__version__}"


def test_what_is_kept_of_a_header_of_any_bytes_is_ascii() -> None:
    assert join_tags(["noai: caf\udce9", "é"]) == "noai: caf\\udce9, \\xe9"
