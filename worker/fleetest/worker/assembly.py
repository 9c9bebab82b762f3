"""Puts a worker together from its parts."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import structlog

from fleetest.common.clock import SystemClock
from fleetest.common.version import version
from fleetest.worker.agent import Agent
from fleetest.worker.blob_cache import BlobCache
from fleetest.worker.blob_stubs import BlobStubs
from fleetest.worker.capabilities import find_capabilities, playwright_directory
from fleetest.worker.cgroup import read_cgroup
from fleetest.worker.client_blobs import BlobClient
from fleetest.worker.executors.offered import Offered, open_executors
from fleetest.worker.host import LocalHost, capacity_of, default_slots
from fleetest.worker.identity import own_directory, persistent_worker_id
from fleetest.worker.masters import Masters
from fleetest.worker.messages import Offer
from fleetest.worker.outbox import Outbox
from fleetest.worker.ports import Blobs, Runner
from fleetest.worker.readiness import Readiness
from fleetest.worker.roster import Roster
from fleetest.worker.runners.combining import CombiningRunner
from fleetest.worker.runners.command import CommandRunner
from fleetest.worker.runners.load import LoadRunner
from fleetest.worker.runners.pytest import PytestRunner
from fleetest.worker.runners.service import ServiceRunner
from fleetest.worker.session_stream import dial, open_channel
from fleetest.worker.settings import WorkerSettings
from fleetest.worker.slot import Slot, SlotObserver
from fleetest.worker.slots import Slots
from fleetest.worker.spool import Spool
from fleetest.worker.workspaces import WorkspaceCache

__all__ = ["open_worker"]


def _runners(blobs: Blobs) -> Sequence[Runner]:
    return CombiningRunner(blobs), CommandRunner(blobs), LoadRunner(blobs), PytestRunner(blobs), ServiceRunner(blobs)


@asynccontextmanager
async def open_worker(
    settings: WorkerSettings, *, make_runners: Callable[[Blobs], Sequence[Runner]] = _runners
) -> AsyncIterator[Agent]:
    """
    An agent that is ready to run; what it uses is closed on the way out.

    Args:
        make_runners: what it knows to run; takes the blobs for those that leave some.

    Raises:
        AlreadyExists: another worker uses the directory.
        InvalidRequest, WrongState: the directory, or a file that TLS needs, cannot be used.
    """
    if settings.tls is not None:
        settings.tls.check()
    with own_directory(settings.directory):
        cache = BlobCache(settings.cache_directory or settings.directory / "cache", max_bytes=settings.cache_bytes)
        masters = Masters(settings.masters)
        async with BlobStubs(masters, settings.token, partial(open_channel, tls=settings.tls)) as stubs:
            blobs = BlobClient(stubs, cache)
            workspaces = WorkspaceCache(blobs, cache, state_directory=settings.directory / "workspaces")
            worker_id = settings.worker_id or persistent_worker_id(settings.directory)
            # Before anything is made whose tasks take the context as it is then.
            structlog.contextvars.bind_contextvars(worker_id=worker_id)
            async with open_executors(settings, workspaces, worker_id) as offered:
                spool = Spool(settings.directory / "spool")
                try:
                    yield _agent(settings, masters, worker_id, offered, make_runners(blobs), spool)
                finally:
                    spool.close()


def _agent(
    settings: WorkerSettings,
    masters: Masters,
    worker_id: str,
    offered: Offered,
    runners: Sequence[Runner],
    spool: Spool,
) -> Agent:
    clock = SystemClock()
    capacity = capacity_of(settings.directory, read_cgroup(), containers=offered.room)
    count = settings.slots or default_slots(capacity)
    outbox = Outbox(spool)

    def make_slots(observer: SlotObserver) -> Slots:
        def make_slot(number: int) -> Slot:
            return Slot(
                number,
                executors={executor.name: executor for executor in offered.executors},
                runners={runner.type: runner for runner in runners},
                observer=observer,
                idle_timeout=settings.idle_timeout,
            )

        return Slots([make_slot(number) for number in range(count)], capacity, make_slot)

    def release_idle() -> None:
        for executor in offered.executors:
            executor.release_idle()

    def make_roster(on_change: Callable[[], None]) -> Roster:
        return Roster(
            make_slots=make_slots,
            outbox=outbox,
            readiness=Readiness(clock),
            clock=clock,
            on_change=on_change,
            on_release=release_idle,
        )

    return Agent(
        offer=Offer(
            worker_id=worker_id,
            instance=secrets.token_hex(8),
            version=version(),
            hostname=socket.gethostname(),
            capabilities=find_capabilities(
                capacity,
                executors=[executor.name for executor in offered.executors],
                labels=settings.labels,
                engine_version=offered.engine_version,
                search_path=os.environ.get("PATH", os.defpath),
                playwright=playwright_directory(os.environ),
            ),
            capacity=capacity,
            slots=count,
        ),
        masters=masters,
        dial=partial(dial, token=settings.token, tls=settings.tls),
        outbox=outbox,
        make_roster=make_roster,
        host=LocalHost(clock),
        clock=clock,
        id_patience=settings.id_patience,
    )
