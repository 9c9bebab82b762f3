"""Ties a process to the one that started it, so that nothing is left running when that one is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from typing import Final

__all__ = ["TETHER_VARIABLE", "tether_to_parent"]

TETHER_VARIABLE: Final = "FLEETEST_TETHERED_TO"
"""Set by a supervisor to its own pid, for the programs that are to end with it."""

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_LOOK_SECONDS: Final = 1.0


def tether_to_parent(environment: dict[str, str] | os._Environ[str]) -> None:
    """
    End this process with SIGTERM when the process named in the environment ends; without a name, do nothing.

    On Linux the kernel sends the signal (prctl(2), PR_SET_PDEATHSIG); elsewhere a thread looks every second.
    """
    parent = environment.get(TETHER_VARIABLE, "")
    if not parent.isdecimal():
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    else:
        threading.Thread(target=_look_for, args=(int(parent),), daemon=True, name="tether").start()
    if os.getppid() != int(parent):  # it ended before we were tied to it
        os.kill(os.getpid(), signal.SIGTERM)


def _look_for(parent: int) -> None:
    gone = threading.Event()
    while not gone.wait(_LOOK_SECONDS):
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
            return
