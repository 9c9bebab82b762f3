from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from fleetest.common.backoff import Backoff
from fleetest.common.clock import SystemClock
from fleetest.common.errors import AlreadyExists, CapacityExceeded, DependencyUnavailable, Unauthenticated, WrongState
from fleetest.common.settings import Secret
from fleetest.common.tasks import Resources
from fleetest.v1 import types_pb2, worker_pb2
from fleetest.worker import slot as slot_module
from fleetest.worker.agent import Agent
from fleetest.worker.errors import SetupFailed
from fleetest.worker.host import LocalHost
from fleetest.worker.masters import Masters
from fleetest.worker.messages import Offer
from fleetest.worker.outbox import Outbox
from fleetest.worker.readiness import Readiness
from fleetest.worker.roster import Roster
from fleetest.worker.session_stream import dial
from fleetest.worker.slot import Slot
from fleetest.worker.slots import Slots
from fleetest.worker.spool import Spool
from tests.unit.worker.echo_runner import EchoExecutor, EchoRunner
from tests.unit.worker.scripted_master import ScriptedMaster, serving

pytestmark = pytest.mark.timeout(60)

CAPACITY = Resources(cpu_millis=4000, memory_bytes=4 << 30, disk_bytes=1 << 30)
PASSED, FAILED = types_pb2.OUTCOME_PASSED, types_pb2.OUTCOME_FAILED


class Host(LocalHost):
    """This machine, whose memory is as short as the test says."""

    short = False

    def memory_is_short(self):
        return self.short


class Worker:
    """The parts of an agent under test."""

    def __init__(self, directory, addresses, *, slots=2, idle_timeout=timedelta(minutes=1), probe=None, **settings):
        self.executor = EchoExecutor()
        self.runner = EchoRunner()
        self.spool = Spool(directory / "spool")
        self.outbox = Outbox(self.spool)
        clock = SystemClock()
        self.host = Host(clock)

        def make_slots(observer):
            def make_slot(number):
                return Slot(
                    number,
                    executors={"process": self.executor},
                    runners={"echo": self.runner},
                    observer=observer,
                    idle_timeout=idle_timeout,
                )

            return Slots([make_slot(number) for number in range(slots)], CAPACITY, make_slot)

        def make_roster(on_change):
            return Roster(
                make_slots=make_slots,
                outbox=self.outbox,
                readiness=Readiness(clock, probe=probe) if probe else Readiness(clock),
                clock=clock,
                on_change=on_change,
            )

        self.agent = Agent(
            offer=Offer(
                worker_id="w1",
                instance="i1",
                version="0",
                hostname="here",
                capabilities={"os": "linux"},
                capacity=CAPACITY,
                slots=slots,
            ),
            masters=Masters(addresses),
            dial=partial(dial, token=Secret("hush")),
            outbox=self.outbox,
            make_roster=make_roster,
            host=self.host,
            clock=clock,
            backoff=Backoff(first=timedelta(milliseconds=10), longest=timedelta(milliseconds=50)),
            **settings,
        )


@asynccontextmanager
async def working(directory, *addresses, **settings):
    worker = Worker(directory, addresses, **settings)
    running = asyncio.create_task(worker.agent.run())
    worker.running = running
    try:
        yield worker
    finally:
        worker.agent.stop("the test is over")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        worker.spool.close()


@pytest.fixture
async def master():
    return ScriptedMaster()


@pytest.fixture
async def address(master):
    async with serving(master) as at:
        yield at


async def test_worker_registers_with_what_it_is_and_offers(master, address, tmp_path):
    async with working(tmp_path, address):
        await master.wanted(2)

        request, metadata = master.registrations[0]
        assert (request.worker_id, request.slots, dict(request.capabilities)) == ("w1", 2, {"os": "linux"})
        assert request.capacity.memory_bytes == 4 << 30
        assert (metadata["authorization"], metadata["fleetest-protocol"]) == ("Bearer hush", "1")
        assert master.of("want")[-1].free.cpu_millis == 4000


