"""A process of the process executor, seen from the agent: started, watched and ended through `shim.py`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

import psutil

from fleetest.common.errors import CapacityExceeded, DependencyUnavailable
from fleetest.common.results import ResourceSample, ResourceUsage
from fleetest.worker.measure import TreeMeter
from fleetest.worker.ports import KILLED_THROUGH_PARENT

__all__ = ["ChildProcess"]

COOKIE: Final = "FLEETEST_PROCESS"
"""An environment variable by which orphans are recognised when a test has killed the shim (as Jenkins does it)."""

_SHIM = Path(__file__).with_name("shim.py")
_MEMORY_INTERVAL_SECONDS: Final = 0.5
_OUTPUT_DRAIN_SECONDS: Final = 2.0
_MUCH_BYTES: Final = 16 << 10  # a quarter of what fits into a pipe; whoever writes so much would be held up


class ChildProcess:
    """
    Fulfils `Process`.

    Attributes:
        pid: of the main process.
        end_reason: why it ended, when something else than itself was the cause; empty otherwise.
    """

    def __init__(self, shim: subprocess.Popen[bytes], control: socket.socket, cookie: str) -> None:
        self.pid = 0
        self.end_reason = ""
        self._shim = shim
        self._cookie = cookie
        self._control = control
        self._meter = TreeMeter(shim.pid)
        self._final: ResourceUsage | None = None
        self._exit_code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._output_ended = asyncio.Event()
        self._output_is_small = True  # what of it came last
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def start(
        cls,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        memory_limit_bytes: int,
        output: Callable[[bytes], None],
    ) -> ChildProcess:
        """
        Start `argv`; `memory_limit_bytes` 0 means none. A command that cannot be executed ends with 127 or 126.
        Cancelled, it leaves nothing running.

        Raises:
            CapacityExceeded: no process or descriptor is left.
            DependencyUnavailable: the process could not be started for another reason.
        """
        control, theirs = socket.socketpair()
        read_end, write_end = os.pipe()
        cookie = f"{os.getpid()}-{control.fileno()}-{os.urandom(6).hex()}"
        try:
            shim = subprocess.Popen(  # noqa: ASYNC220 - returns as soon as the small shim is loaded
                [sys.executable, "-I", "-S", str(_SHIM), str(theirs.fileno()), *argv],
                env={**env, COOKIE: cookie},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except OSError as error:
            control.close()
            os.close(read_end)
            raise _start_failure(argv, error) from error
        finally:
            theirs.close()
            os.close(write_end)
        process = cls(shim, control, cookie)
        coming = asyncio.create_task(process._watch(read_end, memory_limit_bytes, output))
        try:
            await asyncio.shield(coming)
        except asyncio.CancelledError:
            # Nobody else knows of it yet.
            with contextlib.suppress(DependencyUnavailable):
                await coming
            await process.stop(timedelta())
            raise
        return process

    @property
    def ended(self) -> bool:
        return self._exit_code.done()

    async def wait(self) -> int:
        return await asyncio.shield(self._exit_code)

    async def stop(self, grace: timedelta) -> None:
        if grace > timedelta() and not self._exit_code.done():
            self._say(f"group {signal.SIGTERM.value}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wait(), grace.total_seconds())
        self._say("kill")
        await self.wait()

    def interrupt(self, signal_number: int) -> None:
        self._say(f"signal {signal_number}")

    def read_later(self, pause: timedelta) -> None:
        if self._output_is_small and self._output_transport.is_reading():
            self._output_transport.pause_reading()
            asyncio.get_running_loop().call_later(pause.total_seconds(), self._output_transport.resume_reading)

    def sample(self) -> ResourceSample:
        return self._meter.sample()

    def usage(self) -> ResourceUsage:
        return self._final or self._meter.usage()

    def _say(self, line: str) -> None:
        if not self._exit_code.done():
            with contextlib.suppress(OSError):
                self._control.send(line.encode() + b"\n")

    async def _watch(self, read_end: int, memory_limit_bytes: int, output: Callable[[bytes], None]) -> None:
        loop = asyncio.get_running_loop()
        pipe = os.fdopen(read_end, "rb", 0)

        def take(content: bytes) -> None:
            self._output_is_small = len(content) < _MUCH_BYTES
            output(content)

        self._output_transport, _ = await loop.connect_read_pipe(lambda: _Output(take, self._output_ended), pipe)
        self._control.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        self._tasks.append(asyncio.create_task(self._listen()))
        if memory_limit_bytes:
            self._tasks.append(asyncio.create_task(self._guard_memory(memory_limit_bytes)))
        await self._started

    async def _listen(self) -> None:
        """Follow what the shim says until it is gone."""
        loop = asyncio.get_running_loop()
        unread, exit_code = b"", None
        while True:
            try:
                content = await loop.sock_recv(self._control, 4096)
            except OSError:
                break
            if not content:
                break
            *lines, unread = (unread + content).split(b"\n")
            for line in lines:
                exit_code = self._heard(line.decode().split(), exit_code)
        await self._finish(exit_code)

    def _heard(self, words: list[str], exit_code: int | None) -> int | None:
        if words[0] == "started":
            self.pid = int(words[1])
            if not self._started.done():
                self._started.set_result(None)
            return exit_code
        self._final = self._meter.final(
            cpu_seconds=float(words[2]),
            disk_read_bytes=int(words[3]),
            disk_written_bytes=int(words[4]),
            peak_memory_bytes=int(words[5]),
        )
        return int(words[1])

    async def _finish(self, exit_code: int | None) -> None:
        if exit_code is None:  # the shim was killed, and with it the main process
            self.end_reason = self.end_reason or KILLED_THROUGH_PARENT
            await asyncio.to_thread(self._kill_orphans)
            exit_code = -signal.SIGKILL.value
        await asyncio.to_thread(self._shim.wait)
        self._control.close()
        self._output_transport.resume_reading()
        with contextlib.suppress(TimeoutError):
            # Only what escaped the tree could still hold the pipe; it is not waited for.
            await asyncio.wait_for(self._output_ended.wait(), _OUTPUT_DRAIN_SECONDS)
        self._output_transport.close()
        for task in self._tasks[1:]:
            task.cancel()
        if not self._started.done():
            self._started.set_exception(DependencyUnavailable("the process could not be started: its shim ended"))
        self._exit_code.set_result(exit_code)

    def _kill_orphans(self) -> None:
        """Kill whatever carries our cookie, until nothing does."""
        while marked := [process for process in psutil.process_iter() if self._carries_cookie(process)]:
            for process in marked:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(marked, timeout=1)

    def _carries_cookie(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return process.environ().get(COOKIE) == self._cookie
        except (psutil.Error, OSError):
            return False

    async def _guard_memory(self, limit_bytes: int) -> None:
        while True:
            used = await asyncio.to_thread(self._meter.memory_bytes, more_than=limit_bytes)
            if used > limit_bytes:
                self.end_reason = (
                    f"out of memory: its processes used {used / 2**20:,.0f} MiB of {limit_bytes / 2**20:,.0f} MiB"
                )
                self._say("kill")
                return
            await asyncio.sleep(_MEMORY_INTERVAL_SECONDS)


class _Output(asyncio.Protocol):
    def __init__(self, output: Callable[[bytes], None], ended: asyncio.Event) -> None:
        self._output = output
        self._ended = ended

    def data_received(self, data: bytes) -> None:
        self._output(data)

    def connection_lost(self, _: Exception | None) -> None:
        self._ended.set()


def _start_failure(argv: Sequence[str], error: OSError) -> CapacityExceeded | DependencyUnavailable:
    text = f"{argv[0]} could not be started: {error.strerror}"
    if isinstance(error, BlockingIOError) or error.errno in {23, 24, 12}:
        return CapacityExceeded(text, hint="The worker has no process, descriptor or memory left.")
    return DependencyUnavailable(text)
