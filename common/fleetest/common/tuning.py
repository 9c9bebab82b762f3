"""How our processes have their interpreter work."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:  # a command begins without it
    from asyncio import AbstractEventLoop

__all__ = ["hasten", "leave", "loop_factory", "settle"]

_SWITCH_INTERVAL: Final = timedelta(microseconds=500)
"""
A thread that comes back from the disk waits for so long before the busy one lets it in, several times in each commit.
Python's own 5 ms are as long as all else that a commit takes.
"""

_YOUNG_OBJECTS: Final = 2_000
"""
So many new objects make a collection worth while; Python's own 700 are gone with every batch of reports. Ten times as
many take 3 ms, for which somebody waits.
"""


_OBJECTS_OF_A_START: Final = 100_000
"""As many as a command makes until it has something to wait for: looking through them took a tenth of that time."""


def loop_factory() -> Callable[[], AbstractEventLoop] | None:
    """
    Makes uvloop's event loop, whose turns cost a third; `None` where it is not installed, and for Python's own.
    """
    try:
        import uvloop  # need not be there
    except ImportError:
        return None
    return uvloop.new_event_loop


def hasten() -> None:
    """For a command: what it makes at its start stays, so there is no garbage to look for each time."""
    gc.set_threshold(_OBJECTS_OF_A_START)


def leave(exit_code: int) -> NoReturn:
    """
    End the process of a command that has done all it had to do. What is left of it goes with the process: to take it
    apart piece by piece before took a third of the time from a run's end to the prompt.

    Functions that were to be called at exit are not; nothing of ours, or of what a command loads, needs them.
    """
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        sys.exit(exit_code)  # whoever was to read it has left; Python deals with that
    os._exit(exit_code)


def settle() -> None:
    """
    For a server, where one thread serves everybody and a few others wait for the disk.

    What has been loaded by now stays, and need not be looked through again and again.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL.total_seconds())
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)