async def test_shard_is_run_and_reported_in_order(master, address, tmp_path):
    master.enqueue("pass", "fail", "last")

    async with working(tmp_path, address):
        ended = await master.ended()

    assert ended.verdict == types_pb2.VERDICT_COMPLETED
    assert master.results() == [("pass", PASSED), ("fail", FAILED), ("last", PASSED)]
    kinds = [report.WhichOneof("report") for report in master.reports()]
    assert [kind for kind in kinds if kind != "output"] == ["running", "results", "ended"]


async def test_what_a_worker_would_take_next_goes_along_with_what_has_ended(master, address, tmp_path):
    master.enqueue(type="nobody knows it")
    master.acknowledges = False

    async with working(tmp_path, address, slots=1) as worker:
        await master.ended()
        batch = master.of("reports")[-1]
        master.say(assign=worker_pb2.Assign(want_number=batch.want.number, acknowledged=batch.sequence))
        await worker.outbox.emptied()
        by_themselves = len(master.of("want"))

    assert (batch.want.shards, by_themselves) == (1, 1)


async def test_reports_are_numbered_one_by_one(master, address, tmp_path):
    for number in range(3):
        master.enqueue("pass", shard=f"unit#{number}")

    async with working(tmp_path, address):
        for number in range(3):
            await master.ended(f"unit#{number}")

    sequences = [batch.sequence for batch in master.of("reports")]
    assert sequences == list(range(1, len(sequences) + 1))


async def test_next_shard_of_an_environment_continues_its_session(master, address, tmp_path):
    master.enqueue("wait-a", "b", shard="unit#0")
    master.enqueue("c", shard="unit#1")

    async with working(tmp_path, address, slots=1) as worker:
        await master.until(lambda: not master.backlog and worker.runner.ran.is_set())
        (session,) = worker.runner.sessions
        assert not session.flushes
        worker.runner.gate("a").set()
        await master.ended("unit#1")

        assert worker.runner.sessions == [session]
        assert [case for case, _ in master.results()] == ["wait-a", "b", "c"]


async def test_shards_of_one_environment_spread_over_idle_slots(master, address, tmp_path):
    async with working(tmp_path, address) as worker:
        await master.wanted(2)
        master.enqueue("wait-a", "b", shard="unit#0")
        master.enqueue("pass", shard="unit#1")
        await master.ended("unit#1")

        assert "unit#0" not in master.ends()
        assert len(worker.runner.sessions) == 2


async def test_session_that_gets_no_more_work_is_flushed_when_the_master_does_not_answer(master, address, tmp_path):
    async with working(tmp_path, address) as worker:
        await master.wanted(2)
        master.answers = False
        master.enqueue("only")

        ended = await master.ended()

        assert ended.verdict == types_pb2.VERDICT_COMPLETED
        assert worker.runner.sessions[0].flushes


async def test_running_attempt_reserves_what_it_may_use(master, address, tmp_path):
    limits = types_pb2.Resources(cpu_millis=1500, memory_bytes=1 << 30)
    master.enqueue("wait-a", "b", "c", limits=limits)

    async with working(tmp_path, address) as worker:
        await worker.runner.ran.wait()
        master.enqueue("pass", shard="unit#1", key="other")
        await master.ended("unit#1")
        await master.until(lambda: [want.shards for want in master.of("want")][-1:] == [1])

        free = master.of("want")[-1].free
        assert (free.cpu_millis, free.memory_bytes) == (2500, 3 << 30)


async def test_running_attempt_reserves_what_the_master_says_where_it_says_so(master, address, tmp_path):
    limits = types_pb2.Resources(cpu_millis=4000, memory_bytes=4 << 30)
    reserve = types_pb2.Resources(cpu_millis=500, memory_bytes=1 << 30)
    master.enqueue("wait-a", "b", "c", limits=limits, reserve=reserve)

    async with working(tmp_path, address) as worker:
        await worker.runner.ran.wait()
        master.enqueue("pass", shard="unit#1", key="other")
        await master.ended("unit#1")
        await master.until(lambda: [want.shards for want in master.of("want")][-1:] == [1])

        free = master.of("want")[-1].free
        assert (free.cpu_millis, free.memory_bytes) == (3500, 3 << 30)


