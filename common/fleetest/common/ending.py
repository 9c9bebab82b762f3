"""Ends tasks of an event loop for good."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

__all__ = ["end_tasks"]

_PATIENCE_SECONDS: Final = 0.2


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """
    Cancel tasks and wait until they are over; what they raise is dropped.

    Asks again and again: a library may lose a cancellation, as redis-py does on CPython 3.11 when it comes while a
    connection is being made.
    """
    alive = set(tasks)
    while alive:
        for task in alive:
            task.cancel()
        ended, alive = await asyncio.wait(alive, timeout=_PATIENCE_SECONDS)
        for task in ended:
            if not task.cancelled():
                task.exception()  # looked at, so that nobody warns of it
