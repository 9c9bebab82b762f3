"""Who works here and how much: the registry, and for workers whose streams this master holds, what it gave them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from fleetest.master.queue.ports import Presence, WorkerRegistry
from fleetest.master.sessions import Sessions

__all__ = ["Roster"]


class Roster:
    """The registry is as old as each worker's last heartbeat; what is assigned since then is only known here."""

    def __init__(self, registry: WorkerRegistry, sessions: Sessions) -> None:
        self._registry = registry
        self._sessions = sessions

    async def list(self) -> Sequence[Presence]:
        """
        As `WorkerRegistry.list`.

        Raises:
            DependencyUnavailable: Redis does not answer.
        """
        return [self._now(worker) for worker in await self._registry.list()]

    def _now(self, worker: Presence) -> Presence:
        session = self._sessions.get(worker.worker_id)
        if session is None or session.presence.session_id != worker.session_id or worker.offline:
            return worker
        return replace(worker, slots_used=session.presence.slots_used, free=session.presence.free)
