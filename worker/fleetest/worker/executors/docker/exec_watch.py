"""Learns how processes in containers end, from the Engine's events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

import structlog

from fleetest.common.backoff import Backoff
from fleetest.common.errors import DependencyUnavailable, FleetestError
from fleetest.worker.executors.docker.engine import Engine, EngineEvent, EventKind

__all__ = ["ExecWatch"]

_BACKOFF: Final = Backoff(first=timedelta(milliseconds=250), longest=timedelta(seconds=5))
_LOST: Final = "the Docker Engine went away while the process ran"

_log = structlog.stdlib.get_logger()


class ExecWatch:
    """
    Tells of each process that it expects how it ended: by event, as the end of its output says nothing when a daemon
    keeps that open.

    When the Engine goes away, processes that it no longer knows are lost: waiting for them raises
    DependencyUnavailable. It then listens again as soon as the Engine is back.

    Args:
        label: `key=value` that the containers carry.
        on_return: called when the Engine is back.
    """

    def __init__(self, engine: Engine, label: str, *, on_return: Callable[[], Awaitable[None]]) -> None:
        self._engine = engine
        self._label = label
        self._on_return = on_return
        self._expected: dict[str, asyncio.Future[int]] = {}
        self._out_of_memory: dict[str, int] = {}
        self._listening = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Listen. Answers when it does."""
        self._task = asyncio.create_task(self._follow(), name="container-events")
        await self._listening.wait()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._lose_all()

    def expect(self, exec_id: str) -> asyncio.Future[int]:
        """To be called before the process is started; its exit code comes as the Engine tells it."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._expected[exec_id] = future
        future.add_done_callback(lambda _: self._expected.pop(exec_id, None))
        return future

    def out_of_memory(self, container_id: str) -> int:
        """How often the Engine has said of the container that it had no memory left."""
        return self._out_of_memory.get(container_id, 0)

    def forget(self, container_id: str) -> None:
        self._out_of_memory.pop(container_id, None)

    async def look(self, exec_id: str) -> None:
        """Ask the Engine about a process, in case its event never came."""
        future = self._expected.get(exec_id)
        if future is None or future.done():
            return
        try:
            exit_code = await self._engine.exec_exit_code(exec_id)
        except FleetestError:
            _lose(future)
        else:
            if exit_code is not None and not future.done():
                future.set_result(exit_code)

    async def _follow(self) -> None:
        failures = 0
        while True:
            try:
                stream = await self._engine.events(self._label)
            except FleetestError:
                failures += 1
                await asyncio.sleep(_BACKOFF.delay(failures).total_seconds())
                continue
            try:
                if self._listening.is_set():
                    await self._look_at_all()
                    await self._return()
                self._listening.set()
                failures = 0
                async for event in stream:
                    self._take(event)
            finally:
                stream.close()
            _log.warning("docker_engine_lost")
            await self._look_at_all()

    def _take(self, event: EngineEvent) -> None:
        match event.kind:
            case EventKind.EXEC_ENDED:
                future = self._expected.get(event.exec_id)
                if future is not None and not future.done():
                    future.set_result(event.exit_code)
            case EventKind.OUT_OF_MEMORY:
                self._out_of_memory[event.container_id] = self.out_of_memory(event.container_id) + 1
            case EventKind.CONTAINER_ENDED:
                pass

    async def _look_at_all(self) -> None:
        for exec_id in list(self._expected):
            await self.look(exec_id)

    async def _return(self) -> None:
        _log.info("docker_engine_returned")
        try:
            await self._on_return()
        except Exception:  # noqa: BLE001 - the events that follow matter more
            _log.exception("docker_engine_return_failed")

    def _lose_all(self) -> None:
        for future in list(self._expected.values()):
            _lose(future)


def _lose(future: asyncio.Future[int]) -> None:
    if not future.done():
        future.set_exception(DependencyUnavailable(_LOST, hint="What ran then is run again."))
        future.exception()  # somebody may have stopped waiting