async def test_another_environment_gets_its_own_session_after_the_old_is_closed(master, address, tmp_path):
    async with working(tmp_path, address, slots=1) as worker:
        master.enqueue("a", key="one", shard="unit#0")
        await master.ended("unit#0")
        master.enqueue("b", key="two", shard="unit#1")
        await master.ended("unit#1")

        assert worker.executor.log == [("prepare", "one"), ("close", "one"), ("prepare", "two")]
        assert [session.closed for session in worker.runner.sessions] == [True, False]


async def test_environment_that_shares_nothing_with_the_one_before_does_not_wait_for_its_end(master, address, tmp_path):
    async with working(tmp_path, address, slots=1) as worker:
        worker.executor.apart = True
        worker.executor.closable.clear()
        master.enqueue("a", key="one", shard="unit#0")
        await master.ended("unit#0")
        master.enqueue("b", key="two", shard="unit#1")
        await master.ended("unit#1")
        before = list(worker.executor.log)
        worker.executor.closable.set()

    assert before == [("prepare", "one"), ("prepare", "two")]
    assert sorted(worker.executor.log[2:]) == [("close", "one"), ("close", "two")]


async def test_another_run_gets_a_fresh_session_in_the_refreshed_environment(master, address, tmp_path):
    async with working(tmp_path, address, slots=1) as worker:
        master.enqueue("a", run="r1", shard="unit#0")
        await master.ended("unit#0")
        master.enqueue("b", run="r2", shard="unit#1")
        await master.ended("unit#1")

        assert worker.executor.log == [("prepare", "env"), ("refresh", "env")]
        assert [session.closed for session in worker.runner.sessions] == [True, False]


async def test_attempt_of_another_environment_waits_for_a_hungry_session_to_end(master, address, tmp_path):
    master.enqueue("wait-a", "b", key="one", shard="unit#0")
    master.enqueue("c", key="two", shard="unit#1")

    async with working(tmp_path, address, slots=1) as worker:
        await master.until(lambda: not master.backlog and worker.runner.ran.is_set())
        worker.runner.gate("a").set()
        await master.ended("unit#1")

        assert [case for case, _ in master.results()] == ["wait-a", "b", "c"]
        assert worker.executor.log == [("prepare", "one"), ("close", "one"), ("prepare", "two")]


async def test_idle_environment_is_closed_after_a_while(master, address, tmp_path):
    master.enqueue("a")

    async with working(tmp_path, address, idle_timeout=timedelta(milliseconds=20)) as worker:
        await master.ended()
        await master.until(lambda: ("close", "env") in worker.executor.log)

        assert worker.runner.sessions[0].closed


async def test_what_is_in_a_runs_network_is_closed_with_the_service_that_it_needed(master, address, tmp_path):
    service = {"service": worker_pb2.Service(), "run_network": "r1"}
    master.enqueue("wait-served", shard="shop#0", key="shop", **service)

    async with working(tmp_path, address) as worker:
        await worker.runner.ran.wait()
        master.enqueue("a", key="served", run_network="r1")
        await master.ended()
        master.enqueue("b", shard="other#0", key="other")
        await master.ended("other#0")
        assert "close" not in dict(worker.executor.log)
        worker.runner.gate("served").set()
        await master.until(lambda: {("close", "shop"), ("close", "served")} <= set(worker.executor.log))

        assert ("close", "other") not in worker.executor.log


async def expecting(master, worker, *, run="r1", key="env"):
    """Let the worker expect work, and wait until it gets ready for it."""
    await master.wanted(1)
    spec = worker_pb2.TaskSpec(spec_id=f"{run}/{key}", environment_key=key, task_id="unit", type="echo")
    master.say(expect=worker_pb2.Expect(run_id=run, spec=spec, slots=1))
    async with asyncio.timeout(30):
        while ("prepare", key) not in worker.executor.log:
            await asyncio.sleep(0.01)


