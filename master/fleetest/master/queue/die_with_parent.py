"""
Become another program, which gets SIGTERM when the process that started us dies (Linux; elsewhere it lives on).

::

    python -I -S die_with_parent.py PARENT_PID PROGRAM ARGUMENT...

A program of its own because the kernel's wish for a death signal (prctl(2), PR_SET_PDEATHSIG) has to be made in the
child and outlives exec, and because code between fork and exec is not safe in a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Does not return."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):  # it died before we made the wish
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
