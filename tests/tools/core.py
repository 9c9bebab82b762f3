"""The core of a master, put together as `server.py` does, without gRPC: on a real Redis and a real SQLite."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import Redis

from fleetest.common.backoff import Backoff
from fleetest.common.clock import ManualClock
from fleetest.common.directory_blob_store import DirectoryBlobStore
from fleetest.common.ids import new_run_id, new_token
from fleetest.common.tasks import Resources, Task
from fleetest.master.blobs.custody import Custody
from fleetest.master.cache.chain import LayerChain
from fleetest.master.cache.clerk import CacheClerk
from fleetest.master.cache.layers import CacheStrategy
from fleetest.master.cache.memory_layer import MemoryLayer
from fleetest.master.cache.planning import CachedPlanning
from fleetest.master.cache.redis_layer import RedisLayer
from fleetest.master.cache.result_cache import ResultCache
from fleetest.master.dispatcher import Dispatcher
from fleetest.master.handing_over import HandOver
from fleetest.master.imports import Imports
from fleetest.master.input_workspaces import InputWorkspaces
from fleetest.master.leases import Leases
from fleetest.master.load_records import LoadRecords
from fleetest.master.peers import Peers
from fleetest.master.planning import Planning
from fleetest.master.queue.connection import connect
from fleetest.master.queue.ports import Presence
from fleetest.master.queue.redis_feed import RedisCommitFeed
from fleetest.master.queue.redis_ledger import RedisResourceLedger
from fleetest.master.queue.redis_peers import RedisPeerChannel
from fleetest.master.queue.redis_queue import RedisShardQueue
from fleetest.master.queue.redis_registry import RedisWorkerRegistry
from fleetest.master.queue.redis_secrets import RedisSecretStore
from fleetest.master.reconciler import Reconciler
from fleetest.master.reports import Inbox, Report
from fleetest.master.runs.announcer import Announcer
from fleetest.master.runs.book import RunBook
from fleetest.master.runs.events import Event
from fleetest.master.runs.hub import Hub
from fleetest.master.runs.projector import Projector
from fleetest.master.runs.state import RunStatus
from fleetest.master.sessions import Assign, Assigned, AttemptRef, Instruction, Session, Sessions, Want
from fleetest.master.store.sqlite import SqliteStore
from fleetest.master.submission import Desk
from fleetest.master.supplying import Supplying
from fleetest.master.tail_work import TailWork
from fleetest.master.turned_down import TurnedDown
from fleetest.master.workspaces import BlobWorkspaces
from tests.tools.story import submitted

LEASE_TTL = timedelta(seconds=15)
INTERVAL = timedelta(seconds=2)
CACHE_TTL = timedelta(days=1)
BUSY_TIMEOUT = timedelta(milliseconds=150)
CAPACITY = Resources(cpu_millis=8000, memory_bytes=8 << 30, disk_bytes=8 << 30)


@dataclass(kw_only=True)
class Core:
    """One master's parts. `clock` is theirs; leases and claims in Redis run by Redis's own."""

    path: Path
    clock: ManualClock
    redis: Redis
    store: SqliteStore
    queue: RedisShardQueue
    resources: RedisResourceLedger
    registry: RedisWorkerRegistry
    secrets: RedisSecretStore
    feed: RedisCommitFeed
    blobs: DirectoryBlobStore
    hub: Hub
    sessions: Sessions
    projector: Projector
    book: RunBook
    dispatcher: Dispatcher
    tail_work: TailWork
    reconciler: Reconciler
    desk: Desk
    imports: Imports
    inbox: Inbox
    peers: Peers
    leases: Leases
    cache: ResultCache
    clerk: CacheClerk
    custody: Custody
    inputs: InputWorkspaces
    supplying: Supplying

    async def submit(self, *tasks: Task, secrets: dict[str, str] | None = None, **settings: Any) -> str:
        run_id = new_run_id()
        await self.secrets.put(run_id, secrets or {}, ttl=timedelta(hours=1))
        await self.book.keeper(run_id).ask(lambda decider: decider.submit(submitted(*tasks, **settings)))
        await self.projector.flush(run_id)
        return run_id

    async def status(self, run_id: str) -> RunStatus:
        return await self.book.keeper(run_id).status()

    async def register(self, worker_id: str = "w1", **settings: Any) -> Presence:
        now = self.clock.now()
        defaults: dict[str, Any] = {
            "capabilities": {},
            "slots": 4,
            "capacity": CAPACITY,
            "free": CAPACITY,
            "session_id": new_token(),
            "instance": f"{worker_id}-1",
        }
        presence = Presence(
            worker_id=worker_id,
            version="0",
            hostname="host",
            registered_at=now,
            last_seen_at=now,
            **(defaults | settings),
        )
        await self.registry.register(presence, lease_ttl=LEASE_TTL)
        return presence

    async def connect(self, worker_id: str = "w1", *, shards: int = 4, **settings: Any) -> Session:
        """A worker with an open stream, which wants work."""
        session = Session(await self.register(worker_id, **settings))
        self.sessions.add(session)
        if shards:
            session.ask(Want(number=1, shards=shards, free=session.presence.free))
        return session

    def hear_from(self, session: Session) -> None:
        """As after a heartbeat."""
        session.presence = msgspec.structs.replace(session.presence, last_seen_at=self.clock.now())

    async def assigned(self, session: Session) -> list[Assigned]:
        """Dispatch once, and answer what the worker was told to do."""
        await self.dispatcher.dispatch()
        return [each for told in instructions(session) if isinstance(told, Assign) for each in told.assigned]

    async def report(self, ref: AttemptRef, *contents: Any) -> frozenset[AttemptRef]:
        return await self.inbox.take([Report(ref=ref, content=content) for content in contents])


def instructions(session: Session) -> list[Instruction | None]:
    """What waits to be sent to the worker."""
    told = []
    while not session.instructions.empty():
        told.append(session.instructions.get_nowait())
    return told


@asynccontextmanager
async def open_core(
    path: Path, redis_url: str, *, busy_timeout: timedelta = BUSY_TIMEOUT, turned_down: TurnedDown | None = None
) -> AsyncIterator[Core]:
    """
    Args:
        turned_down: those in it are given work directly; `None` lets everything go through the queue.
    """
    clock = ManualClock(datetime.now(UTC))
    backoff = Backoff(fraction=lambda: 1.0)
    async with AsyncExitStack() as stack:
        redis = connect(redis_url)
        stack.push_async_callback(redis.aclose)
        store = await stack.enter_async_context(
            await SqliteStore.open(path / "fleetest.sqlite", busy_timeout=busy_timeout)
        )
        blobs = DirectoryBlobStore(path / "blobs")
        minute = timedelta(minutes=1)
        queue = RedisShardQueue(redis, claim_ttl=minute, reserve_after=minute, clock=clock)
        resources = RedisResourceLedger(redis)
        registry, feed, secrets = RedisWorkerRegistry(redis), RedisCommitFeed(redis), RedisSecretStore(redis)
        hub, sessions = Hub(), Sessions()
        projector = await stack.enter_async_context(Projector(store))
        strategy = CacheStrategy(ttl=CACHE_TTL, max_bytes=1 << 20)
        layers = LayerChain([MemoryLayer(strategy, clock), RedisLayer(redis, strategy, clock)])
        cache = ResultCache(layers, store, clock, usable_for=CACHE_TTL)
        clerk = await stack.enter_async_context(CacheClerk(cache))
        workspaces = BlobWorkspaces(blobs, clock)
        custody = Custody(store, clock, workspaces_for=timedelta(days=30), artifacts_for=timedelta(days=90))

        def changed(status: RunStatus, events: tuple[Event, ...]) -> None:
            clerk.take(status, events)
            supplying.look_at(status)

        book = RunBook(
            store=store,
            queue=queue,
            resources=resources,
            announcer=await stack.enter_async_context(Announcer(feed)),
            secrets=secrets,
            projector=projector,
            hub=hub,
            sessions=sessions,
            clock=clock,
            backoff=backoff,
            giver=HandOver(sessions, turned_down) if turned_down is not None else None,
            on_queue=turned_down.hear_news if turned_down is not None else lambda: None,
            on_change=changed,
        )
        inputs = InputWorkspaces(workspaces, blobs, custody)
        supplying = Supplying(book, inputs)
        tail_work = TailWork(sessions, book, clock)
        dispatcher = Dispatcher(sessions, queue, book, secrets, resources, turned_down or TurnedDown())
        peers = Peers(RedisPeerChannel(redis), registry, hub, sessions, dispatcher.hear_of_worker, layers.drop)
        cache.on_invalidated(peers.cache_dropped)
        yield Core(
            path=path / "fleetest.sqlite",
            clock=clock,
            redis=redis,
            store=store,
            queue=queue,
            resources=resources,
            registry=registry,
            secrets=secrets,
            feed=feed,
            blobs=blobs,
            hub=hub,
            sessions=sessions,
            projector=projector,
            book=book,
            dispatcher=dispatcher,
            tail_work=tail_work,
            reconciler=Reconciler(
                store=store,
                queue=queue,
                resources=resources,
                registry=registry,
                secrets=secrets,
                book=book,
                projector=projector,
                dispatcher=dispatcher,
                sessions=sessions,
                clock=clock,
                interval=INTERVAL,
                lease_ttl=LEASE_TTL,
                on_look=supplying.look_at,
            ),
            desk=Desk(
                store=store,
                book=book,
                projector=projector,
                secrets=secrets,
                workspaces=workspaces,
                custody=custody,
                inputs=inputs,
                clock=clock,
            ),
            imports=Imports(store=store, book=book, projector=projector, clock=clock),
            inbox=Inbox(
                store,
                book,
                CachedPlanning(Planning(store, registry, workspaces), cache),
                custody,
                LoadRecords(blobs, custody),
                clock,
                peers.output_grew,
            ),
            custody=custody,
            inputs=inputs,
            supplying=supplying,
            peers=peers,
            leases=Leases(store, book),
            cache=cache,
            clerk=clerk,
        )


@contextmanager
def unwritable(path: Path) -> Iterator[None]:
    """Another process writes to the store for as long as this is open; reading goes on."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


async def until(holds: Callable[[], Awaitable[bool]], *, seconds: float = 10) -> None:
    """Poll until it holds, or fail."""
    deadline = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < deadline, "it never came to be"
        await asyncio.sleep(0.01)