async def test_attempt_that_was_expected_finds_its_session_open(master, address, tmp_path):
    async with working(tmp_path, address, slots=1) as worker:
        worker.executor.ready.clear()
        await expecting(master, worker)
        master.enqueue("pass")
        await master.until(lambda: not master.backlog)
        worker.executor.ready.set()
        ended = await master.ended()

        assert ended.verdict == types_pb2.VERDICT_COMPLETED
        assert worker.executor.log == [("prepare", "env")]
        assert [session.expected for session in worker.runner.sessions] == ["r1"]
    assert b"preparing\n" in [report.output.content for report in master.reports()]


async def test_slot_that_got_ready_for_nothing_runs_what_comes(master, address, tmp_path):
    async with working(tmp_path, address, slots=1) as worker:
        await expecting(master, worker)
        master.enqueue("pass", run="r2", key="other")
        ended = await master.ended()

        assert ended.verdict == types_pb2.VERDICT_COMPLETED
        assert worker.executor.log[-1] == ("prepare", "other")
        assert all(session.closed for session in worker.runner.sessions[:-1])


async def test_expected_attempt_is_told_why_its_environment_could_not_be_prepared(master, address, tmp_path):
    async with working(tmp_path, address, slots=1) as worker:
        worker.executor.failure = SetupFailed("make", 2, "no rule")
        await expecting(master, worker)
        master.enqueue("pass")
        ended = await master.ended()

    assert ended.verdict == types_pb2.VERDICT_FAILED
    assert "make" in ended.reason


async def test_failed_setup_is_the_tasks_own_failure(master, address, tmp_path):
    async with working(tmp_path, address) as worker:
        worker.executor.failure = SetupFailed("pip install nothing", 1, "no such package")
        master.enqueue("a")
        ended = await master.ended()

    assert ended.verdict == types_pb2.VERDICT_FAILED
    assert "no such package" in ended.reason


@pytest.mark.parametrize("failure", [CapacityExceeded("the disk is full"), RuntimeError("the disk is full")])
async def test_failed_preparation_is_an_infrastructure_error(master, address, tmp_path, failure):
    async with working(tmp_path, address) as worker:
        worker.executor.failure = failure
        master.enqueue("a")
        ended = await master.ended()

    assert ended.verdict == types_pb2.VERDICT_ERRORED
    assert "the disk is full" in ended.reason


@pytest.mark.parametrize("wrong", [{"type": "unheard-of"}, {"executor": "unheard-of"}])
async def test_task_that_this_worker_cannot_run_is_errored(master, address, tmp_path, wrong):
    async with working(tmp_path, address):
        master.enqueue("a", **wrong)
        ended = await master.ended()

    assert ended.verdict == types_pb2.VERDICT_ERRORED
    assert "unheard-of" in ended.reason


async def test_worker_takes_no_work_after_three_infrastructure_failures_in_a_row(master, address, tmp_path):
    async with working(tmp_path, address, slots=1) as worker:
        worker.executor.failure = DependencyUnavailable("no disk")
        for number in range(3):
            master.enqueue("a", shard=f"unit#{number}")
        await master.ended("unit#2")
        await master.until(lambda: any(not beat.ready for beat in master.of("heartbeat")))

        assert master.of("heartbeat")[-1].not_ready_reason == "3 infrastructure failures in a row, the last: no disk"
        await master.wanted(0)


@pytest.mark.parametrize("cases", [("wait-a", "b"), ("silent", "b")])
async def test_stopped_attempt_ends_as_cancelled(master, address, tmp_path, cases):
    ref = master.enqueue(*cases)

    async with working(tmp_path, address):
        await master.until(master.reports)
        master.say(stop=worker_pb2.Stop(attempts=[ref], reason="not needed", grace=Duration(seconds=1)))
        ended = await master.ended()

    assert (ended.verdict, ended.reason) == (types_pb2.VERDICT_CANCELLED, "not needed")


