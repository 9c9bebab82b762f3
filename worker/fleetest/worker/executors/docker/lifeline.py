"""What ends a container when its agent is gone, however the agent ended."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from fleetest.common.disk import disk_errors
from fleetest.common.threads import in_thread

__all__ = ["LIFELINE", "Lifeline"]

LIFELINE: Final = Path("/fleetest/lifeline")
"""Where every container sees it."""


class Lifeline:
    """
    A named pipe that the agent holds open for writing and the container's main process reads from.

    Nothing is ever written to it. The kernel closes the agent's end when the agent ends, also when it is killed: then
    the main process reads the end, and ends itself, and all of its container with it.

    Args:
        path: where it is made, as the agent sees it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    async def open(self) -> None:
        """Make it and hold it. Idempotent."""
        if self._descriptor is None:
            with disk_errors(f"the pipe {self.path}"):
                self._descriptor = await in_thread(self._open)

    def close(self) -> None:
        """Let it go. Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _open(self) -> int:
        os.mkfifo(self.path, 0o600)
        # To read as well, or opening it would wait for a reader.
        descriptor = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.path.chmod(0o444)  # the main process is another user
        return descriptor
