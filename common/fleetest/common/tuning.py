"""How our processes have their interpreter work."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # a command begins without it
    from asyncio import AbstractEventLoop

__all__ = ["hasten", "leave_all_behind", "loop_factory", "settle"]

_SWITCH_INTERVAL: Final = timedelta(microseconds=500)
"""
A thread that comes back from the disk waits for so long before the busy one lets it in, several times in each commit.
Python's own 5 ms are as long as all else that a commit takes.
"""

_YOUNG_OBJECTS: Final = 20_000
"""
So many new objects make a collection worth while; Python's own 700 are gone with every batch of reports, and with every
dozen files of a workspace.
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


def leave_all_behind() -> None:
    """
    For a command that ends now: what is left of it goes with its process, and need not be looked through before. That
    took a fifth of the processor time of a short `fleetest run`, while its user waited for the prompt.
    """
    gc.freeze()


def settle() -> None:
    """
    For a server, where one thread serves everybody and a few others wait for the disk.

    What has been loaded by now stays, and need not be looked through again and again.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL.total_seconds())
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)
