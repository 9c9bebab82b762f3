"""Ends tasks of an event loop for good, and helps them to hear of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

__all__ = ["end_tasks", "no_lost_cancellation"]

_PATIENCE_SECONDS: Final = 0.2


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """
    Cancel tasks and wait until they are over; what they raise is dropped.

    Asks again and again: a library may lose a cancellation, as redis-py does on CPython 3.11 when it comes while a
    connection is being made. Whoever ends our own task asks again, too: these tasks are ended first all the same.
    """
    alive, interrupted = set(tasks), False
    while alive:
        for task in alive:
            task.cancel()
        try:
            await asyncio.wait(alive, timeout=_PATIENCE_SECONDS)
        except asyncio.CancelledError:
            interrupted = True
        ended = {task for task in alive if task.done()}
        for task in ended:
            if not task.cancelled():
                task.exception()  # looked at, so that nobody warns of it
        alive -= ended
    if interrupted:
        raise asyncio.CancelledError


@contextmanager
def no_lost_cancellation() -> Iterator[None]:
    """
    Raise the cancellation of this task that came within and was lost.

    Before Python 3.12, `asyncio.wait_for`, in which redis-py and PyMongo send, loses one that comes as it ends.
    """
    before = _cancellations()
    try:
        yield
    finally:
        if _cancellations() > before:
            raise asyncio.CancelledError


def _cancellations() -> int:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop, no task
        return 0
    return task.cancelling() if task is not None else 0
