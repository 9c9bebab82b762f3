"""A case is begun by the session or taken back by the agent, never both."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from fleetest.worker.resident.claims import Claims as SessionClaims
from fleetest.worker.runners.pytest_claims import Claims


class Lost(Exception):
    """In place of the end of the process."""


def lose() -> None:
    raise Lost


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "claims"


def halves(path: Path) -> tuple[Claims, SessionClaims]:
    agent = Claims(path)
    return agent, SessionClaims(str(path), lambda descriptor: descriptor, lose)


def test_what_has_begun_is_not_taken_back_and_what_was_taken_back_does_not_begin(path: Path) -> None:
    agent, session = halves(path)
    agent.tell(["a", "b", "c"])

    begun = session.begin(0)
    taken = agent.take_back(["a", "b", "stranger"])

    assert (begun, taken) == (True, {"b": 1})
    assert not session.begin(1)
    assert session.begin(2)
    assert agent.take_back(["b", "c"]) == {}


def test_a_case_that_is_told_of_again_is_meant_anew(path: Path) -> None:
    agent, session = halves(path)
    agent.tell(["a"])
    agent.take_back(["a"])
    agent.tell(["a"])

    assert agent.take_back(["a"]) == {"a": 1}
    assert not session.begin(0)


def test_a_session_that_was_stopped_in_the_middle_keeps_its_cases(path: Path) -> None:
    agent, _ = halves(path)
    agent.tell(["a"])
    stopped = os.open(path, os.O_RDWR)
    fcntl.flock(stopped, fcntl.LOCK_EX)

    meanwhile = agent.take_back(["a"])
    os.close(stopped)

    assert meanwhile == {}
    assert agent.take_back(["a"]) == {"a": 0}


def test_nothing_is_taken_back_from_a_session_that_has_ended(path: Path) -> None:
    agent, _ = halves(path)
    agent.tell(["a"])
    agent.close()

    assert agent.take_back(["a"]) == {}


def test_a_session_whose_descriptor_a_test_closed_ends(path: Path) -> None:
    _, session = halves(path)
    os.close(session._descriptor)

    with pytest.raises(Lost):
        session.begin(0)
