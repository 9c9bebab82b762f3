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


async def test_several_quick_attempts_may_come_and_are_asked_for_when_half_of_them_are_left() -> None:
    appetite, asked = Appetite(), asyncio.Event()
    appetite.on_hungry(asked.set)
    appetite.last_duration = timedelta(milliseconds=1)

    grown = [_ahead_after(appetite, milliseconds=2) for _ in range(4)]
    appetite.look_at(5, busy=True)
    await asyncio.sleep(0)
    asked_early = asked.is_set()
    appetite.look_at(4, busy=True)
    await asyncio.sleep(0)
    asked_in_time = asked.is_set()
    asked.clear()
    appetite.look_at(3, busy=True)
    await asyncio.sleep(0)

    assert grown == [1, 3, 7, 7]
    assert (asked_early, asked_in_time, asked.is_set()) == (False, True, False)


def test_attempts_wait_behind_others_for_some_milliseconds_and_behind_slow_ones_not_at_all() -> None:
    appetite = Appetite()

    assert [_ahead_after(appetite, milliseconds=each) for each in (2, 2, 10, 10, 40, 2)] == [1, 3, 3, 3, 0, 1]


async def test_nothing_more_is_asked_for_while_others_could_run_what_waits() -> None:
    appetite, asked = Appetite(), asyncio.Event()
    appetite.on_hungry(asked.set)
    appetite.last_duration = timedelta(milliseconds=1)
    appetite.attempt_ended(timedelta(milliseconds=1))

    appetite.others_wait()
    appetite.look_at(1, busy=True)
    await asyncio.sleep(0)

    assert appetite.ahead == 0
    assert not asked.is_set()


def _ahead_after(appetite: Appetite, *, milliseconds: int) -> int:
    appetite.attempt_ended(timedelta(milliseconds=milliseconds))
    return appetite.ahead
