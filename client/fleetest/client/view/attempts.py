"""The attempts that workers hold, and which of them occupy a slot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime

import msgspec

__all__ = ["Attempt", "LiveAttempts"]


class Attempt(msgspec.Struct, kw_only=True, gc=False):
    """
    An attempt that a worker holds.

    Args:
        since: when it got it.
        running: its environment is ready and tests run; before, it is being prepared, or waits its turn.
    """

    task_id: str
    worker_id: str
    since: datetime
    running: bool = False


class LiveAttempts:
    """
    The attempts that have begun and not ended.

    A worker may hold one more than it has slots: the next one is handed to it while the last case of the one before
    is still held back. Only those that run occupy a slot and, on a worker where none does, the oldest: its
    environment is being prepared.
    """

    def __init__(self) -> None:
        self._by_shard: dict[str, Attempt] = {}

    def __bool__(self) -> bool:
        return bool(self._by_shard)

    def start(self, shard_id: str, attempt: Attempt) -> None:
        """The shard has a new attempt, whatever became of the one before; it is the youngest of all."""
        self._by_shard.pop(shard_id, None)
        self._by_shard[shard_id] = attempt

    def run(self, shard_id: str) -> Attempt | None:
        """Its environment is ready; answers the attempt, if there is one."""
        attempt = self._by_shard.get(shard_id)
        if attempt is not None:
            attempt.running = True
        return attempt

    def end(self, shard_id: str) -> None:
        """Idempotent."""
        self._by_shard.pop(shard_id, None)

    def end_all_of(self, task_id: str) -> None:
        """The task holds nothing any more. Idempotent."""
        self._by_shard = {
            shard_id: attempt for shard_id, attempt in self._by_shard.items() if attempt.task_id != task_id
        }

    def occupying(self) -> Iterator[Attempt]:
        """Those that occupy a slot, in the order in which they began."""
        busy = {attempt.worker_id for attempt in self._by_shard.values() if attempt.running}
        for attempt in self._by_shard.values():
            if attempt.running:
                yield attempt
            elif attempt.worker_id not in busy:
                busy.add(attempt.worker_id)
                yield attempt

    def slots_by_task(self) -> Counter[str]:
        """How many slots each task occupies."""
        return Counter(attempt.task_id for attempt in self.occupying())

    def preparing_since(self) -> dict[str, datetime]:
        """The tasks of which nothing runs yet while an environment is being prepared, and since when."""
        tasks: dict[str, datetime] = {}
        running = set()
        for attempt in self.occupying():
            if attempt.running:
                running.add(attempt.task_id)
            else:
                tasks.setdefault(attempt.task_id, attempt.since)
        return {task_id: since for task_id, since in tasks.items() if task_id not in running}