async def test_attempt_may_finish_its_running_case_unless_told_otherwise_later(master, address, tmp_path):
    ref = master.enqueue("wait-a", "b")

    async with working(tmp_path, address) as worker:
        await worker.runner.ran.wait()
        master.say(stop=worker_pb2.Stop(attempts=[ref], reason="gently", finish_running_case=True))
        master.say(stop=worker_pb2.Stop(attempts=[ref], reason="at once"))
        master.say(stop=worker_pb2.Stop(attempts=[ref], reason="too late"))
        ended = await master.ended()

    assert (ended.verdict, ended.reason) == (types_pb2.VERDICT_CANCELLED, "at once")
    assert not master.results()


@pytest.mark.parametrize("gently", [True, False])
async def test_attempt_that_is_stopped_while_it_is_prepared_never_starts(master, address, tmp_path, gently):
    async with working(tmp_path, address) as worker:
        worker.executor.ready.clear()
        ref = master.enqueue("a")
        await master.until(master.reports)
        stop = worker_pb2.Stop(attempts=[ref], reason="changed my mind", finish_running_case=gently)
        for _ in range(2):
            master.say(stop=stop)
        ended = await master.ended()

        assert ended.verdict == types_pb2.VERDICT_CANCELLED
        assert not worker.runner.sessions


async def test_attempt_that_is_stopped_while_it_waits_for_its_slot_never_starts(master, address, tmp_path):
    master.enqueue("wait-a", "b", key="one", shard="unit#0")
    ref = master.enqueue("c", key="two", shard="unit#1")

    async with working(tmp_path, address, slots=1) as worker:
        await master.until(lambda: not master.backlog and worker.runner.ran.is_set())
        master.say(stop=worker_pb2.Stop(attempts=[ref], reason="changed my mind"))
        ended = await master.ended("unit#1")
        assert ended.verdict == types_pb2.VERDICT_CANCELLED
        worker.runner.gate("a").set()
        await master.ended("unit#0")

        assert [case for case, _ in master.results()] == ["wait-a", "b"]
        assert worker.executor.log == [("prepare", "one")]


@pytest.mark.parametrize(("cases", "prepares"), [(("silent", "b"), True), (("a",), False)])
async def test_attempt_that_does_not_start_in_time_is_timed_out(master, address, tmp_path, cases, prepares):
    async with working(tmp_path, address) as worker:
        if not prepares:
            worker.executor.ready.clear()
        master.enqueue(*cases, start_timeout=Duration(nanos=50_000_000))
        ended = await master.ended()

    assert ended.verdict == types_pb2.VERDICT_TIMED_OUT
    assert ended.reason.startswith("start: ")


async def test_start_of_a_queued_attempt_is_timed_from_the_end_of_the_one_before(master, address, tmp_path):
    limit = Duration(nanos=100_000_000)
    master.enqueue("wait-a", "b", shard="unit#0", start_timeout=limit)
    master.enqueue("c", shard="unit#1", start_timeout=limit)

    async with working(tmp_path, address, slots=1) as worker:
        await master.until(lambda: not master.backlog and worker.runner.ran.is_set())
        heartbeats = len(master.of("heartbeat"))
        await master.until(lambda: len(master.of("heartbeat")) > heartbeats + 3)
        worker.runner.gate("a").set()

        assert (await master.ended("unit#1")).verdict == types_pb2.VERDICT_COMPLETED


async def test_secrets_are_masked_in_results_and_output(master, address, tmp_path):
    master.enqueue("secret", secrets={"PASSWORD": "open sesame"})

    async with working(tmp_path, address):
        await master.ended()

    said = b"".join(message.SerializeToString() for message in master.heard)
    assert b"sesame" not in said
    assert b"***" in said


async def test_attempt_goes_on_while_the_master_is_away_and_is_reported_afterwards(master, address, tmp_path):
    ref = master.enqueue("wait-a", "b", "c")

    async with working(tmp_path, address) as worker:
        await worker.runner.ran.wait()
        master.break_stream()
        worker.runner.gate("a").set()
        await master.ended()

        assert [case for case, _ in master.results()] == ["wait-a", "b", "c"]
        assert list(master.hellos[1].attempts) == [ref]
        assert len(master.registrations) == 1


