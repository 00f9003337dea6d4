from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.runner.seen import SeenKeys


@given(st.lists(st.text(max_size=5)))
def test_a_key_is_new_once(keys: list[str]) -> None:
    model: set[str] = set()
    with SeenKeys() as seen:
        for key in keys:
            assert seen.add(key) == (key not in model)
            model.add(key)
        assert len(seen) == len(model)


def test_two_runs_share_nothing() -> None:
    with SeenKeys() as one, SeenKeys() as other:
        assert one.add("a")
        assert other.add("a")
