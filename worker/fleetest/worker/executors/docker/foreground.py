"""A process of a container in the foreground of this one, as `docker exec` has it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Final

from fleetest.common.errors import FleetestError
from fleetest.worker.executors.docker.container import Container
from fleetest.worker.executors.docker.engine import ExecConnection

__all__ = ["attach"]

_WRAPPER: Final = """\
cd "$1" 2>/dev/null || { echo "fleetest: the working directory $1 does not exist in the container" >&2; exit 126; }
shift; unset OLDPWD
command -v "$1" >/dev/null 2>&1 || { echo "fleetest: command not found: $1" >&2; exit 127; }
[ -d "$HOME" ] || mkdir -p "$HOME"
exec "$@"
"""
_DRAIN_SECONDS: Final = 2.0
_RESIZE_TRIES: Final = 20
_RESIZE_PAUSE_SECONDS: Final = 0.05
_CHUNK_BYTES: Final = 1 << 16


async def attach(container: Container, argv: Sequence[str], *, env: Mapping[str, str], cwd: PurePath) -> int:
    """
    Fulfils `Environment.attach`. It has a terminal when both our standard input and output are one.

    Raises:
        DependencyUnavailable: the Engine went away.
    """
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    wrapped = ["/bin/sh", "-c", _WRAPPER, "sh", str(cwd), *argv]
    exec_id = await container.create_exec(wrapped, env, attached=True, terminal=terminal)
    ended = container.watch.expect(exec_id)
    connection = await container.engine.attach_exec(exec_id, terminal=terminal)
    streams = _Streams(connection)
    with _keyboard_unedited() if terminal else contextlib.nullcontext():
        streams.start()
        window = asyncio.create_task(_follow_window(container, exec_id)) if terminal else None
        try:
            exit_code = await ended
            await streams.drained(_DRAIN_SECONDS)
        finally:
            if window is not None:
                window.cancel()
            streams.close()
    return exit_code


class _Streams:
    """Our standard streams, tied to a process's: what we read it reads, what it writes we write."""

    def __init__(self, connection: ExecConnection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._drained = asyncio.Event()
        self._stop_reading, self._stop = os.pipe()
        self._reader = threading.Thread(target=self._pass_output, name="container-output", daemon=True)
        self._writer = threading.Thread(target=self._pass_input, name="container-input", daemon=True)

    def start(self) -> None:
        self._reader.start()
        self._writer.start()

    async def drained(self, seconds: float) -> None:
        """Wait for the end of its output; only what outlives the process could still hold that open."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._drained.wait(), seconds)

    def close(self) -> None:
        os.write(self._stop, b"x")
        self._connection.close()
        self._writer.join()
        self._reader.join()
        os.close(self._stop)
        os.close(self._stop_reading)

    def _pass_output(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # the Engine went away, or whoever read our output did
            while True:
                stream, content = self._connection.read()
                if not content:
                    break
                _write_all(stream, content)
        with contextlib.suppress(RuntimeError):  # so did the loop
            self._loop.call_soon_threadsafe(self._drained.set)

    def _pass_input(self) -> None:
        keyboard = sys.stdin.fileno()
        with contextlib.suppress(OSError):
            while self._stop_reading not in (ready := select.select([keyboard, self._stop_reading], [], [])[0]):
                content = os.read(keyboard, _CHUNK_BYTES) if ready else b""
                if not content:
                    self._connection.end_input()
                    return
                self._connection.write(content)


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


@contextlib.contextmanager
def _keyboard_unedited() -> Iterator[None]:
    """Every key, Ctrl-C among them, is for the terminal in the container, which echoes and edits."""
    keyboard = sys.stdin.fileno()
    modes = termios.tcgetattr(keyboard)
    tty.setraw(keyboard, termios.TCSADRAIN)  # what was typed meanwhile is not lost
    try:
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, modes)


async def _follow_window(container: Container, exec_id: str) -> None:
    """Have the terminal in the container as large as ours, from now on."""
    changed = asyncio.Event()
    changed.set()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, changed.set)
    try:
        while True:
            await changed.wait()
            changed.clear()
            for _ in range(_RESIZE_TRIES):  # the Engine refuses while the process is still being started
                columns, rows = os.get_terminal_size(sys.stdout.fileno())
                try:
                    await container.engine.resize_exec(exec_id, rows=rows, columns=columns)
                    break
                except FleetestError:
                    await asyncio.sleep(_RESIZE_PAUSE_SECONDS)
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
