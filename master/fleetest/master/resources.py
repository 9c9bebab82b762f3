"""
Makes what Redis holds of named resources agree with the log, as part of each look of the reconciler.

Redis tells what is held, and the log what should be: of an attempt that lives, whatever its task uses. What a dead
master left held is given back, and what Redis lost is held again. After Redis has lost everything nobody is given a
resource before all runs have been looked at.
"""

from __future__ import annotations

import structlog

from fleetest.common.errors import InvalidRequest, NotFound
from fleetest.master.queue.ports import ResourceHold, ResourceLedger, ResourceView
from fleetest.master.runs.book import RunBook, hold_of
from fleetest.master.runs.state import RunStatus

__all__ = ["ResourceAudit"]

_log = structlog.get_logger()


class ResourceAudit:
    """One look after the other: `begin`, `see` each run that goes on, `settle`."""

    def __init__(self, ledger: ResourceLedger, book: RunBook) -> None:
        self._ledger = ledger
        self._book = book
        self._view = ResourceView(known=True, holds=(), first_in_line={})
        self._recovery = ""
        self._complete = True
        self._live: dict[tuple[str, str], ResourceHold] = {}

    async def begin(self) -> None:
        """
        Read what is held: before the log, since what is held from now on is none of our business.

        Raises:
            DependencyUnavailable: Redis does not answer.
        """
        self._view = await self._ledger.view()
        self._recovery = "" if self._view.known else await self._ledger.recover()
        self._complete, self._live = True, {}

    def see(self, status: RunStatus) -> None:
        """A run that goes on, as the log has it since `begin`."""
        for task in status.tasks.values():
            if task.live and task.task.uses:
                holds = [hold for shard in task.live_attempts if (hold := hold_of(status, shard)) is not None]
                self._live |= {(hold.run_id, hold.shard_id): hold for hold in holds}

    def miss(self) -> None:
        """A run could not be read: what its attempts hold is not known."""
        self._complete = False

    async def settle(self) -> None:
        """
        Give back and hold what differs.

        Raises:
            DependencyUnavailable: Redis, or the store, does not answer.
        """
        held = {(hold.run_id, hold.shard_id): hold for hold in self._view.holds}
        over = [hold for shard, hold in held.items() if hold.token and not await self._lives(shard, hold)]
        lost = [hold for shard, hold in self._live.items() if shard not in held]
        if over:
            _log.info("resources_given_back", holds=len(over))
            await self._ledger.give_back(over)
        if self._recovery:
            if self._complete:
                known = await self._ledger.restore(lost, recovery=self._recovery)
                _log.info("resources_recovered", holds=len(lost), known=known)
        elif lost:
            _log.info("resources_held_again", holds=len(lost))
            await self._ledger.restore(lost)

    async def _lives(self, shard: tuple[str, str], hold: ResourceHold) -> bool:
        live = self._live.get(shard)
        if live is None:  # of a run that has ended, or was not listed yet
            live = await self._look_up(hold)
        return live is not None and live.token == hold.token

    async def _look_up(self, hold: ResourceHold) -> ResourceHold | None:
        try:
            status = await self._book.keeper(hold.run_id).newest_status()
        except (NotFound, InvalidRequest):
            return None
        shard = status.shard(hold.shard_id)
        return hold_of(status, shard) if shard is not None else None
