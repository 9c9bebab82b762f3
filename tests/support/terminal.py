"""A real terminal with a program in it, and hands to type there."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Terminal", "open_terminal"]

_SECONDS = 90


class Terminal:
    """
    Attributes:
        shown: all that was ever on the screen.
    """

    def __init__(self, master: int, program: subprocess.Popen[bytes]) -> None:
        self.shown = ""
        self._master = master
        self.program = program

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, text: str, *, seconds: float = _SECONDS) -> str:
        """Wait until this is shown; answers what came before it since the last wait, and forgets that."""
        limit = time.monotonic() + seconds
        while text not in self.shown:
            assert time.monotonic() < limit, f"{text!r} was not shown within {seconds} s; this was:\n{self.shown}"
            assert self._read(), f"it ended without showing {text!r}; this was:\n{self.shown}"
        before, _, self.shown = self.shown.partition(text)
        return before

    def ended(self, *, seconds: float = _SECONDS) -> int:
        """Its exit code, once it has ended by itself."""
        limit = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < limit, f"did not end within {seconds} s; this was shown:\n{self.shown}"
        return self.program.wait(timeout=seconds)

    def _read(self) -> bool:
        """Look for a moment; false once nobody has the terminal open any more."""
        if select.select([self._master], [], [], 0.1)[0]:
            try:
                self.shown += os.read(self._master, 1 << 16).decode(errors="replace")
            except OSError:  # what Linux says when the other side is closed
                return False
        return True


@contextmanager
def open_terminal(
    argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, rows: int = 24, columns: int = 80
) -> Iterator[Terminal]:
    """The program has the terminal as its controlling one. It is killed on the way out, if it still runs."""
    master, slave = pty.openpty()
    program = subprocess.Popen(
        ["setsid", "--ctty", *argv], stdin=slave, stdout=slave, stderr=slave, env={**env, "TERM": "dumb"}, cwd=cwd
    )
    os.close(slave)
    terminal = Terminal(master, program)
    terminal.resize(rows, columns)
    try:
        yield terminal
    finally:
        program.kill()
        program.wait()
        os.close(master)
