"""
Cells that nobody uses, kept for whoever needs the like.

A container is taken by a task of the same project, image, setup, limits and network; one in a run's network by a task
of that run, and it is closed with the last of the run's services. It is then the same as a new one, since all that its
processes could have changed is undone:

- Its root is read-only, and nothing but the workspace can be written to: images that declare volumes are not kept.
- What its project keeps of compiled modules is there for a new one, too.
- Whatever ran is killed, with all that it started; only the keeper is left, which is another user's.
- `/tmp`, `/dev/shm` and `/dev/mqueue` are emptied. The rest of `/dev` and `/proc` belongs to root, and `/sys` is
  read-only. A container in which objects of System V IPC are left is not kept.
- The channel directory is emptied.
- The workspace is undone to the layer that it lies on (see `overlay`), or filled anew where it is a copy; and brought
  from there to the wanted files, should these be others.
- Environment variables, secrets too, belong to processes: they went with them. The container's own are the image's.
- Users cannot change its limits, its network or its mounts, as they have no capabilities.

What remains is no state but history: times of directories, numbers of inodes and processes, and what the kernel caches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog

from fleetest.common.errors import FleetestError
from fleetest.worker.executors.docker.cells import Cell, CellPlan

__all__ = ["WarmBounds", "WarmCells"]

_log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmBounds:
    """
    Args:
        cells: how many are kept at most.
        idle_timeout: for how long.
    """

    cells: int = 8
    idle_timeout: timedelta = timedelta(minutes=5)


class WarmCells:
    """The cells of a worker that wait to be used again. Needs a running event loop; `close` ends it."""

    def __init__(self, bounds: WarmBounds) -> None:
        self._bounds = bounds
        self._parked: dict[str, tuple[Cell, asyncio.TimerHandle]] = {}  # the longest unused first
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def take(self, plan: CellPlan, workspace_digest: str) -> Cell | None:
        """A cell that is the same as a new one of that plan and workspace, if there is one."""
        fitting = [cell for cell, _ in self._parked.values() if cell.plan == plan]
        if not fitting:
            return None
        cell = max(reversed(fitting), key=lambda cell: cell.workspace_digest == workspace_digest)
        self._withdraw(cell)
        try:
            await cell.renew(workspace_digest)
        except FleetestError as error:
            _log.warning("container_not_renewed", container=cell.container.name, reason=error.message)
            await _close(cell)
            return None
        except BaseException:
            await _close(cell)
            raise
        return cell

    async def park(self, cell: Cell) -> None:
        """Keep a cell, or close it."""
        if self._closed or not self._bounds.cells or not await _is_clean(cell):
            await cell.close()
            return
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._bounds.idle_timeout.total_seconds(), self._expire, cell)
        self._parked[cell.container.name] = (cell, timer)
        if self._closed:
            await self.empty()
        while len(self._parked) > self._bounds.cells:
            oldest, _ = next(iter(self._parked.values()))
            self._expire(oldest)  # whoever waits for the slot need not wait for that

    async def empty(self, run_network: str = "") -> None:
        """Close all that are kept now, or those of one run's network."""
        cells = [cell for cell, _ in self._parked.values() if run_network in {"", cell.plan.run_network}]
        for cell in cells:
            self._withdraw(cell)
        await asyncio.gather(*(_close(cell) for cell in cells))

    def release(self) -> None:
        """The same, soon."""
        self._spawn(self.empty())

    async def close(self) -> None:
        """Close all, and keep none any more."""
        self._closed = True
        await self.empty()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _expire(self, cell: Cell) -> None:
        self._withdraw(cell)
        self._spawn(_close(cell))

    def _withdraw(self, cell: Cell) -> None:
        _, timer = self._parked.pop(cell.container.name)
        timer.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _is_clean(cell: Cell) -> bool:
    try:
        return await cell.clean()
    except FleetestError as error:
        _log.warning("container_not_kept", container=cell.container.name, reason=error.message)
        return False


async def _close(cell: Cell) -> None:
    try:
        await cell.close()
    except FleetestError as error:  # it is an orphan now, and removed when the Engine is back
        _log.warning("container_close_failed", container=cell.container.name, reason=error.message)
