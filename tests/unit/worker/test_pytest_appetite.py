"""When a session asks for more."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from fleetest.worker.runners.pytest_appetite import Appetite


@pytest.mark.parametrize(
    ("milliseconds", "backlog", "busy", "asks"),
    [
        (1, 2, False, True),
        (1, 1, True, True),
        (1, 2, True, False),
        (1000, 2, False, False),
        (1000, 1, True, False),
        (1000, 1, False, True),
    ],
)
async def test_quick_cases_are_asked_for_while_one_is_left_to_run(
    milliseconds: int, backlog: int, *, busy: bool, asks: bool
) -> None:
    appetite, asked = Appetite(), asyncio.Event()
    appetite.on_hungry(asked.set)
    appetite.last_duration = timedelta(milliseconds=milliseconds)

    appetite.look_at(backlog, busy=busy)
    await asyncio.sleep(0)

    assert asked.is_set() == asks


async def test_what_was_asked_for_once_is_not_asked_for_again_until_something_comes() -> None:
    appetite, asked = Appetite(), asyncio.Event()
    appetite.on_hungry(asked.set)
    appetite.last_duration = timedelta(milliseconds=1)

    appetite.look_at(2, busy=False)
    await asyncio.sleep(0)
    asked.clear()
    appetite.look_at(1, busy=True)  # the first of the two has been started
    await asyncio.sleep(0)
    asked_twice = asked.is_set()
    appetite.renew()
    appetite.look_at(1, busy=True)
    await asyncio.sleep(0)

    assert not asked_twice
    assert asked.is_set()
