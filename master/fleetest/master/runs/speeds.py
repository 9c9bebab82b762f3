"""
What is known of the speeds of workers, in the store: for each project one document, since one suite waits for the disk
and another for the processor.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from fleetest.master.runs.calibration import Measure, Speed, learn
from fleetest.master.store.ports import Documents

__all__ = ["SpeedBook"]

_KIND: Final = "worker_speeds"
_MOST_WORKERS: Final = 500
"""Of a project: machines come and go, and their names with them. Those learnt of last are kept."""

_Stored = dict[str, tuple[float, int]]  # the ones learnt of last are at the end


class SpeedBook:
    """Reads and writes the speeds of workers."""

    def __init__(self, store: Documents) -> None:
        self._store = store

    async def of_project(self, project: str) -> Mapping[str, Speed]:
        """
        By worker id. Those of which nothing is known are left out.

        Raises:
            DependencyUnavailable: the store cannot be read.
        """
        return _decoded(await self._store.get_document(_KIND, project) or "{}")

    async def overall(self) -> Mapping[str, float]:
        """Of each worker, the median over all projects. Raises as `of_project` does."""
        found: defaultdict[str, list[float]] = defaultdict(list)
        for _, value in await self._store.list_documents(_KIND):
            for worker_id, speed in _decoded(value).items():
                found[worker_id].append(speed.speed)
        return {worker_id: statistics.median(speeds) for worker_id, speeds in found.items()}

    async def learn(self, project: str, measures: Sequence[Measure]) -> Mapping[str, Speed]:
        """
        Take in what a run measured; answers what is known of the project's workers then.

        Raises:
            DependencyUnavailable, CapacityExceeded: the store does not take it.
        """
        if not measures:
            return await self.of_project(project)
        stored = await self._store.put_if_absent(_KIND, project, "{}")
        while True:
            known = _decoded(stored)
            learnt = learn(known, measures)
            if not learnt:
                return known
            kept = {worker_id: speed for worker_id, speed in known.items() if worker_id not in learnt} | dict(learnt)
            newest = dict(list(kept.items())[-_MOST_WORKERS:])
            if await self._store.replace_document(_KIND, project, expected=stored, value=_encoded(newest)):
                return newest
            stored = await self._store.get_document(_KIND, project) or "{}"


def _encoded(speeds: Mapping[str, Speed]) -> str:
    return msgspec.json.encode({worker_id: (each.speed, each.cases) for worker_id, each in speeds.items()}).decode()


def _decoded(value: str) -> dict[str, Speed]:
    stored = msgspec.json.decode(value, type=_Stored)
    return {worker_id: Speed(speed=speed, cases=cases) for worker_id, (speed, cases) in stored.items()}
