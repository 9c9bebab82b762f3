"""A process in a container, seen from the agent."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

import structlog

from fleetest.common.errors import CapacityExceeded, DependencyUnavailable, FleetestError, InvalidRequest
from fleetest.common.results import ResourceSample, ResourceUsage
from fleetest.worker.container_cgroup import ContainerMeter

if TYPE_CHECKING:
    from fleetest.worker.executors.docker.container import Container
    from fleetest.worker.executors.docker.engine import ExecStream

__all__ = ["ContainerProcess"]

# It says first what became of the start, then becomes the process: so its number, and its group, are the process's own.
# Both outputs go through one pipe, as the Engine would keep no order between two.
_WRAPPER: Final = """\
cd "$1" 2>/dev/null || { echo 'fleetest cwd'; exit 126; }
shift; unset OLDPWD
command -v "$1" >/dev/null 2>&1 || { echo 'fleetest command'; exit 127; }
[ -d "$HOME" ] || mkdir -p "$HOME"
echo "fleetest pid $$"
exec "$@" 2>&1
"""
_SAID: Final = re.compile(rb"fleetest (cwd|command|pid (\d+))\n")
_NO_ROOM: Final = re.compile(rb"resource temporarily unavailable|cannot allocate memory|cannot fork", re.IGNORECASE)
_SIGNALLED: Final = 128
_LAST_SIGNAL: Final = 64
_LATE_EVENT_SECONDS: Final = 1.0
_DRAIN_SECONDS: Final = 2.0

_log = structlog.stdlib.get_logger()


class ContainerProcess:
    """
    Fulfils `Process`.

    The Engine tells an exit code above 128 and a signal apart no better than a shell does: such a code counts as the
    signal's.

    Attributes:
        pid: of the main process, as the container counts.
        end_reason: why it ended, when something else than itself was the cause; empty otherwise.
    """

    def __init__(self, container: Container, output: Callable[[bytes], None]) -> None:
        self.pid = 0
        self.end_reason = ""
        self._container = container
        self._output = output
        self._meter = ContainerMeter(container.cgroup)
        self._engine_kills = container.watch.out_of_memory(container.id)
        loop = asyncio.get_running_loop()
        self._exit_code: asyncio.Future[int] = loop.create_future()
        self._said: asyncio.Future[str] = loop.create_future()
        self._preface = b""
        self._output_ended = asyncio.Event()
        self._stream: ExecStream | None = None
        self._killed = False
        self._tasks: set[asyncio.Task[Any]] = set()

    @classmethod
    async def start(
        cls,
        container: Container,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: PurePath,
        output: Callable[[bytes], None],
    ) -> ContainerProcess:
        """
        Start `argv`. Cancelled, it leaves nothing running.

        Raises:
            InvalidRequest: the command, or the directory, does not exist in the container.
            CapacityExceeded: the container has no room for one more process.
            NotFound, WrongState: the container is gone, or does not run.
            DependencyUnavailable
        """
        process = cls(container, output)
        try:
            await process._begin(argv, env, cwd)
        except BaseException:
            if process._stream is not None:
                with contextlib.suppress(FleetestError):
                    await container.clear()
                process.abandon()
            raise
        return process

    async def wait(self) -> int:
        return await asyncio.shield(self._exit_code)

    async def stop(self, grace: timedelta) -> None:
        if grace > timedelta() and not self._exit_code.done():
            await self._container.signal(signal.SIGTERM, -self.pid)  # the grace begins when it has been sent
            with contextlib.suppress(TimeoutError, DependencyUnavailable):
                await asyncio.wait_for(self.wait(), grace.total_seconds())
        if not self._exit_code.done():
            self._killed = True
            try:
                await self._container.clear()
            except FleetestError as error:
                self._lose(error)
        with contextlib.suppress(DependencyUnavailable):  # who waits for it hears of that
            await self.wait()

    def interrupt(self, signal_number: int) -> None:
        if not self._exit_code.done():
            self._spawn(self._container.signal(signal_number, self.pid))

    def read_later(self, pause: timedelta) -> None:
        """A thread of its own reads the output."""

    def sample(self) -> ResourceSample:
        return self._meter.sample()

    def usage(self) -> ResourceUsage:
        return self._meter.usage()

    def abandon(self) -> None:
        """Its container goes, or has gone."""
        if self._stream is not None:
            self._stream.close()

    async def _begin(self, argv: Sequence[str], env: Mapping[str, str], cwd: PurePath) -> None:
        container = self._container
        exec_id = await container.create_exec(["/bin/sh", "-c", _WRAPPER, "sh", str(cwd), *argv], env)
        ended = container.watch.expect(exec_id)
        try:
            self._stream = await container.engine.start_exec(exec_id, output=self._take, ended=self._output_ended.set)
        except BaseException:
            ended.cancel()
            raise
        self._spawn(self._follow(exec_id, ended))
        await asyncio.wait((self._said, self._exit_code), return_when=asyncio.FIRST_COMPLETED)
        if not self._said.done():
            await self._explain_no_start(argv)
        match self._said.result():
            case "cwd":
                raise InvalidRequest(
                    f"the working directory {cwd} does not exist in the container",
                    hint="Paths of working_directory are relative to the workspace.",
                )
            case "command":
                raise InvalidRequest(
                    f"command not found: {argv[0]}",
                    hint="It is neither in the workspace nor on the image's PATH, or it is not executable.",
                )
            case pid:
                self.pid = int(pid)

    async def _explain_no_start(self, argv: Sequence[str]) -> None:
        exit_code = await self.wait()  # raises when the Engine went away
        text = self._preface.decode(errors="replace").strip()
        if _NO_ROOM.search(self._preface):
            raise CapacityExceeded(f"{argv[0]} could not be started, the container has no room for it: {text}")
        raise DependencyUnavailable(f"{argv[0]} could not be started in the container ({exit_code}): {text}")

    def _take(self, chunk: bytes) -> None:
        if self._said.done():
            if self.pid:
                self._output(chunk)
            return
        self._preface += chunk
        found = _SAID.search(self._preface)
        if found is None:
            return
        self._said.set_result((found[2] or found[1]).decode())
        self.pid = int(found[2] or 0)
        rest = self._preface[: found.start()] + self._preface[found.end() :]
        if rest and self.pid:
            self._output(rest)

    # -- its end

    async def _follow(self, exec_id: str, ended: asyncio.Future[int]) -> None:
        try:
            exit_code = await self._learn_exit_code(exec_id, ended)
            await self._judge_memory(exit_code)
            await self._container.clear()
        except FleetestError as error:
            self._lose(error)
            return
        with contextlib.suppress(TimeoutError):
            # Only what escaped could still hold it open; it is not waited for.
            await asyncio.wait_for(self._output_ended.wait(), _DRAIN_SECONDS)
        self.abandon()
        if not self._exit_code.done():
            self._exit_code.set_result(exit_code)

    def _lose(self, error: FleetestError) -> None:
        """What became of it will never be known."""
        self._container.lose()
        self.abandon()
        if not self._exit_code.done():
            lost = error if isinstance(error, DependencyUnavailable) else DependencyUnavailable(str(error))
            self._exit_code.set_exception(lost)
            self._exit_code.exception()  # somebody may have stopped waiting

    async def _learn_exit_code(self, exec_id: str, ended: asyncio.Future[int]) -> int:
        output_ended = asyncio.ensure_future(self._output_ended.wait())
        try:
            await asyncio.wait((ended, output_ended), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await asyncio.wait([ended], timeout=_LATE_EVENT_SECONDS)
                # What could not be started at all has no event of its end.
                await self._container.watch.look(exec_id)
            code = await ended
        finally:
            output_ended.cancel()
            ended.cancel()
        return _SIGNALLED - code if _SIGNALLED < code <= _SIGNALLED + _LAST_SIGNAL else code

    async def _judge_memory(self, exit_code: int) -> None:
        """
        Raises:
            DependencyUnavailable: the machine's memory ran out, not the container's.
        """
        self._meter.usage()
        if exit_code != -signal.SIGKILL or self._killed or not self._out_of_memory():
            return
        limit_bytes = self._container.memory_limit_bytes
        if not limit_bytes or (self._container.cgroup is not None and not self._meter.hit_its_limit()):
            raise DependencyUnavailable(
                "the worker's machine ran out of memory, and the kernel killed the process",
                hint="Give tasks a memory limit (requires.memory), or the worker fewer slots.",
            )
        self.end_reason = f"out of memory: its processes reached the limit of {limit_bytes / 2**20:,.0f} MiB"
        # What the killed ones left in /tmp counts as memory too, against whatever runs next.
        await self._container.revive()

    def _out_of_memory(self) -> bool:
        if self._container.cgroup is not None:
            return self._meter.was_killed_for_memory()
        return self._container.watch.out_of_memory(self._container.id) > self._engine_kills

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