async def test_master_that_answers_no_heartbeat_is_left_with_the_attempts_in_hand(master, address, tmp_path):
    ref = master.enqueue("wait-a", "b")
    master.lease_ttl = timedelta(milliseconds=500)
    master.hears = False

    async with working(tmp_path, address) as worker:
        await worker.runner.ran.wait()
        await master.until(lambda: len(master.hellos) > 1)
        master.hears = True
        worker.runner.gate("a").set()
        await master.ended()

    assert list(master.hellos[1].attempts) == [ref]


async def test_lost_session_registers_again_and_keeps_what_runs(master, address, tmp_path):
    master.enqueue("wait-a", "b")

    async with working(tmp_path, address) as worker:
        await worker.runner.ran.wait()
        master.break_stream(grpc.StatusCode.ABORTED)
        await master.until(lambda: len(master.registrations) == 2)
        worker.runner.gate("a").set()
        await master.ended()

        assert master.hellos[1].session_id == "session-2"


async def test_attempt_that_is_no_longer_the_workers_is_stopped(master, address, tmp_path):
    ref = master.enqueue("wait-a", "b")

    async with working(tmp_path, address) as worker:
        await worker.runner.ran.wait()
        master.forget = [ref]
        master.break_stream()
        ended = await master.ended()

    assert ended.verdict == types_pb2.VERDICT_CANCELLED


async def test_unacknowledged_reports_are_sent_again_also_by_the_next_agent(master, address, tmp_path):
    master.acknowledges = False
    ref = master.enqueue("pass")
    async with working(tmp_path, address, farewell_patience=timedelta()):
        await master.ended()
    sent = [batch.sequence for batch in master.of("reports")]
    master.heard.clear()
    master.acknowledges = True

    async with working(tmp_path, address) as worker:
        await master.ended()
        await worker.outbox.emptied()

    assert [batch.sequence for batch in master.of("reports")] == sent
    assert list(master.hellos[-1].attempts) == [ref]


async def test_worker_tries_the_next_master_when_one_does_not_answer(master, address, tmp_path):
    async with working(tmp_path, "127.0.0.1:1", address):
        await master.wanted(2)


async def test_wrong_token_ends_the_agent(master, address, tmp_path):
    master.refusals = [grpc.StatusCode.UNAUTHENTICATED]

    async with working(tmp_path, address) as worker:
        with pytest.raises(Unauthenticated):
            await worker.running


async def test_master_of_another_protocol_ends_the_agent(master, address, tmp_path):
    master.refusals = [grpc.StatusCode.FAILED_PRECONDITION]

    async with working(tmp_path, address) as worker:
        with pytest.raises(WrongState):
            await worker.running


async def test_master_that_refuses_is_left_for_one_that_does_not(master, address, tmp_path):
    stranger = ScriptedMaster()
    stranger.refusals = [grpc.StatusCode.UNAUTHENTICATED]
    master.enqueue("pass")

    async with serving(stranger) as elsewhere, working(tmp_path, elsewhere, address):
        ended = await master.ended()

    assert ended.verdict == types_pb2.VERDICT_COMPLETED


async def test_what_runs_goes_on_at_the_next_master_when_the_first_is_gone(master, address, tmp_path):
    first = ScriptedMaster()
    first.enqueue("wait-a", "b")
    async with serving(first) as elsewhere, working(tmp_path, elsewhere, address) as worker:
        await first.until(worker.runner.ran.is_set)
        first.break_stream()
        await master.until(lambda: master.hellos)
        worker.runner.gate("a").set()
        await master.ended()

    assert [case for case, _ in master.results()] == ["wait-a", "b"]
    assert [ref.shard_id for ref in master.hellos[0].attempts] == ["unit#0"]
    assert [request.instance for request, _ in first.registrations + master.registrations] == ["i1", "i1"]


async def test_taken_id_is_borne_for_a_while(master, address, tmp_path):
    master.refusals = [grpc.StatusCode.ALREADY_EXISTS] * 3

    async with working(tmp_path, address):
        await master.wanted(2)


