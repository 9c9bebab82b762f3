"""What a worker holds, by its own word and by the log: brought to agree when its stream begins."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from functools import partial

from fleetest.common.errors import InvalidRequest, LeaseLost, NotFound
from fleetest.common.states import RunState, Verdict
from fleetest.master.queue.ports import Presence
from fleetest.master.runs.book import RunBook
from fleetest.master.runs.decisions import Decider
from fleetest.master.runs.state import RunStatus
from fleetest.master.sessions import AttemptRef
from fleetest.master.store.ports import RunQuery, Store

__all__ = ["Leases"]

_PAGE = 200


class Leases:
    """Settles who has what."""

    def __init__(self, store: Store, book: RunBook) -> None:
        self._store = store
        self._book = book

    async def settle(self, worker: Presence, held: Collection[AttemptRef]) -> Sequence[AttemptRef]:
        """
        End the attempts that the log gives to the worker but it does not have: they never reached it. Answers those
        that it has but the log does not give it: it should forget them.
        """
        stale = [ref for ref in held if not await self._is_current(worker, ref)]
        before = ""
        while rows := await self._store.list_runs(RunQuery(state=RunState.RUNNING, before_run_id=before, limit=_PAGE)):
            for row in rows:
                status = await self._book.keeper(row.run_id).newest_status()
                absent = [ref for ref in _given_to(worker, status) if ref not in held]
                if absent:
                    await self._book.keeper(row.run_id).ask(partial(_end, absent))
            before = rows[-1].run_id
        return stale

    async def _is_current(self, worker: Presence, ref: AttemptRef) -> bool:
        try:
            status = await self._book.keeper(ref.run_id).newest_status()
        except (NotFound, InvalidRequest):
            return False
        shard = status.shard(ref.shard_id)
        attempt = shard.attempt if shard is not None else None
        return attempt is not None and attempt.token == ref.token and attempt.worker_id == worker.worker_id


def _given_to(worker: Presence, status: RunStatus) -> list[AttemptRef]:
    return [
        AttemptRef(run_id=status.run_id, shard_id=shard.shard_id, token=shard.attempt.token)
        for task in status.tasks.values()
        for shard in task.live_attempts
        if shard.attempt is not None
        and shard.attempt.worker_id == worker.worker_id
        and shard.attempt.instance == worker.instance
    ]


def _end(refs: Sequence[AttemptRef], decider: Decider) -> None:
    for ref in refs:
        with contextlib.suppress(LeaseLost):  # ended meanwhile
            decider.attempt_ended(ref.shard_id, ref.token, Verdict.LOST, "it never reached its worker")
