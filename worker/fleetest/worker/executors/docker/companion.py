"""A command that is run beside the process of a container, and ends before it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fleetest.worker.executors.docker.container import Container

__all__ = ["run_beside"]

# Its number, by which its group can be ended, comes first.
_WRAPPER: Final = 'echo $$; cd "$1" || exit 126; shift; exec "$@" 2>&1'
_DRAIN_SECONDS: Final = 2.0


async def run_beside(
    container: Container,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: PurePath,
    output: Callable[[bytes], None],
) -> int:
    """See `Container.run_beside`."""
    companion = _Companion(output)
    exec_id = await container.create_exec(["/bin/sh", "-c", _WRAPPER, "sh", str(cwd), *argv], env)
    ended = container.watch.expect(exec_id)
    try:
        stream = await container.engine.start_exec(exec_id, output=companion.take, ended=companion.output_ended.set)
        try:
            exit_code = await ended
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(companion.output_ended.wait(), _DRAIN_SECONDS)
        except asyncio.CancelledError:
            if companion.pid:
                await container.signal(signal.SIGKILL, -companion.pid)
            raise
        finally:
            stream.close()
    finally:
        ended.cancel()
    return exit_code


class _Companion:
    """What is heard of it."""

    def __init__(self, output: Callable[[bytes], None]) -> None:
        self.pid = 0
        self.output_ended = asyncio.Event()
        self._output = output
        self._preface: bytes | None = b""

    def take(self, chunk: bytes) -> None:
        if self._preface is None:
            self._output(chunk)
            return
        self._preface += chunk
        number, newline, rest = self._preface.partition(b"\n")
        if newline:
            self.pid, self._preface = int(number) if number.isdigit() else 0, None
            if rest:
                self._output(rest)
