"""`WorkerService`: registration, and each worker's session stream."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import grpc
import structlog
from msgspec import structs

from fleetest.common.clock import Clock
from fleetest.common.convert import (
    artifact_from_proto,
    attempts_done_in,
    duration_to_proto,
    load_sample_from_proto,
    planned_case_from_proto,
    resource_sample_from_proto,
    resource_usage_from_proto,
    resources_from_proto,
    verdict_from_proto,
)
from fleetest.common.convert_coverage import file_coverages_from_proto
from fleetest.common.errors import DependencyUnavailable, InvalidRequest, LeaseLost
from fleetest.common.results import ResourceSample, ResourceUsage
from fleetest.master.access.principals import caller
from fleetest.master.access.token_book import TokenBook
from fleetest.master.leases import Leases
from fleetest.master.queue.ports import Presence, WorkerRegistry
from fleetest.master.reports import (
    Artifacts,
    Content,
    CoverageMeasured,
    Done,
    Ended,
    HandedBack,
    Inbox,
    Loaded,
    Output,
    Planned,
    Report,
    Results,
    Running,
)
from fleetest.master.runs.events import DoneAttempt
from fleetest.master.runs.services import WORKER
from fleetest.master.servicers.convert import (
    attempt_ref_from_proto,
    attempt_ref_to_proto,
    instruction_to_proto,
    want_from_proto,
)
from fleetest.master.servicers.convert_results import kept_result
from fleetest.master.sessions import Heard, Session, Sessions, Stop
from fleetest.v1 import worker_pb2, worker_pb2_grpc

__all__ = ["WorkerServicer"]

_log = structlog.get_logger()

_MOST_SLOTS = 1024

_RUNNING = Running()
_UNMEASURED = ResourceUsage()

_TOGETHER = timedelta(milliseconds=20)
"""For so long reports wait at most for what their worker is given next: one commit then holds both."""

_CLOCK_TOLERANCE = timedelta(seconds=2)
"""What a slow network, or a slow process, may make of clocks that agree."""


class WorkerServicer(worker_pb2_grpc.WorkerServiceServicer):
    """
    Args:
        on_attached: called with a worker's id when its stream has begun.
        on_change: called when a worker came, went, or wants work.
        on_replaced: called when a worker came back as another instance.
    """

    def __init__(
        self,
        *,
        registry: WorkerRegistry,
        sessions: Sessions,
        inbox: Inbox,
        leases: Leases,
        clock: Clock,
        tokens: TokenBook,
        lease_ttl: timedelta,
        on_attached: Callable[[str], None],
        on_change: Callable[[], None],
        on_replaced: Callable[[], None],
    ) -> None:
        self._registry = registry
        self._sessions = sessions
        self._inbox = inbox
        self._leases = leases
        self._tokens = tokens
        self._clock = clock
        self._lease_ttl = lease_ttl
        self._on_attached = on_attached
        self._on_change = on_change
        self._on_replaced = on_replaced

    async def Register(
        self, request: worker_pb2.RegisterRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> worker_pb2.RegisterResponse:
        presence = self._presence(request)
        caller().check_worker(presence.worker_id, presence.capabilities)
        await self._tokens.count_worker(caller(), presence.worker_id)
        replaced = await self._registry.register(presence, lease_ttl=self._lease_ttl)
        if replaced is not None and replaced.instance != presence.instance:
            self._on_replaced()
        _log.info("worker_registered", worker_id=presence.worker_id, slots=presence.slots, by=caller().name)
        return worker_pb2.RegisterResponse(
            session_id=presence.session_id,
            lease_ttl=duration_to_proto(self._lease_ttl),
            heartbeat_interval=duration_to_proto(self._lease_ttl / 3),
            sample_interval=duration_to_proto(self._lease_ttl / 3),
        )

    async def Session(
        self, request_iterator: AsyncIterator[worker_pb2.WorkerMessage], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[worker_pb2.MasterMessage]:
        hello = await anext(request_iterator, None)
        if hello is None or hello.WhichOneof("message") != "hello":
            raise InvalidRequest("a session begins with a Hello")
        presence = await self._attach(hello.hello.session_id)
        held = {attempt_ref_from_proto(ref) for ref in hello.hello.attempts}
        session = Session(presence, held)
        self._sessions.add(session)  # first, so that what is given to the worker from now on goes this way
        try:
            forget = await self._leases.settle(presence, held)
            session.release(forget)
            yield worker_pb2.MasterMessage(
                welcome=worker_pb2.Welcome(forget=[attempt_ref_to_proto(ref) for ref in forget])
            )
            stream = _Stream(session, self._registry, self._inbox, self._clock, self._lease_ttl, self._on_change)
            async for message in _converse(session, stream.listen(request_iterator)):
                yield message
        finally:
            self._sessions.remove(session)
            self._on_change()

    def _presence(self, request: worker_pb2.RegisterRequest) -> Presence:
        if not request.worker_id or not request.instance:
            raise InvalidRequest("a worker needs an id and an instance")
        if not 1 <= request.slots <= _MOST_SLOTS:
            raise InvalidRequest(f"a worker has between 1 and {_MOST_SLOTS} slots, not {request.slots}")
        now = self._clock.now()
        capacity = resources_from_proto(request.capacity)
        return Presence(
            worker_id=request.worker_id,
            session_id=secrets.token_hex(12),
            instance=request.instance,
            version=request.version,
            hostname=request.hostname,
            capabilities={**request.capabilities, WORKER: request.worker_id},
            capacity=capacity,
            free=capacity,
            slots=request.slots,
            registered_at=now,
            last_seen_at=now,
        )

    async def _attach(self, session_id: str) -> Presence:
        """From now on the worker is spoken with here; who held its stream before hears of it."""
        for worker in await self._registry.list():
            if worker.session_id == session_id and not worker.offline:
                caller().check_worker(worker.worker_id, worker.capabilities)
                presence = structs.replace(worker, stream=secrets.token_hex(8), last_seen_at=self._clock.now())
                await self._registry.attach(presence, lease_ttl=self._lease_ttl)
                self._on_attached(presence.worker_id)
                return presence
        raise LeaseLost("the session is not known (any more)", hint="register again")


async def _converse(session: Session, listening: Coroutine[Any, Any, None]) -> AsyncIterator[worker_pb2.MasterMessage]:
    """Send what the session has to say, while somebody listens; ends with the listening."""
    listener = asyncio.create_task(listening, name=f"worker {session.presence.worker_id}")
    listener.add_done_callback(lambda _: session.instructions.put_nowait(None))
    known_specs: dict[str, None] = {}
    try:
        while (instruction := await session.instructions.get()) is not None:
            yield instruction_to_proto(instruction, known_specs)
        if not listener.done():
            raise LeaseLost(f"worker {session.presence.worker_id} opened another session")
        await listener  # raises what went wrong
    finally:
        listener.cancel()


class _Stream:
    """What one worker says, taken in."""

    def __init__(
        self,
        session: Session,
        registry: WorkerRegistry,
        inbox: Inbox,
        clock: Clock,
        lease_ttl: timedelta,
        on_change: Callable[[], None],
    ) -> None:
        self._session = session
        self._registry = registry
        self._inbox = inbox
        self._clock = clock
        self._lease_ttl = lease_ttl
        self._on_change = on_change
        self._clock_ahead = timedelta()
        self._batches: asyncio.Queue[worker_pb2.ReportBatch] = asyncio.Queue(maxsize=64)

    async def listen(self, messages: AsyncIterator[worker_pb2.WorkerMessage]) -> None:
        """
        Until the worker says goodbye or its stream ends. Reports are made durable while the next ones arrive.

        Raises:
            LeaseLost, DependencyUnavailable, InvalidRequest: the stream is to be ended with it.
        """
        reporter = asyncio.create_task(self._report(), name="reports")
        try:
            async for message in messages:
                if reporter.done():
                    break
                if not await self._hear(message):
                    break
        finally:
            reporter.cancel()
        if reporter.done() and not reporter.cancelled():
            reporter.result()

    async def _hear(self, message: worker_pb2.WorkerMessage) -> bool:
        """Answers whether to go on listening."""
        match message.WhichOneof("message"):
            case "want":
                self._session.ask(want_from_proto(message.want))
                self._on_change()
            case "heartbeat":
                self._session.instructions.put_nowait(Heard())  # first: Redis may keep the rest waiting
                await self._heartbeat(message.heartbeat)
            case "reports":
                if message.reports.HasField("want"):
                    at_once = self._session.ask_besides(want_from_proto(message.reports.want))
                    if at_once:  # else it is asked when the reports, for which somebody may wait, are in the log
                        self._on_change()
                await self._batches.put(message.reports)
            case "declined":
                await self._decline(message.declined)
            case "goodbye":
                presence = self._session.presence
                await self._registry.end(presence.worker_id, presence.session_id)
                _log.info("worker_left", worker_id=presence.worker_id, reason=message.goodbye.reason)
                return False
            case _:
                raise InvalidRequest("a message of a kind that this master does not know")
        return True

    async def _heartbeat(self, heartbeat: worker_pb2.Heartbeat) -> None:
        before, now = self._session.presence, self._clock.now()
        host = before.host
        if heartbeat.HasField("host"):
            host = self._host(resource_sample_from_proto(heartbeat.host), now)
        presence = structs.replace(
            before,
            last_seen_at=now,
            host=host,
            draining=before.draining or heartbeat.draining,
            ready=heartbeat.ready,
            not_ready_reason=heartbeat.not_ready_reason,
        )
        self._session.presence = presence
        try:
            await self._renew(presence)
        except DependencyUnavailable as error:
            # Its stream is proof enough that the worker lives; the registry hears of it when Redis is back.
            _log.warning("heartbeat_not_registered", worker_id=presence.worker_id, error=error.message)
        if presence.ready and not before.ready:
            self._on_change()

    def _host(self, sample: ResourceSample, now: datetime) -> ResourceSample:
        """A heartbeat comes as soon as it is made: it tells how far the worker's clock is ahead of the cluster's."""
        ahead = sample.at - now
        if abs(ahead - self._clock_ahead) > _CLOCK_TOLERANCE:
            self._clock_ahead = ahead
            _log.warning(
                "worker_clock_differs",
                worker_id=self._session.presence.worker_id,
                ahead_seconds=round(ahead.total_seconds(), 1),
            )
        return replace(sample, at=now)

    async def _renew(self, presence: Presence) -> None:
        try:
            await self._registry.renew(presence, lease_ttl=self._lease_ttl)
        except LeaseLost:
            known = await self._registry.get(presence.worker_id)
            if known is None or known.offline:
                # The registry forgot the worker, though its stream is right here: Redis was emptied.
                await self._registry.register(presence, lease_ttl=self._lease_ttl)
            elif known.session_id == presence.session_id and not known.stream:
                # It forgot its last second, in which the worker's stream began.
                await self._registry.attach(presence, lease_ttl=self._lease_ttl)
        known = await self._registry.get(presence.worker_id)
        if known is not None:
            self._session.hear_from_registry(known)

    async def _decline(self, declined: worker_pb2.Declined) -> None:
        ref = attempt_ref_from_proto(declined.attempt)
        await self._inbox.decline(ref, declined.reason)
        self._session.release([ref])

    async def _report(self) -> None:
        while True:
            batches = [await self._batches.get()]
            while not self._batches.empty():
                batches.append(self._batches.get_nowait())
            ahead = self._clock_ahead
            reports = [_report_from_proto(report, ahead) for batch in batches for report in batch.reports]
            done = [_done_from_proto(some, ahead) for batch in batches for some in batch.done]
            await self._session.asked(_TOGETHER)
            refused = await self._inbox.take(reports, done)
            self._session.release(report.ref for report in reports if isinstance(report.content, Ended))
            self._session.release(ref for some in done for ref in some.refs)
            if self._session.wants_more:
                self._on_change()  # what others have left to do was looked at before this was known
            if refused:
                stop = Stop(
                    refs=tuple(refused),
                    reason="the attempt is no longer this worker's",
                    grace=timedelta(seconds=5),
                    finish_running_case=False,
                )
                self._session.instructions.put_nowait(stop)
            self._session.acknowledge(batches[-1].sequence)


def _report_from_proto(message: worker_pb2.Report, clock_ahead: timedelta) -> Report:
    ref = attempt_ref_from_proto(message.attempt)
    return Report(ref=ref, content=_content(message, clock_ahead))


def _content(message: worker_pb2.Report, clock_ahead: timedelta) -> Content:
    match message.WhichOneof("report"):
        case "running":
            return _running(message.running)
        case "planned":
            return Planned(
                cases=tuple(planned_case_from_proto(case) for case in message.planned.cases),
                deselected=message.planned.deselected,
                collection_errors=tuple(kept_result(error) for error in message.planned.collection_errors),
                fingerprints=dict(message.planned.fingerprints),
            )
        case "results":
            return Results(results=tuple(kept_result(result, clock_ahead) for result in message.results.results))
        case "handed_back":
            return HandedBack(case_ids=tuple(message.handed_back.case_ids))
        case "output":
            return Output(
                offset_bytes=message.output.offset_bytes,
                content=message.output.content,
                truncated=message.output.truncated,
            )
        case "artifacts":
            return Artifacts(
                artifacts=tuple(artifact_from_proto(each) for each in message.artifacts.artifacts),
                problems=tuple(message.artifacts.problems),
            )
        case "load_sample":
            return Loaded(sample=load_sample_from_proto(message.load_sample))
        case "coverage":
            return CoverageMeasured(
                files=file_coverages_from_proto(message.coverage.files), combined=message.coverage.combined
            )
        case "ended":
            return _ended(message.ended)
        case _:
            raise InvalidRequest("a report of a kind that this master does not know")


def _done_from_proto(message: worker_pb2.DoneAttempts, clock_ahead: timedelta) -> Done:
    """Of thousands, in which there is mostly nothing but results."""
    return Done(
        run_id=message.run_id,
        attempts=[
            DoneAttempt(
                shard_id=shard_id,
                token=token,
                results=tuple([kept_result(result, clock_ahead) for result in results]),
                usage=resource_usage_from_proto(usage) if usage is not None else None,
            )
            for shard_id, token, results, usage in attempts_done_in(message)
        ],
    )


def _running(message: worker_pb2.Running) -> Running:
    return Running(variables=dict(message.variables)) if message.variables else _RUNNING


def _ended(message: worker_pb2.Ended) -> Ended:
    missing, extra = message.missing_case_ids, message.extra_case_ids
    return Ended(
        verdict=verdict_from_proto(message.verdict),
        reason=message.reason,
        usage=resource_usage_from_proto(message.usage) if message.HasField("usage") else _UNMEASURED,
        missing=tuple(missing) if missing else (),
        extra=tuple(extra) if extra else (),
    )
