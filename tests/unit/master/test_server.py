"""A whole master in this process, on a real Redis and store, called by the real client and by a worker made here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import grpc
import msgspec
import pytest
from google.protobuf.duration_pb2 import Duration

from fleetest.client import AsyncClient
from fleetest.client.scan import scan_workspace
from fleetest.common.errors import (
    AlreadyExists,
    DependencyUnavailable,
    Forbidden,
    InvalidRequest,
    NotFound,
    WrongState,
)
from fleetest.common.grpc_status import error_from
from fleetest.common.settings import Secret
from fleetest.common.states import Outcome, RunState, TaskState
from fleetest.common.suite import SuiteInvalid
from fleetest.master.queue.connection import connect
from fleetest.master.queue.redis_registry import RedisWorkerRegistry
from fleetest.master.server import Master
from fleetest.master.servicers import workers
from fleetest.master.settings import MasterSettings
from fleetest.v1 import run_pb2, run_pb2_grpc, types_pb2, worker_pb2, worker_pb2_grpc

SUITE = """
version: 1
name: shop
tasks:
  unit: {args: tests}
  lint: {run: ruff check, needs: [unit]}
"""


@asynccontextmanager
async def serving(settings: MasterSettings) -> AsyncIterator[tuple[Master, asyncio.Task[None]]]:
    async with Master(settings) as master:
        running = asyncio.create_task(master.run())
        try:
            yield master, running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
def settings(tmp_path: Path, embedded_redis, request: pytest.FixtureRequest) -> MasterSettings:
    """On SQLite, where the test does not name its store: the contract tests compare the stores."""
    stores = {
        "sqlite": lambda: {"data_directory": tmp_path / "data"},
        "mongodb": lambda: {
            "data_directory": None,
            "blobs_directory": tmp_path / "blobs",
            "mongodb_url": request.getfixturevalue("mongodb_url"),
        },
    }
    return MasterSettings(
        **stores[getattr(request, "param", "sqlite")](),
        address="127.0.0.1:0",
        redis_url=embedded_redis.url,
        client_token=Secret("client"),
        join_token=Secret("join"),
        lease_ttl=timedelta(seconds=60),  # the workers here say nothing unless they are told to
        reconcile_interval=timedelta(milliseconds=100),
    )


@pytest.fixture
async def master(settings) -> AsyncIterator[Master]:
    async with serving(settings) as (master, _):
        yield master


@pytest.fixture
async def client(master) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(f"127.0.0.1:{master.port}", token="client") as client:
        yield client


on_each_store = pytest.mark.parametrize("settings", ["sqlite", "mongodb"], indirect=True)


class Worker:
    """Speaks the protocol by hand, a message at a time."""

    def __init__(self, port: int, *, token: str = "join", instance: str = "one") -> None:
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self._stub = worker_pb2_grpc.WorkerServiceStub(self._channel)
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._instance = instance
        self._sequence = 0

    async def register(self, *, slots: int = 2) -> str:
        answer = await self._stub.Register(
            worker_pb2.RegisterRequest(
                worker_id="w",
                instance=self._instance,
                slots=slots,
                hostname="host",
                capacity=types_pb2.Resources(cpu_millis=4000, memory_bytes=1 << 30, disk_bytes=1 << 30),
            ),
            metadata=self._metadata,
        )
        return answer.session_id

    async def open(self, *attempts: types_pb2.AttemptRef, session_id: str = "") -> worker_pb2.MasterMessage:
        self._call = self._stub.Session(metadata=self._metadata)
        hello = worker_pb2.Hello(session_id=session_id or await self.register(), attempts=attempts)
        await self.say(hello=hello)
        return await self.hear("welcome")

    async def say(self, **message) -> None:
        await self._call.write(worker_pb2.WorkerMessage(**message))

    async def hear(self, kind: str):
        async with asyncio.timeout(20):
            while True:
                message = await self._call.read()
                assert message is not grpc.aio.EOF, await self._call.code()
                if message.WhichOneof("message") == kind:
                    return getattr(message, kind)

    async def want(self, number: int = 1, shards: int = 2) -> worker_pb2.Assignment:
        await self.say(want=self.wish(number, shards))
        while not (assign := await self.hear("assign")).assignments:
            pass
        return assign.assignments[0]

    @staticmethod
    def wish(number: int, shards: int, *, unhurried: bool = False) -> worker_pb2.Want:
        free = types_pb2.Resources(cpu_millis=4000, memory_bytes=1 << 30, disk_bytes=1 << 30)
        return worker_pb2.Want(number=number, shards=shards, free=free, unhurried=unhurried)

    async def report(self, attempt, **report) -> None:
        self._sequence += 1
        batch = worker_pb2.ReportBatch(sequence=self._sequence, reports=[worker_pb2.Report(attempt=attempt, **report)])
        await self.say(reports=batch)
        await self.hear("acknowledged")

    async def finish(self, attempt, *case_ids: str, outcome=types_pb2.OUTCOME_PASSED) -> None:
        results = [
            types_pb2.CaseResult(case_id=case_id, outcome=outcome, duration=Duration(nanos=5)) for case_id in case_ids
        ]
        await self.report(attempt, running=worker_pb2.Running())
        await self.report(attempt, results=worker_pb2.Results(results=results))
        await self.report(attempt, ended=worker_pb2.Ended(verdict=types_pb2.VERDICT_COMPLETED))

    async def close(self) -> None:
        await self._channel.close()


@pytest.fixture
async def worker(master) -> AsyncIterator[Worker]:
    worker = Worker(master.port)
    yield worker
    await worker.close()


async def submitted(client: AsyncClient, root: Path, suite: str = SUITE, **options) -> str:
    root.mkdir(exist_ok=True)
    (root / "test_a.py").write_text("def test_a(): pass\n")
    workspace = scan_workspace(root, cache_directory=root.parent / "cache")
    await client.upload(workspace, root)
    submission = await client.submit(suite, source="fleetest.yaml", workspace_digest=workspace.digest, **options)
    return submission.run_id


@on_each_store
async def test_run_goes_from_submission_to_its_end(client, worker, tmp_path):
    run_id = await submitted(client, tmp_path / "w", labels={"why": "test"}, user="ada")
    await worker.open()
    plan = await worker.want(shards=1)  # no more, or what comes next would come unasked
    cases = [types_pb2.PlannedCase(case_id=case_id, file="test_a.py", line=1) for case_id in ("a", "b")]
    await worker.report(plan.attempt, running=worker_pb2.Running())
    await worker.report(plan.attempt, planned=worker_pb2.Planned(cases=cases))
    await worker.report(plan.attempt, output=worker_pb2.Output(content=b"collected 2 items\n"))
    await worker.report(plan.attempt, ended=worker_pb2.Ended(verdict=types_pb2.VERDICT_COMPLETED))
    seen = []
    for number in range(2, 4):
        shard = await worker.want(number, shards=1)
        seen += shard.case_ids
        await worker.finish(shard.attempt, *shard.case_ids)
    lint = await worker.want(4, shards=1)
    left = types_pb2.Artifact(path="report.html", digest="0" * 64, size_bytes=3)
    await worker.report(lint.attempt, artifacts=worker_pb2.ArtifactsLeft(artifacts=[left], problems=["too.large"]))
    await worker.finish(lint.attempt, "lint")

    events = [event async for commit in client.watch(run_id) for event in commit.events]
    run = await client.get_run("latest")
    logs = b"".join([chunk.content async for chunk in client.logs(run_id, "unit", follow=True)])
    listed = await client.list_runs()
    artifacts = await client.artifacts(run_id)
    records = [case async for case in client.cases(run_id, outcomes=[Outcome.PASSED])]

    assert sorted(seen) == ["a", "b"]
    assert type(events[-1]).__name__ == "RunEnded"
    assert (run.run_id, run.state, run.counts.passed, run.user) == (run_id, RunState.PASSED, 3, "ada")
    assert [task.state for task in run.tasks] == [TaskState.PASSED] * 2
    assert logs == b"collected 2 items\n"
    assert [each.run_id for each in listed] == [run_id]
    assert [each.artifact.path for each in artifacts] == ["report.html"]
    assert [problem for task in run.tasks for problem in task.not_kept] == ["too.large"]
    assert [case.result.case_id for case in records] == ["lint", "a", "b"]
    assert (await client.get_run(run_id[:13])).run_id == run_id


async def test_what_a_worker_has_done_and_what_it_does_next_share_a_commit_and_an_answer(client, worker, monkeypatch):
    monkeypatch.setattr(workers, "_TOGETHER", timedelta(minutes=1))
    suite = "version: 1\nname: demo\ntasks:\n  lint: {command: [lint], shards: 2}\n"
    run_id = (await client.submit(suite, source="fleetest.yaml")).run_id
    await worker.open()
    first = await worker.want(shards=1)
    result = types_pb2.CaseResult(case_id="lint", outcome=types_pb2.OUTCOME_PASSED)
    attempt = first.attempt
    done = worker_pb2.DoneAttempts(
        run_id=run_id, shard_ids=[attempt.shard_id], tokens=[attempt.token], results=[result]
    )

    want = worker.wish(2, shards=1, unhurried=True)
    await worker.say(reports=worker_pb2.ReportBatch(sequence=1, done=[done], want=want))
    answer = await worker.hear("assign")

    [second] = answer.assignments
    position = second.attempt.token
    async with aclosing(client.watch(run_id, after_position=position - 1)) as commits:
        commit = await anext(commits)
    assert answer.acknowledged == 1
    assert {type(event).__name__ for event in commit.events} >= {"CasesFinished", "AttemptStarted"}


async def test_what_cannot_be_is_said_clearly(client, tmp_path):
    run_id = await submitted(client, tmp_path / "w")

    with pytest.raises(SuiteInvalid, match=r"fleetest\.yaml:3"):
        await client.submit("version: 1\nname: x\ntaks: {}\n", source="fleetest.yaml")
    with pytest.raises(WrongState, match="has not been uploaded"):
        await client.submit(SUITE, source="s", workspace_digest="0" * 64)
    with pytest.raises(NotFound, match="no run"):
        await client.get_run("ffff")
    with pytest.raises(NotFound, match="no task 'absent'\nits tasks: unit, lint"):
        [chunk async for chunk in client.logs(run_id, "absent")]
    with pytest.raises(NotFound, match="no task 'absent'\nits tasks: unit, lint"):
        await client.cancel(run_id, task_id="absent")
    with pytest.raises(NotFound, match="no task 'absent'\nits tasks: unit, lint"):
        await client.explain(run_id, task_id="absent")
    with pytest.raises(WrongState, match="has not ended"):
        await client.retry(run_id)
    with pytest.raises(NotFound, match="no worker"):
        await client.drain("absent")


@on_each_store
async def test_what_a_task_ran_on_can_be_asked_for(master, client, tmp_path):
    run_id = await submitted(client, tmp_path / "w")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{master.port}") as channel:
        runs = run_pb2_grpc.RunServiceStub(channel)
        metadata = (("authorization", "Bearer client"),)

        answer = await runs.GetTaskSpec(run_pb2.GetTaskSpecRequest(run_id="latest", task_id="lint"), metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await runs.GetTaskSpec(run_pb2.GetTaskSpecRequest(run_id=run_id, task_id="none"), metadata=metadata)

    run = await client.get_run(run_id)
    assert (answer.run_id, answer.state) == (run_id, types_pb2.TASK_STATE_BLOCKED)
    assert (answer.spec.task_id, answer.spec.workspace_digest) == ("lint", run.workspace_digest)
    assert (answer.spec.type, answer.spec.project, answer.spec.limits.cpu_millis) == ("command", run.project, 1000)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_prefix_of_several_runs_is_refused(client, tmp_path):
    runs = [await submitted(client, tmp_path / "w") for _ in range(2)]

    with pytest.raises(InvalidRequest, match="several runs"):
        await client.get_run(runs[0][:3])


@on_each_store
async def test_runs_are_explained_cancelled_and_repeated(client, tmp_path):
    run_id = await submitted(client, tmp_path / "w")

    explained = await client.explain(run_id)
    stopped = [await client.cancel(run_id, reason="enough") for _ in range(2)]
    again = await client.retry(run_id)

    assert [each.task_id for each in explained] == ["unit", "lint"]
    assert stopped == [True, False]  # whether there was anything to stop
    assert (await client.get_run(run_id)).state is RunState.CANCELLED
    assert (await client.get_run(again.run_id)).retry_of == run_id


@on_each_store
async def test_pages_follow_one_another(client, tmp_path):
    runs = [await submitted(client, tmp_path / "w") for _ in range(3)]

    first = await client.list_runs(limit=2)

    assert [run.run_id for run in first] == runs[:0:-1]


async def test_worker_without_the_join_token_is_refused(master):
    stranger = Worker(master.port, token="client")

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stranger.register()
    await stranger.close()

    assert isinstance(error_from(refused.value), Forbidden)


@pytest.mark.parametrize(("slots", "instance"), [(0, "one"), (5000, "one"), (1, "")])
async def test_worker_that_makes_no_sense_is_refused(master, slots, instance):
    stranger = Worker(master.port, instance=instance)

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stranger.register(slots=slots)
    await stranger.close()

    assert isinstance(error_from(refused.value), InvalidRequest)


async def test_second_worker_of_one_id_is_refused_while_the_first_lives(master, worker):
    await worker.open()
    second = Worker(master.port, instance="two")

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await second.register()
    await second.close()

    assert isinstance(error_from(refused.value), AlreadyExists)


async def test_session_must_begin_with_a_known_hello(worker):
    with pytest.raises((grpc.aio.AioRpcError, AssertionError)):
        await worker.open(session_id="unknown")

    assert await worker._call.code() is grpc.StatusCode.ABORTED


async def test_worker_is_told_to_forget_what_is_not_its_own(worker, tmp_path):
    ghost = types_pb2.AttemptRef(run_id="0198a5b6-0000-7000-8000-000000000000", shard_id="x#0", token=1)

    welcome = await worker.open(ghost)

    assert list(welcome.forget) == [ghost]


async def test_reports_of_a_lost_attempt_are_refused_and_stopped(client, worker, tmp_path):
    run_id = await submitted(client, tmp_path / "w")
    await worker.open()
    plan = await worker.want()
    await client.cancel(run_id, grace=timedelta())
    told = await worker.hear("stop")
    await worker.report(plan.attempt, ended=worker_pb2.Ended(verdict=types_pb2.VERDICT_CANCELLED))

    await worker.say(
        reports=worker_pb2.ReportBatch(
            sequence=9, reports=[worker_pb2.Report(attempt=plan.attempt, running=worker_pb2.Running())]
        )
    )
    refused = await worker.hear("stop")

    assert list(told.attempts) == list(refused.attempts) == [plan.attempt]


async def test_worker_may_decline_and_gets_the_shard_again(client, worker, tmp_path):
    await submitted(client, tmp_path / "w")
    await worker.open()
    plan = await worker.want()

    await worker.say(declined=worker_pb2.Declined(attempt=plan.attempt, reason="not now"))
    again = await worker.want(2)

    assert again.attempt.shard_id == plan.attempt.shard_id
    assert again.attempt.token > plan.attempt.token


async def test_workers_are_as_busy_as_what_they_were_given_before_any_heartbeat(client, worker, tmp_path):
    await submitted(client, tmp_path / "w")
    await worker.open()

    plan = await worker.want(shards=1)
    (busy,) = await client.workers()
    await worker.report(plan.attempt, ended=worker_pb2.Ended(verdict=types_pb2.VERDICT_FAILED, reason="setup failed"))
    (idle,) = await client.workers()

    assert (busy.slots_used, str(busy.state)) == (1, "busy")
    assert (idle.slots_used, str(idle.state)) == (0, "idle")


async def test_operator_sees_workers_and_lets_one_go(client, worker):
    await worker.open()
    heartbeat = worker_pb2.Heartbeat(ready=True, host=types_pb2.ResourceSample(cpu_cores=0.5))
    await worker.say(heartbeat=heartbeat)

    await client.drain("w", reason="upgrade")
    told = await worker.hear("drain")
    (seen,) = await client.workers()
    info = await client.server_info()
    await worker.say(goodbye=worker_pb2.Goodbye(reason="done"))
    await worker._call.read()

    assert told.reason == "upgrade"
    assert (seen.worker_id, str(seen.state)) == ("w", "draining")
    assert (info.workers, info.active_runs) == (1, 0)
    assert await client.workers() == []


async def test_heartbeat_goes_on_through_an_outage_of_redis(client, worker, embedded_redis):
    await worker.open()
    await embedded_redis.stop()

    await worker.say(heartbeat=worker_pb2.Heartbeat(ready=True))
    await embedded_redis.start()
    await worker.say(heartbeat=worker_pb2.Heartbeat(ready=True))

    async with asyncio.timeout(20):
        while not await client.workers():
            await asyncio.sleep(0.05)


@on_each_store
async def test_stream_outlives_a_redis_that_forgot_its_beginning(client, worker, embedded_redis, tmp_path):
    await worker.open()
    async with connect(embedded_redis.url) as redis:
        registry = RedisWorkerRegistry(redis)
        forgetful = msgspec.structs.replace(await registry.get("w"), stream="")
        await registry.register(forgetful, lease_ttl=timedelta(minutes=1))

    await worker.say(heartbeat=worker_pb2.Heartbeat(ready=True))
    await worker.hear("heard")
    await submitted(client, tmp_path / "w")

    assert (await worker.want()).task_id == "unit"


async def test_message_of_no_kind_ends_the_session(worker):
    await worker.open()

    await worker.say()

    assert await worker._call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_taken_port_is_said(master, settings, tmp_path):
    taken = replace(settings, address=f"127.0.0.1:{master.port}", data_directory=tmp_path / "other")

    with pytest.raises(DependencyUnavailable, match="cannot listen"):
        async with Master(taken):
            pass


async def test_idle_master_ends_by_itself_though_a_client_keeps_its_stream(settings, tmp_path):
    idle_soon = replace(settings, idle_exit=timedelta(milliseconds=200))
    async with (
        serving(idle_soon) as (master, running),
        AsyncClient(f"127.0.0.1:{master.port}", token="client") as client,
    ):
        run_id = await submitted(client, tmp_path / "w", followed=True)
        await client.cancel(run_id)
        async with aclosing(client.watch(run_id)) as commits:
            assert [commit async for commit in commits]

        async with asyncio.timeout(20):
            await running


async def test_watch_goes_on_where_it_was(client, tmp_path):
    run_id = await submitted(client, tmp_path / "w", followed=True)
    await client.cancel(run_id)

    async with aclosing(client.watch(run_id, after_position=1)) as commits:
        positions = [commit.position async for commit in commits]
    async with aclosing(client.watch(run_id)) as commits:  # on the stream that answered the submission
        followed = [commit.position async for commit in commits]

    assert positions == list(range(2, positions[-1] + 1))
    assert followed == [1, *positions]


async def test_session_that_is_replaced_ends_as_lost(worker, master):
    await worker.open()
    again = Worker(master.port)
    await again.open()

    assert await worker._call.code() is grpc.StatusCode.ABORTED
    await again.close()
