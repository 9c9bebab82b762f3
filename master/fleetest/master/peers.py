"""
What a master learns on its own streams, told to the other masters.

The log is common to all masters, but output is no part of it, a worker's stream is held by one master alone, and the
registry is only as new as each worker's last heartbeat. Words are pointers: whoever hears one looks into the store or
the registry. They may be lost; then the next heartbeat, or the next look of a follower or of the reconciler, finds out.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Final

import structlog

from fleetest.common.ending import end_tasks
from fleetest.common.errors import FleetestError
from fleetest.master.queue.ports import PeerChannel, PeerWord, WorkerRegistry
from fleetest.master.runs.hub import Hub
from fleetest.master.sessions import Sessions

__all__ = ["Peers"]

_log = structlog.get_logger()

INTERVAL: Final = timedelta(milliseconds=50)
"""Words of so long are told as one."""

_NOTES_INTERVAL: Final = timedelta(milliseconds=250)
"""Slots and room change with each attempt; to write that down costs as much as several attempts do."""


class Peers:
    """
    Args:
        on_change: called when a worker here may take work no more.
        drop_cached: forgets what is cached in a scope; never raises.
    """

    def __init__(
        self,
        channel: PeerChannel,
        registry: WorkerRegistry,
        hub: Hub,
        sessions: Sessions,
        on_change: Callable[[], None],
        drop_cached: Callable[[str], Awaitable[None]],
    ) -> None:
        self._drop_cached = drop_cached
        self._channel = channel
        self._registry = registry
        self._hub = hub
        self._sessions = sessions
        self._on_change = on_change
        self._name = secrets.token_hex(8)
        self._output_of: set[str] = set()
        self._workers: set[str] = set()
        self._dropped: set[str] = set()
        self._wake = asyncio.Event()

    def output_grew(self, run_ids: Iterable[str]) -> None:
        """Wake those who follow the output of these runs, here and elsewhere."""
        for run_id in run_ids:
            self._output_of.add(run_id)
            self._hub.ring(run_id)
        self._wake.set()

    def worker_changed(self, worker_id: str) -> None:
        """The registry says something new of a worker whose stream another master may hold."""
        self._workers.add(worker_id)
        self._wake.set()

    def cache_dropped(self, scope: str) -> None:
        """What the other masters have cached in this scope does not count any more."""
        self._dropped.add(scope)
        self._wake.set()

    async def run(self) -> None:
        """Tell and hear, until cancelled."""
        loops = [
            asyncio.create_task(self._tell_for_ever(), name="peers told"),
            asyncio.create_task(self._note_for_ever(), name="slots noted"),
            asyncio.create_task(self._hear(), name="peers heard"),
        ]
        try:
            await asyncio.gather(*loops)
        finally:
            await end_tasks(loops)

    async def _tell_for_ever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            word = PeerWord(
                by=self._name,
                output_of=tuple(self._output_of),
                workers=tuple(self._workers),
                dropped=tuple(self._dropped),
            )
            self._output_of, self._workers, self._dropped = set(), set(), set()
            try:
                await self._channel.tell(word)
            except FleetestError as error:
                _log.warning("peers_not_told", error=str(error))
            await asyncio.sleep(INTERVAL.total_seconds())  # lets words gather; not a wait for anything

    async def _note_for_ever(self) -> None:
        """Let the registry know what workers here were given and have ended."""
        while True:
            changed = await self._sessions.changes()
            try:
                await self._registry.note([session.presence for session in changed])
            except FleetestError as error:
                _log.warning("slots_not_noted", error=str(error))
            await asyncio.sleep(_NOTES_INTERVAL.total_seconds())  # likewise

    async def _hear(self) -> None:
        async for word in self._channel.words():
            if word.by == self._name:
                continue
            for run_id in word.output_of:
                self._hub.ring(run_id)
            for scope in word.dropped:
                await self._drop_cached(scope)
            for worker_id in word.workers:
                try:
                    await self._look_at(worker_id)
                except FleetestError as error:
                    _log.warning("worker_not_looked_at", worker_id=worker_id, error=str(error))

    async def _look_at(self, worker_id: str) -> None:
        session = self._sessions.get(worker_id)
        if session is None:
            return
        known = await self._registry.get(worker_id)
        if known is not None:
            session.hear_from_registry(known)
            self._on_change()
