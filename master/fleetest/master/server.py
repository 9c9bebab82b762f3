"""Puts a master together from its parts, and serves until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Final

import structlog

from fleetest.common.backoff import Backoff
from fleetest.common.clock import SystemClock
from fleetest.common.ending import end_tasks
from fleetest.common.ids import new_run_id
from fleetest.master.access.gatekeeper import Gatekeeper
from fleetest.master.access.open_streams import OpenStreams
from fleetest.master.access.principals import Audience
from fleetest.master.access.token_book import TokenBook
from fleetest.master.activity import Activity
from fleetest.master.blobs.custody import Custody
from fleetest.master.blobs.opening import open_blobs
from fleetest.master.blobs.shelf import ArtifactShelf
from fleetest.master.blobs.sweep import BlobSweep
from fleetest.master.cache.chain import LayerChain
from fleetest.master.cache.clerk import CacheClerk
from fleetest.master.cache.opening import open_layers, usable_for
from fleetest.master.cache.planning import CachedPlanning
from fleetest.master.cache.result_cache import ResultCache
from fleetest.master.cluster_clock import ClusterClock
from fleetest.master.dispatcher import Dispatcher
from fleetest.master.handing_over import HandOver
from fleetest.master.imports import Imports
from fleetest.master.input_workspaces import InputWorkspaces
from fleetest.master.leases import Leases
from fleetest.master.listening import Servicers, listen
from fleetest.master.load_records import LoadRecords
from fleetest.master.peers import Peers
from fleetest.master.planning import Planning
from fleetest.master.queue.connection import connect
from fleetest.master.queue.redis_feed import RedisCommitFeed
from fleetest.master.queue.redis_ledger import RedisResourceLedger
from fleetest.master.queue.redis_peers import RedisPeerChannel
from fleetest.master.queue.redis_queue import RedisShardQueue
from fleetest.master.queue.redis_registry import RedisWorkerRegistry
from fleetest.master.queue.redis_secrets import RedisSecretStore
from fleetest.master.queue.redis_time import RedisTime
from fleetest.master.queue.redis_turns import RedisTurns
from fleetest.master.reconciler import Reconciler
from fleetest.master.reports import Inbox
from fleetest.master.retention import Retention
from fleetest.master.roster import Roster
from fleetest.master.runs.announcer import Announcer
from fleetest.master.runs.book import RunBook
from fleetest.master.runs.events import Event
from fleetest.master.runs.hub import Hub
from fleetest.master.runs.projector import Projector
from fleetest.master.runs.recent import Recent
from fleetest.master.runs.state import RunStatus
from fleetest.master.servicers.blobs import BlobServicer
from fleetest.master.servicers.convert_events import commit_to_proto
from fleetest.master.servicers.fleet import FleetServicer
from fleetest.master.servicers.interceptors import ServerInterceptor
from fleetest.master.servicers.runs import RunServicer
from fleetest.master.servicers.workers import WorkerServicer
from fleetest.master.sessions import Sessions
from fleetest.master.settings import MasterSettings
from fleetest.master.store.opening import open_store
from fleetest.master.submission import Desk
from fleetest.master.supplying import Supplying
from fleetest.master.tail_work import TailWork
from fleetest.master.turned_down import TurnedDown
from fleetest.master.workspaces import BlobWorkspaces

__all__ = ["Master"]

_log = structlog.get_logger()

_DAY: Final = timedelta(days=1)


class Master:
    """
    Use as an asynchronous context manager: entering starts it, leaving stops it.

    Attributes:
        port: where it listens.
        worker_port: where it listens for sessions of workers, if these have a port of their own; else 0.
    """

    def __init__(self, settings: MasterSettings) -> None:
        settings.check()
        self._settings = settings
        self._stack = AsyncExitStack()
        self._loops: list[asyncio.Task[None]] = []
        self.port = self.worker_port = 0

    async def __aenter__(self) -> Master:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def run(self) -> None:
        """
        Serve. Returns when nobody needs it any more, if the settings say so.

        Raises:
            Exception: one of its loops failed, which is a defect.
        """
        idle = asyncio.create_task(self._idle(), name="idle")
        try:
            done, _ = await asyncio.wait([*self._loops, idle], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await end_tasks([idle])

    async def _idle(self) -> None:
        if self._settings.idle_exit:
            await self._activity.idle(self._store, self._settings.idle_exit)
            _log.info("idle_exit", after_seconds=self._settings.idle_exit.total_seconds())
        else:
            await asyncio.Event().wait()

    async def _start(self) -> None:
        settings = self._settings
        directory = settings.data_directory
        if directory is not None:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        redis = connect(settings.redis_url)
        self._stack.push_async_callback(redis.aclose)
        clock = ClusterClock(SystemClock(), RedisTime(redis))
        await clock.begin()
        store = self._store = await open_store(settings.mongodb_url, directory)
        self._stack.push_async_callback(store.close)
        blobs = await open_blobs(settings.blobs, settings.blobs_directory, directory)
        queue = RedisShardQueue(redis, claim_ttl=settings.claim_ttl, reserve_after=settings.reserve_after, clock=clock)
        resources = RedisResourceLedger(redis)
        registry, feed, secrets = RedisWorkerRegistry(redis), RedisCommitFeed(redis), RedisSecretStore(redis)
        hub, sessions, activity, recent = Hub(), Sessions(), Activity(clock), Recent(commit_to_proto)
        self._activity = activity
        turned_down = TurnedDown()
        roster = Roster(registry, sessions)
        projector = await self._stack.enter_async_context(Projector(store))
        layers = LayerChain(open_layers(settings, redis, clock))
        cache = ResultCache(layers, store, clock, usable_for=usable_for(settings))
        clerk = await self._stack.enter_async_context(CacheClerk(cache))
        workspaces = BlobWorkspaces(blobs, clock)
        custody = Custody(
            store, clock, workspaces_for=settings.event_retention + _DAY, artifacts_for=settings.artifact_retention
        )

        def changed(status: RunStatus, events: tuple[Event, ...]) -> None:
            clerk.take(status, events)
            supplying.look_at(status)

        def slots_are_idle() -> None:
            tail_work.slots_are_idle()

        book = RunBook(
            store=store,
            queue=queue,
            resources=resources,
            announcer=await self._stack.enter_async_context(Announcer(feed)),
            secrets=secrets,
            projector=projector,
            hub=hub,
            sessions=sessions,
            clock=clock,
            backoff=Backoff(),
            turns=RedisTurns(redis),
            giver=HandOver(sessions, turned_down, slots_are_idle),
            on_queue=turned_down.hear_news,
            on_commit=recent.add,
            on_change=changed,
        )
        inputs = InputWorkspaces(workspaces, blobs, custody)
        supplying = Supplying(book, inputs)
        tail_work = TailWork(sessions, book, clock)
        dispatcher = Dispatcher(sessions, queue, book, secrets, resources, turned_down, tail_work.slots_are_idle)
        peers = Peers(RedisPeerChannel(redis), registry, hub, sessions, dispatcher.hear_of_worker, layers.drop)
        cache.on_invalidated(peers.cache_dropped)
        reconciler = Reconciler(
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
            interval=settings.reconcile_interval,
            lease_ttl=settings.lease_ttl,
            on_look=supplying.look_at,
        )
        sweep = BlobSweep(blobs, store, clock)
        desk = Desk(
            store=store,
            book=book,
            projector=projector,
            secrets=secrets,
            workspaces=workspaces,
            custody=custody,
            inputs=inputs,
            clock=clock,
            new_id=lambda: new_run_id(clock.now()),
            default_image=settings.default_image,
            pools=settings.pools,
        )
        imports = Imports(
            store=store, book=book, projector=projector, clock=clock, new_id=lambda: new_run_id(clock.now())
        )
        tokens = TokenBook(store, clock, memory=settings.token_memory)
        streams = OpenStreams(tokens, settings.token_memory)
        gatekeeper = Gatekeeper(_root_tokens(settings), tokens)
        servicers = Servicers(
            runs=RunServicer(
                desk=desk,
                imports=imports,
                store=store,
                book=book,
                projector=projector,
                hub=hub,
                recent=recent,
                roster=roster,
                queue=queue,
                resources=resources,
                cache=cache,
                shelf=ArtifactShelf(custody, blobs, sweep.look_soon),
                activity=activity,
            ),
            workers=WorkerServicer(
                registry=registry,
                sessions=sessions,
                inbox=Inbox(
                    store,
                    book,
                    CachedPlanning(Planning(store, registry, workspaces), cache),
                    custody,
                    LoadRecords(blobs, custody),
                    clock,
                    peers.output_grew,
                ),
                leases=Leases(store, book),
                clock=clock,
                tokens=tokens,
                lease_ttl=settings.lease_ttl,
                on_attached=peers.worker_changed,
                on_change=dispatcher.hear_of_worker,
                on_replaced=reconciler.look_soon,
            ),
            fleet=FleetServicer(registry, roster, sessions, store, tokens, streams.look_now, peers, dispatcher.wake),
            blobs=BlobServicer(blobs, custody),
        )
        ports = await listen(servicers, settings, ServerInterceptor(gatekeeper, activity, streams), self._stack)
        self.port, self.worker_port = ports.main, ports.sessions
        _log.info(
            "master_started",
            address=settings.address,
            port=self.port,
            worker_port=self.worker_port,
            tls=settings.tls is not None,
        )
        self._loops = [
            asyncio.create_task(clock.run(), name="clock"),
            asyncio.create_task(dispatcher.run(), name="dispatcher"),
            asyncio.create_task(reconciler.run(), name="reconciler"),
            asyncio.create_task(tail_work.run(), name="tail"),
            asyncio.create_task(supplying.run(), name="inputs"),
            asyncio.create_task(_hear(feed, book), name="feed"),
            asyncio.create_task(streams.run(), name="tokens"),
            asyncio.create_task(peers.run(), name="peers"),
            asyncio.create_task(sweep.run(), name="sweep"),
            asyncio.create_task(Retention(store, clock, settings.event_retention).run(), name="retention"),
        ]
        self._stack.push_async_callback(end_tasks, self._loops)


async def _hear(feed: RedisCommitFeed, book: RunBook) -> None:
    async for notices in feed.notices():
        book.hear(notices)
        await book.pass_on_stops(notices)


def _root_tokens(settings: MasterSettings) -> Mapping[Audience, str]:
    tokens = {Audience.CLIENT: settings.client_token, Audience.WORKER: settings.join_token}
    return {audience: token.reveal() for audience, token in tokens.items() if token}