async def test_id_that_stays_taken_ends_the_agent(master, address, tmp_path):
    master.refusals = [grpc.StatusCode.ALREADY_EXISTS] * 1000

    async with working(tmp_path, address, id_patience=timedelta(milliseconds=50)) as worker:
        with pytest.raises(AlreadyExists):
            await worker.running


async def test_draining_worker_finishes_what_runs_says_goodbye_and_ends(master, address, tmp_path):
    master.enqueue("wait-a", "b", shard="unit#0")

    async with working(tmp_path, address) as worker:
        await worker.runner.ran.wait()
        worker.agent.drain("told to end")
        await master.until(lambda: any(beat.draining for beat in master.of("heartbeat")))
        await master.wanted(0)
        worker.runner.gate("a").set()
        await worker.running

    assert master.ends()["unit#0"].verdict == types_pb2.VERDICT_COMPLETED
    assert [goodbye.reason for goodbye in master.of("goodbye")] == ["told to end"]


async def test_stopped_worker_reports_what_runs_as_errored(master, address, tmp_path):
    master.enqueue("wait-a", "b", shard="unit#0")

    async with working(tmp_path, address) as worker:
        await worker.runner.ran.wait()
        worker.agent.drain("told to end")
        worker.agent.stop("told twice")
        await worker.running

    ended = master.ends()["unit#0"]
    assert (ended.verdict, ended.reason) == (types_pb2.VERDICT_ERRORED, "worker shut down")


async def test_drain_by_the_master_ends_the_work_but_not_the_worker(master, address, tmp_path):
    async with working(tmp_path, address) as worker:
        await master.wanted(2)
        master.say(drain=worker_pb2.Drain(reason="maintenance"))
        await master.wanted(0)
        await master.until(lambda: any(beat.draining for beat in master.of("heartbeat")))

        assert not worker.running.done()


async def test_assignment_beyond_the_credit_is_declined(master, address, tmp_path):
    async with working(tmp_path, address, slots=1) as worker:
        master.enqueue("wait-a", "b", "c", "d", shard="unit#0")
        await worker.runner.ran.wait()
        master._want = None
        master.enqueue("x", shard="unit#1")
        master.assign(*master.backlog)
        await master.until(lambda: master.of("declined"))

        (declined,) = master.of("declined")
        assert (declined.attempt.shard_id, declined.reason) == ("unit#1", "every slot is busy")


async def test_what_follows_a_shard_waits_in_its_session_where_others_of_its_worker_are_busy(master, address, tmp_path):
    async with working(tmp_path, address) as worker:
        worker.runner.ahead = 2
        master.enqueue("wait-a", "b", shard="unit#0")
        master.enqueue("wait-b", "b", key="other", shard="other#0", token=2)
        await master.until(lambda: not master.backlog and any(want.ahead >= 2 for want in master.wants()))
        master.assign(*[master.put_by("c", shard=f"unit#{number}", follows=True) for number in (1, 2)])
        worker.runner.gate("a").set()
        await master.ended("unit#2")

        assert not master.of("declined")
        assert "other#0" not in master.ends()
        assert len(worker.runner.sessions) == 2


async def test_what_follows_a_shard_and_does_not_begin_for_a_while_is_handed_back(
    master, address, tmp_path, monkeypatch
):
    monkeypatch.setattr(slot_module, "_LATE_SECONDS", 0.01)
    async with working(tmp_path, address, slots=1) as worker:
        worker.runner.ahead = 2
        master.enqueue("wait-a", "b", shard="unit#0")
        await worker.runner.ran.wait()
        master.assign(*[master.put_by("c", shard=f"unit#{number}", follows=number > 1) for number in (1, 2)])
        await master.ended("unit#2")
        worker.runner.gate("a").set()
        await master.ended("unit#1")

        handed_back = [report for report in master.reports() if report.WhichOneof("report") == "handed_back"]
        assert [report.attempt.shard_id for report in handed_back] == ["unit#2"]
        assert [case for case, _ in master.results()] == ["wait-a", "b", "c"]


