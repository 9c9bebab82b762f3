"""
Marks in the session's output, which say how far it had come.

Output goes another way than what the session says on its channel, and may take longer. So before it says that a case
is done, the session writes a mark where its output goes, and names the mark's number in the message. The agent, which
takes the marks out, is `fleetest.worker.runners.output_fence`.
"""

from __future__ import annotations

import os
from typing import Callable

__all__ = ["Marks"]


class Marks:
    """Made before any test runs, and looks at its descriptor before each use; see `channel.py` for why."""

    def __init__(self, word: str, move_high: Callable[[int], int]) -> None:
        self._write, self._fstat = os.write, os.fstat
        self._word = word
        self._number = 0
        self._descriptor = move_high(os.dup(1))
        self._identity = self._look()

    def set(self) -> int:
        """Write the next mark; answers its number, or 0 when the output is not ours any more."""
        try:
            if self._look() != self._identity:
                return 0
            self._write(self._descriptor, f"\0{self._word} {self._number + 1}\0".encode("ascii"))
        except OSError:
            return 0
        self._number += 1
        return self._number

    def _look(self) -> object:
        status = self._fstat(self._descriptor)
        return status.st_dev, status.st_ino
