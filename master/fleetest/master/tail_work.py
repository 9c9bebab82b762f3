"""
Has cases handed back to slots that are idle.

The dispatcher tells when workers want more than there is. Then the live runs that this master knows are looked at:
what is worth it is asked back by a commit to the run, after which the master that holds the worker's stream asks the
worker. Its answer is a report like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

import structlog

from fleetest.common.clock import Clock
from fleetest.common.errors import FleetestError, LeaseLost
from fleetest.master.queue.ports import Bid
from fleetest.master.runs.book import RunBook
from fleetest.master.runs.decisions import Decider
from fleetest.master.runs.keeper import RunKeeper
from fleetest.master.runs.services import required_by
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.tail import COLD_WORTH_SECONDS, WORTH_SECONDS, Request, TailLook, look_at_tail
from fleetest.master.runs.task_status import TaskStatus
from fleetest.master.sessions import Sessions

__all__ = ["TailWork"]

_log = structlog.get_logger()

_BREATH: Final = timedelta(milliseconds=50)
"""Between two looks: what is idle for less is about to be given something."""


@dataclass(slots=True)
class _Idle:
    """What is left of a worker's bid."""

    bid: Bid
    slots: int

    def could_run(self, status: RunStatus, task: TaskStatus) -> int:
        """How many of the task's shards."""
        capabilities = self.bid.capabilities
        if any(capabilities.get(key) != value for key, value in required_by(status, task).items()):
            return 0
        if not task.task.resources.fits(self.bid.capacity):
            return 0
        taken, room = task.packed.at_most(self.bid.capacity), self.bid.free
        number = 0
        while number < self.slots and taken.fits(room):
            number, room = number + 1, room - taken
        return number


class TailWork:
    """
    Args:
        sessions: workers whose streams this master holds.
    """

    def __init__(self, sessions: Sessions, book: RunBook, clock: Clock) -> None:
        self._sessions = sessions
        self._book = book
        self._clock = clock
        self._wake = asyncio.Event()

    def slots_are_idle(self) -> None:
        """Workers want more than waits for them."""
        self._wake.set()

    async def run(self) -> None:
        """Look when slots are idle, until cancelled."""
        again_in: float | None = None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(again_in):
                    await self._wake.wait()
            self._wake.clear()
            try:
                again_in = await self.look()
            except FleetestError as error:
                _log.warning("tail_not_looked_at", error=str(error))
                again_in = None
            await asyncio.sleep(_BREATH.total_seconds())

    async def look(self) -> float | None:
        """
        Ask back what idle slots could run; answers after how many seconds another look may find more.

        Raises:
            DependencyUnavailable, CapacityExceeded: the store does not answer.
        """
        idle = [_Idle(bid, bid.shards) for session in self._sessions if (bid := session.bid())]
        again: list[float] = []
        for keeper in self._book.live_keepers() if idle else ():
            status = await keeper.status()
            looks = [self._look_at(status, task, idle) for task in status.dealt if task.live]
            requests = [request for look in looks for request in look.requests]
            again += [look.again_in for look in looks if look.again_in is not None]
            if requests:
                await self._ask_back(keeper, requests)
        return min(again, default=None)

    def _look_at(self, status: RunStatus, task: TaskStatus, idle: Sequence[_Idle]) -> TailLook:
        able = {index: number for index, each in enumerate(idle) if (number := each.could_run(status, task))}
        if not able:
            return TailLook()
        key = status.environment_key(task)
        warm = {index: number for index, number in able.items() if key in idle[index].bid.warm_environment_keys}
        # Where coverage is measured, a slot that is idle has ended its process to know all of it.
        at_once = bool(warm) and task.task.coverage is None
        look = look_at_tail(
            task,
            self._clock.now(),
            idle=sum((warm or able).values()),
            worth_seconds=WORTH_SECONDS if at_once else COLD_WORTH_SECONDS,
            idle_speed=_mean_speed(task, [idle[index].bid.worker_id for index in warm or able]),
            slots={session.presence.worker_id: session.presence.slots for session in self._sessions},
        )
        wanted = sum(request.parts for request in look.requests)
        for index, number in (warm or able).items():
            idle[index].slots -= min(wanted, number)
            wanted -= min(wanted, number)
        return look

    async def _ask_back(self, keeper: RunKeeper, requests: Sequence[Request]) -> None:
        await keeper.ask(partial(_ask_back, requests))
        for request in requests:
            _log.info("cases_asked_back", run_id=keeper.run_id, shard_id=request.shard_id, cases=len(request.case_ids))


def _mean_speed(task: TaskStatus, worker_ids: Sequence[str]) -> float:
    return statistics.fmean(task.speeds.get(worker_id, 1.0) for worker_id in worker_ids)


def _ask_back(requests: Sequence[Request], decider: Decider) -> None:
    for request in requests:
        with contextlib.suppress(LeaseLost):  # ended meanwhile
            decider.ask_back_cases(request.shard_id, request.token, request.case_ids, request.parts)