async def test_assignment_that_crossed_the_end_of_a_want_waits_for_the_last_case(master, address, tmp_path):
    async with working(tmp_path, address, slots=1) as worker:
        await master.wanted(1)
        master.enqueue("wait-a", shard="unit#0")
        await worker.runner.ran.wait()
        await master.wanted(0)
        master.enqueue("x", shard="unit#1")
        master.assign(*master.backlog)
        worker.runner.gate("a").set()
        await master.ended("unit#1")

        assert not master.of("declined")
        assert [case for case, _ in master.results()] == ["wait-a", "x"]


async def test_cases_are_handed_back_while_the_environment_is_made_ready(master, address, tmp_path):
    async with working(tmp_path, address, slots=1) as worker:
        await master.wanted(1)
        worker.executor.ready.clear()
        ref = master.enqueue("a", "b", "c", shard="unit#0")
        await master.until(lambda: worker.executor.log)
        master.say(hand_back=worker_pb2.HandBack(attempt=ref, case_ids=["a", "c", "stranger"]))
        await master.until(lambda: any(report.WhichOneof("report") == "handed_back" for report in master.reports()))
        worker.executor.ready.set()
        await master.ended("unit#0")

        given = [report.handed_back.case_ids for report in master.reports() if report.HasField("handed_back")]
        assert given == [["c"]]
        assert [case for case, _ in master.results()] == ["a", "b"]


async def test_repeated_assignment_is_taken_once(master, address, tmp_path):
    master.enqueue("wait-a", "b")
    repeated = list(master.backlog)

    async with working(tmp_path, address) as worker:
        await worker.runner.ran.wait()
        master.assign(*repeated)
        worker.runner.gate("a").set()
        await master.ended()

    assert [case for case, _ in master.results()] == ["wait-a", "b"]


async def test_assignment_that_cannot_be_understood_is_errored(master, address, tmp_path):
    master.enqueue("a")
    (assignment,) = master.backlog
    master.backlog = []
    assignment.kind = 99

    async with working(tmp_path, address):
        await master.wanted(2)
        master.assign(assignment)
        ended = await master.ended()

    assert ended.verdict == types_pb2.VERDICT_ERRORED
    assert "99" in ended.reason


async def test_heartbeats_carry_what_host_and_attempts_use(master, address, tmp_path):
    ref = master.enqueue("wait-a", "b")

    async with working(tmp_path, address) as worker:
        await worker.runner.ran.wait()
        await master.until(lambda: any(beat.attempts for beat in master.of("heartbeat")))

        heartbeat = master.of("heartbeat")[-1]
        assert heartbeat.host.memory_bytes > 0
        assert heartbeat.attempts[0].attempt == ref
        assert heartbeat.attempts[0].sample.memory_bytes == 1000


async def test_probing_worker_takes_one_shard_at_a_time(master, address, tmp_path):
    impatient = Backoff(first=timedelta(milliseconds=1), longest=timedelta(milliseconds=1))

    async with working(tmp_path, address, probe=impatient) as worker:
        worker.executor.failure = DependencyUnavailable("no disk")
        for number in range(3):
            master.enqueue("a", shard=f"unit#{number}")
        await master.ended("unit#2")
        await master.wanted(1)
        worker.executor.failure = None
        master.enqueue("a", shard="unit#3")
        await master.ended("unit#3")

        await master.wanted(2)


async def test_idle_sessions_are_closed_when_memory_is_short(master, address, tmp_path):
    async with working(tmp_path, address) as worker:
        worker.host.short = True
        master.enqueue("a")
        await master.ended()

        await master.until(lambda: ("close", "env") in worker.executor.log)


async def test_garbled_instruction_breaks_the_stream_but_not_the_worker(master, address, tmp_path):
    master.enqueue("wait-a", "b")

    async with working(tmp_path, address) as worker:
        await worker.runner.ran.wait()
        master.say(stop=worker_pb2.Stop(grace=Duration(seconds=2**62)))
        await master.until(lambda: len(master.hellos) == 2)
        worker.runner.gate("a").set()
        ended = await master.ended()

    assert ended.verdict == types_pb2.VERDICT_COMPLETED
