"""Takes into the cache what the commits of this master say."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import structlog

from fleetest.common.errors import FleetestError
from fleetest.common.states import Outcome
from fleetest.master.cache.entries import CachedCase
from fleetest.master.cache.result_cache import ResultCache
from fleetest.master.runs.events import Event, Finished, WrongHit, results_of
from fleetest.master.runs.results import KeptResult
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.task_status import TaskStatus

__all__ = ["CacheClerk"]

_log = structlog.get_logger()

INTERVAL: Final = timedelta(milliseconds=200)
"""Results of so long are taken in at once."""

_MOST_BYTES: Final = 32 << 10
"""Of a result, what the test wrote included: one that is larger is not worth the room."""

_MOST_TRIES: Final = 5
_PAUSE: Final = timedelta(seconds=1)
_LAST_WORD: Final = timedelta(seconds=5)


@dataclass(slots=True)
class _Pending:
    """What is to be taken in of one project, by key."""

    passed: defaultdict[str, dict[str, CachedCase]] = field(default_factory=lambda: defaultdict(dict))
    failed: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    wrong: set[str] = field(default_factory=set)


class CacheClerk:
    """
    Use as an asynchronous context manager; leaving it takes in what is left.

    What a master that dies has not taken in is not cached. A wrong hit that it has not banned is found when it is
    sampled again.
    """

    def __init__(self, cache: ResultCache) -> None:
        self._cache = cache
        self._pending: dict[str, _Pending] = {}
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> CacheClerk:
        self._task = asyncio.create_task(self._run(), name="cache")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._closing = True
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._task, _LAST_WORD.total_seconds())

    def take(self, status: RunStatus, events: Iterable[Event]) -> None:
        """Remember what a commit says. `status` has the commit applied."""
        for event in events:
            if isinstance(event, Finished) and status.tasks[event.task_id].cache_keys:
                self._take_cases(status, event)
            elif isinstance(event, WrongHit):
                key = status.tasks[event.task_id].cache_keys[event.file]
                self._of(status.request.project).wrong.add(key)
                self._wake.set()

    async def flush(self) -> None:
        """Take in what is remembered; what fails is said in the log, and wrong hits are tried again."""
        pending, self._pending = self._pending, {}
        for project, each in pending.items():
            for key in each.wrong:
                await self._ban(project, key)
            try:
                await self._cache.keep(project, each.passed, each.failed)
            except FleetestError as error:
                _log.warning("results_not_cached", project=project, error=str(error))

    def _take_cases(self, status: RunStatus, event: Finished) -> None:
        task = status.tasks[event.task_id]
        pending = self._of(status.request.project)
        for _, result in results_of(event):
            key = task.cache_keys.get(task.cases[result.case_id].file or result.file)
            if key is None or result.cached_from is not None:
                continue
            if result.outcome.bad:
                pending.failed[key].add(result.case_id)
            elif _is_certain(task, result):
                pending.passed[key][result.case_id] = CachedCase(
                    run_id=status.run_id, at=event.at, duration=result.duration, whole=result.whole
                )
        self._wake.set()

    def _of(self, project: str) -> _Pending:
        return self._pending.setdefault(project, _Pending())

    async def _run(self) -> None:
        while not self._closing:
            await self._wake.wait()
            self._wake.clear()
            if not self._closing:
                await asyncio.sleep(INTERVAL.total_seconds())  # lets results gather; not a wait for anything
            try:
                await self.flush()
            except Exception:  # noqa: BLE001 - the cache is a convenience: whatever it is, runs go on
                _log.exception("results_not_cached")

    async def _ban(self, project: str, key: str) -> None:
        for number in range(1, _MOST_TRIES + 1):
            try:
                await self._cache.ban(project, key)
            except FleetestError as error:
                _log.warning("wrong_hit_not_banned", project=project, key=key, tries=number, error=str(error))
                await asyncio.sleep(_PAUSE.total_seconds())  # the store is away
            else:
                return


def _is_certain(task: TaskStatus, result: KeptResult) -> bool:
    """Whether it passed at once, and nothing came in the way of the shard that ran it."""
    case = task.cases[result.case_id]
    shard = task.shards[case.shard_id]
    return (
        result.outcome is Outcome.PASSED
        and case.tries == 1
        and not case.flaky
        and not result.uncacheable
        and len(result.whole) <= _MOST_BYTES
        and not shard.mishaps
        and not shard.timeouts
    )
