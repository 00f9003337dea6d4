"""Which images of a job are of the same bytes, and what becomes of those that are left to their original."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import Failure, Item, Outcome, SourceVersion
from pipeline.runner.contents import Contents, is_left

LOST = Failure("resize", "WorkerLostError", "a worker process died")


def made(key: str, content: str) -> Outcome:
    item = Item(key, f"https://example.org/{key}.jpg")
    return Outcome(item, "stored", output=f"/out/{key}.webp", width=4, bytes_out=10, source=SourceVersion("", content))


def left(key: str, content: str, original: str) -> Outcome:
    return replace(made(key, content), status="skipped", output="", width=0, bytes_out=0, duplicate_of=original)


def test_the_first_image_of_a_content_is_the_original_of_the_others() -> None:
    with Contents(is_any_left=True) as contents:
        marked = [
            contents.mark(made(key, content)) for key, content in [("a", "01"), ("b", "02"), ("c", "01"), ("a", "01")]
        ]
    assert [outcome.duplicate_of for outcome in marked] == ["", "", "a", ""]


def test_what_was_not_read_is_no_duplicate() -> None:
    with Contents(is_any_left=True) as contents:
        assert contents.mark(made("a", "")).duplicate_of == ""
        assert contents.mark(made("b", "")).duplicate_of == ""


def test_a_duplicate_waits_for_its_original_and_has_its_output() -> None:
    with Contents(is_any_left=True) as contents:
        assert contents.find_duplicates({"a": "01", "b": "01"}) == {"b": "a"}
        assert contents.leave([left("b", "01", "a")]) == []
        assert contents.n_waiting == 1
        (settled,) = contents.settle([contents.mark(made("a", "01"))])
        assert (settled.status, settled.output, settled.width) == ("skipped", "/out/a.webp", 4)
        assert contents.n_waiting == 0
        (later,) = contents.leave([left("c", "01", "a")])
        assert later.output == "/out/a.webp"


def test_a_duplicate_fails_with_its_original_whichever_ends_first() -> None:
    with Contents(is_any_left=True) as contents:
        contents.find_duplicates({"a": "01", "b": "01", "c": "01"})
        contents.leave([left("b", "01", "a")])
        # Of an image that killed its worker, nobody has told the hash.
        (early,) = contents.settle([replace(made("a", ""), status="failed", output="", failure=LOST)])
        (late,) = contents.leave([left("c", "01", "a")])
        for outcome in (early, late):
            assert outcome.status == "failed"
            assert outcome.failure == replace(
                LOST, message="it has the same bytes as 'a', which failed: a worker process died"
            )


def test_what_an_earlier_run_has_made_is_an_original_too() -> None:
    with Contents(is_any_left=True) as contents:
        contents.remember(
            [("01", "a", "/out/a.webp", 4, 3, 3, 10, "f00d"), ("", "b", "/out/b.webp", 4, 3, 3, 10, "ab")]
        )
        assert contents.find_duplicates({"c": "01"}) == {"c": "a"}
        (settled,) = contents.leave([left("c", "01", "a")])
        assert (settled.output, settled.sha256) == ("/out/a.webp", "f00d")


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=30), st.randoms())
def test_every_image_gets_one_outcome_in_whatever_order_they_end(images: list[tuple[int, bool]], random_) -> None:
    """An original is never left, and no duplicate waits once all have ended."""
    with Contents(is_any_left=True) as contents:
        pending: list[Outcome] = []
        for number, (content, fails) in enumerate(images):
            key = f"photo-{number}"
            original = contents.find_duplicates({key: f"0{content}"}).get(key)
            outcome = left(key, f"0{content}", original) if original else made(key, f"0{content}")
            if fails and not original:
                outcome = replace(outcome, status="failed", output="", failure=LOST)
            pending.append(outcome)
        random_.shuffle(pending)
        ended: list[Outcome] = []
        for outcome in pending:
            if is_left(outcome):
                ended += contents.leave([outcome])
            else:
                marked = contents.mark(outcome)
                ended += [marked, *contents.settle([marked])]
        assert contents.n_waiting == 0
    assert sorted(outcome.item.key for outcome in ended) == sorted(f"photo-{number}" for number in range(len(images)))
    assert all(bool(outcome.output) != bool(outcome.failure) for outcome in ended)


def test_nobody_waits_for_an_original_that_had_other_bytes_when_it_was_fetched_again() -> None:
    with Contents(is_any_left=True) as contents:
        contents.find_duplicates({"a": "01", "b": "01"})
        contents.find_duplicates({"c": "02"})
        contents.leave([left("b", "01", "a")])
        # Its worker died, and its server gives it the bytes of another one now.
        assert contents.find_duplicates({"a": "02"}) == {"a": "c"}
        assert contents.leave([left("a", "02", "c")]) == []
        settled = {outcome.item.key: outcome for outcome in contents.settle([made("c", "02")])}
        assert settled["a"].output == "/out/c.webp"
        assert settled["b"].failure is not None
        assert "had other bytes when it was fetched again" in settled["b"].failure.message
        assert contents.n_waiting == 0
        (late,) = contents.leave([left("d", "01", "a")])
        assert late.failure is not None
