"""A master for tests of the agent: speaks the real protocol over real gRPC, and does what the test says."""

from __future__ import annotations

import asyncio
import copy
from contextlib import asynccontextmanager
from datetime import timedelta

import grpc

from fleetest.common.convert import attempts_done_in, duration_to_proto
from fleetest.v1 import types_pb2, worker_pb2, worker_pb2_grpc

PATIENCE_SECONDS = 20


class ScriptedMaster(worker_pb2_grpc.WorkerServiceServicer):
    """
    Answers wants from its backlog and heartbeats, and acknowledges reports, unless told not to.

    Attributes:
        heard: every message of every session, in order.
        registrations: every request, with its metadata.
    """

    def __init__(self, *, patience_seconds=PATIENCE_SECONDS):
        self._patience_seconds = patience_seconds
        self.heard = []
        self.registrations = []
        self.hellos = []
        self.backlog = []
        self.refusals = []
        self.forget = []
        self.acknowledges = True
        self.answers = True
        self.hears = True
        self.heartbeat_interval = timedelta(milliseconds=50)
        self.lease_ttl = timedelta(seconds=5)
        self._specs = {}
        self._sessions = []
        self._want = None
        self._something = asyncio.Condition()

    # -- what a test says

    def enqueue(self, *cases, **what):
        """Put a shard into the backlog, and give it out if somebody wants it."""
        assignment = self.put_by(*cases, **what)
        self.backlog.append(assignment)
        if self._want is not None and self._want.shards > 0:
            self._answer()
        return assignment.attempt

    def put_by(
        self, *cases, shard="unit#0", token=1, run="r1", key="env", secrets=None, reserve=None, follows=False, **spec
    ):
        """Have a shard to assign."""
        ref = types_pb2.AttemptRef(run_id=run, shard_id=shard, token=token)
        spec_id = f"{run}/{key}"
        self._specs[spec_id] = worker_pb2.TaskSpec(
            spec_id=spec_id, environment_key=key, task_id="unit", type=spec.pop("type", "echo"), **spec
        )
        return worker_pb2.Assignment(
            attempt=ref,
            task_id="unit",
            spec_id=spec_id,
            kind=types_pb2.SHARD_KIND_EXECUTE,
            number=1,
            case_ids=cases,
            secrets=secrets or {},
            reserve=reserve,
            follows=follows,
        )

    def say(self, **message):
        self._sessions[-1].put_nowait(worker_pb2.MasterMessage(**message))

    def assign(self, *assignments, want_number=0):
        """Give work out that nobody asked for."""
        specs = [self._specs[each.spec_id] for each in assignments if each.spec_id in self._specs]
        self.say(assign=worker_pb2.Assign(want_number=want_number, assignments=assignments, specs=specs))

    def break_stream(self, code=grpc.StatusCode.UNAVAILABLE):
        self._want = None
        self._sessions[-1].put_nowait(code)

    # -- what a test waits for

    async def until(self, condition):
        """Wait until the condition holds, looking after every message."""
        async with asyncio.timeout(self._patience_seconds):
            async with self._something:
                await self._something.wait_for(condition)

    def of(self, kind):
        return [getattr(message, kind) for message in self.heard if message.WhichOneof("message") == kind]

    def wants(self):
        """What was wanted, by itself or besides reports."""
        besides = [batch.want for batch in self.of("reports") if batch.HasField("want")]
        return [*self.of("want"), *besides]

    def reports(self, shard=None):
        """What short attempts told at once, one after the other."""
        reports = [report for batch in self.of("reports") for report in (*batch.reports, *_parted(batch))]
        return [report for report in reports if shard in {None, report.attempt.shard_id}]

    def results(self, shard=None):
        reports = [report for report in self.reports(shard) if report.WhichOneof("report") == "results"]
        return [(case.case_id, case.outcome) for report in reports for case in report.results.results]

    def ends(self):
        return {r.attempt.shard_id: r.ended for r in self.reports() if r.WhichOneof("report") == "ended"}

    async def ended(self, shard="unit#0"):
        await self.until(lambda: shard in self.ends())
        return self.ends()[shard]

    async def wanted(self, shards):
        await self.until(lambda: self._want is not None and self._want.shards == shards)
        return self._want

    # -- the service

    async def Register(self, request, context):  # noqa: N802 - gRPC names it
        self.registrations.append((request, dict(context.invocation_metadata())))
        await self._tell()
        if self.refusals:
            await context.abort(self.refusals.pop(0), "as the test says")
        return worker_pb2.RegisterResponse(
            session_id=f"session-{len(self.registrations)}",
            lease_ttl=duration_to_proto(self.lease_ttl),
            heartbeat_interval=duration_to_proto(self.heartbeat_interval),
            sample_interval=duration_to_proto(self.heartbeat_interval),
        )

    async def Session(self, request_iterator, context):  # noqa: N802 - gRPC names it
        outgoing = asyncio.Queue()
        hello = await anext(request_iterator)
        self.hellos.append(hello.hello)
        self._sessions.append(outgoing)
        outgoing.put_nowait(worker_pb2.MasterMessage(welcome=worker_pb2.Welcome(forget=self.forget)))
        listener = asyncio.create_task(self._listen(request_iterator, outgoing))
        try:
            while (message := await outgoing.get()) is not None:
                if isinstance(message, grpc.StatusCode):
                    await context.abort(message, "as the test says")
                yield message
        finally:
            listener.cancel()

    async def _listen(self, request_iterator, outgoing):
        async for message in request_iterator:
            self.heard.append(message)
            match message.WhichOneof("message"):
                case "want":
                    self._take_want(message.want)
                case "heartbeat" if self.hears:
                    self.say(heard=worker_pb2.Heard())
                case "reports":
                    if self.acknowledges:
                        self.say(acknowledged=worker_pb2.Acknowledged(sequence=message.reports.sequence))
                    if message.reports.HasField("want"):
                        self._take_want(message.reports.want)
            await self._tell()
        outgoing.put_nowait(None)

    def _take_want(self, want):
        self._want = copy.copy(want)  # its shards grow fewer as they are given
        if self.answers:
            self._answer()

    def _answer(self):
        given, self.backlog = self.backlog[: self._want.shards], self.backlog[self._want.shards :]
        self._want.shards -= len(given)
        self.assign(*given, want_number=self._want.number)

    async def _tell(self):
        async with self._something:
            self._something.notify_all()


def _parted(batch):
    for done in batch.done:
        for shard_id, token, results, usage in attempts_done_in(done):
            attempt = types_pb2.AttemptRef(run_id=done.run_id, shard_id=shard_id, token=token)
            yield worker_pb2.Report(attempt=attempt, running=worker_pb2.Running())
            if results:
                yield worker_pb2.Report(attempt=attempt, results=worker_pb2.Results(results=results))
            ended = worker_pb2.Ended(verdict=types_pb2.VERDICT_COMPLETED, usage=usage)
            yield worker_pb2.Report(attempt=attempt, ended=ended)


@asynccontextmanager
async def serving(master):
    """Serve on a free port; answers the address."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    worker_pb2_grpc.add_WorkerServiceServicer_to_server(master, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
