from __future__ import annotations

import subprocess
import sys

from pipeline.state.driver import has_ended, new_token, pid_scope


def token_of(scope: str) -> str:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return f"{scope}/{process.pid}/random"


def test_this_process_has_not_ended() -> None:
    assert not has_ended(new_token())


def test_tokens_differ() -> None:
    assert new_token() != new_token()


def test_a_process_that_ended_is_known_where_its_id_means_something() -> None:
    assert has_ended(token_of(pid_scope()))
    assert not has_ended(token_of("elsewhere"))


def test_a_token_of_another_form_is_not_taken_for_dead() -> None:
    assert not has_ended("host:1:random")
