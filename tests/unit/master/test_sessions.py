"""What a master has to say to its workers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from fleetest.common.carried_specs import KEPT_SPECS
from fleetest.common.states import ShardKind
from fleetest.common.tasks import Resources
from fleetest.master.queue.ports import Bid, Presence
from fleetest.master.servicers.convert import instruction_to_proto
from fleetest.master.sessions import (
    Acknowledge,
    Assign,
    Assigned,
    AttemptRef,
    Begin,
    Drain,
    Session,
    Sessions,
    Stop,
    Want,
    Work,
)
from fleetest.worker import messages
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.convert import instruction_from_proto
from tests.tools.core import CAPACITY, instructions
from tests.tools.story import command_task, submitted

NOW = datetime(2026, 11, 3, tzinfo=UTC)


def session(worker_id: str = "w", **settings: object) -> Session:
    return Session(
        Presence(
            worker_id=worker_id,
            session_id="s",
            instance="i",
            version="0",
            hostname="h",
            capabilities={"os": "linux"},
            capacity=CAPACITY,
            slots=2,
            registered_at=NOW,
            last_seen_at=NOW,
            **settings,  # type: ignore[arg-type]  # forwarded as they are
        )
    )


def assigned() -> Assigned:
    task = command_task(resources=Resources(cpu_millis=500))
    return Assigned(
        ref=AttemptRef(run_id="r", shard_id="lint#0", token=2),
        work=Work(
            request=submitted(task),
            task=task,
            kind=ShardKind.EXECUTE,
            shard_count=1,
            environment_key="k",
            secrets={"TOKEN": "s3cret"},
        ),
        number=1,
        case_ids=(),
        shard_index=0,
        reserve=task.resources,
    )


def test_attempts_that_differ_in_their_shards_alone_are_said_at_once() -> None:
    first = assigned()
    others = [
        replace(first, ref=AttemptRef(run_id="r", shard_id=f"lint#{index}", token=token), shard_index=index)
        for index, token in ((1, 2), (2, 2), (3, 5))
    ]

    message = instruction_to_proto(Assign(want_number=1, assigned=(first, *others)), {"r/lint": None})

    told = [
        (each.attempt.shard_id, *each.more_shard_ids, *each.more_shard_indexes) for each in message.assign.assignments
    ]
    assert told == [("lint#0", "lint#1", "lint#2", 1, 2), ("lint#3",)]


def test_both_ends_of_a_stream_forget_the_same_specs() -> None:
    known: dict[str, None] = {}
    carried: dict[str, TaskSpec] = {}

    def carry(*run_ids: str) -> int:
        """Answers how many specs the message had."""
        given = [replace(assigned(), ref=AttemptRef(run_id=each, shard_id="lint#0", token=2)) for each in run_ids]
        message = instruction_to_proto(Assign(want_number=1, assigned=tuple(given)), known)
        told = instruction_from_proto(message, carried)
        assert isinstance(told, messages.Assign)
        assert [each.ref.run_id for each in told.assignments] == list(run_ids)
        return len(message.assign.specs)

    first = [carry("a", "b"), carry("a")]
    many = carry(*map(str, range(KEPT_SPECS + 10)))
    again = [carry("a", str(KEPT_SPECS)), carry("10", "11")]

    assert (first, many, again) == ([2, 0], KEPT_SPECS + 10, [1, 1])  # "a" took the place of "10"
    assert list(known) == list(carried)
    assert len(known) == KEPT_SPECS


def test_a_worker_that_wants_nothing_does_not_bid() -> None:
    worker = session()
    assert worker.bid() is None

    worker.ask(Want(number=1, shards=0, free=CAPACITY))

    assert worker.bid() is None


def test_a_bid_says_what_the_worker_has() -> None:
    worker = session()

    worker.ask(Want(number=1, shards=2, free=CAPACITY, warm_environment_keys=frozenset({"k"})))

    assert worker.bid() == Bid(
        worker_id="w",
        capabilities={"os": "linux"},
        shards=2,
        free=CAPACITY,
        capacity=CAPACITY,
        slots=2,
        warm_environment_keys=frozenset({"k"}),
    )


def test_a_worker_that_is_busy_only_tells_that_it_is_there() -> None:
    worker = session()

    there = worker.token_bid()
    worker.drain(Drain(reason="enough"))

    assert there is not None
    assert (there.worker_id, there.shards, there.slots, there.free) == ("w", 0, 2, Resources())
    assert worker.token_bid() is None


def test_a_worker_is_told_to_begin_what_it_has_and_nothing_else() -> None:
    worker = session()
    ref, other = assigned().ref, AttemptRef(run_id="r", shard_id="lint#1", token=2)
    worker.ask(Want(number=1, shards=2, free=CAPACITY))
    worker.assign([assigned()])

    for each in (ref, other):
        worker.begin(Begin(ref=each, after=timedelta(seconds=1)))

    told = [each for each in instructions(worker) if isinstance(each, Begin)]
    assert told == [Begin(ref=ref, after=timedelta(seconds=1))]


def test_a_worker_that_is_not_ready_does_not_bid() -> None:
    worker = session(ready=False)

    worker.ask(Want(number=1, shards=2, free=CAPACITY))

    assert worker.bid() is None


def test_the_newest_want_is_the_one_that_counts() -> None:
    worker = session()
    worker.ask(Want(number=1, shards=9, free=CAPACITY))
    worker.ask(Want(number=2, shards=1, free=CAPACITY))

    worker.assign([assigned()])

    assert worker.want is not None
    assert (worker.want.shards, worker.want.free.cpu_millis) == (0, CAPACITY.cpu_millis - 500)
    [told] = instructions(worker)
    assert isinstance(told, Assign)
    assert (told.want_number, len(told.assigned)) == (2, 1)


def test_a_want_is_answered_with_nothing_once_only() -> None:
    worker = session()
    worker.assign([])
    worker.ask(Want(number=1, shards=1, free=CAPACITY))

    worker.assign([])
    worker.assign([])

    assert instructions(worker) == [Assign(want_number=1, assigned=())]


def test_slots_are_used_from_the_assignment_to_the_end_of_the_attempt() -> None:
    held = AttemptRef(run_id="r", shard_id="lint#1", token=1)
    worker = Session(session().presence, [held])
    worker.ask(Want(number=1, shards=1, free=CAPACITY))

    worker.assign([assigned()])

    assert (worker.presence.slots_used, worker.presence.free.cpu_millis) == (2, CAPACITY.cpu_millis - 500)
    worker.release([held])
    worker.release([held])
    assert worker.presence.slots_used == 1


def test_what_follows_another_takes_neither_room_nor_slot() -> None:
    worker = session()
    worker.ask(Want(number=1, shards=2, free=CAPACITY, ahead=3))
    first = assigned()
    others = [
        replace(first, ref=AttemptRef(run_id="r", shard_id=f"lint#{number}", token=2), follows=True)
        for number in (1, 2, 3)
    ]

    worker.assign([first, *others[:2]])

    assert worker.want is not None
    assert (worker.want.shards, worker.want.ahead) == (1, 1)
    assert worker.presence.free.cpu_millis == CAPACITY.cpu_millis - 500
    assert worker.presence.slots_used == 2  # of the two that it has


def test_draining_is_said_once_and_ends_the_bids() -> None:
    worker = session()
    worker.ask(Want(number=1, shards=1, free=CAPACITY))

    worker.drain(Drain(reason="maintenance"))
    worker.drain(Drain(reason="maintenance"))

    assert instructions(worker) == [Drain(reason="maintenance")]
    assert worker.bid() is None


def test_a_new_stream_of_a_worker_ends_the_one_before() -> None:
    sessions, first, second = Sessions(), session(), session()
    sessions.add(first)

    sessions.add(second)
    sessions.remove(first)

    assert instructions(first) == [None]
    assert list(sessions) == [second]
    assert sessions.get("w") is second
    sessions.remove(second)
    assert (len(sessions), sessions.get("w")) == (0, None)


def test_secrets_are_not_shown() -> None:
    assert "s3cret" not in repr(Assign(want_number=1, assigned=(assigned(),)))


def test_instructions_are_values() -> None:
    ref = AttemptRef(run_id="r", shard_id="s", token=1)
    stop = Stop(refs=(ref,), reason="x", grace=timedelta(seconds=1), finish_running_case=False)

    assert {stop, Acknowledge(sequence=3)} == {stop, Acknowledge(sequence=3)}


async def test_reports_are_acknowledged_along_with_the_next_assignment() -> None:
    worker, given = session(), assigned()
    worker.ask(Want(number=1, shards=1, free=CAPACITY))

    worker.acknowledge(3)
    worker.acknowledge(4)
    worker.assign([given])

    assert worker.instructions.get_nowait() == Assign(want_number=1, assigned=(given,), acknowledged=4)
    assert worker.instructions.empty()


async def test_reports_are_acknowledged_when_nothing_is_assigned() -> None:
    worker = session()

    worker.acknowledge(3)

    assert await worker.instructions.get() == Acknowledge(sequence=3)


async def test_reports_wait_for_the_queue_only_if_their_worker_asks_for_much_more() -> None:
    worker = session()

    worker.ask_besides(Want(number=1, shards=4, free=CAPACITY, unhurried=True))
    at_first = worker.question
    worker.question = None
    worker.ask_besides(Want(number=2, shards=8, free=CAPACITY, unhurried=True))

    assert at_first is not None
    assert worker.question is None


def test_a_stop_that_comes_before_its_attempt_is_said_again_after_it() -> None:
    worker, given = session(), assigned()
    worker.ask(Want(number=1, shards=1, free=CAPACITY))
    stop = Stop(refs=(given.ref,), reason="enough", grace=timedelta(), finish_running_case=False)

    worker.stop(stop)
    worker.assign([given])

    assert instructions(worker) == [stop, Assign(want_number=1, assigned=(given,)), stop]


def test_a_worker_that_is_spoken_with_elsewhere_gets_nothing_more_here() -> None:
    worker = session(stream="here")
    worker.ask(Want(number=1, shards=1, free=CAPACITY))

    worker.hear_from_registry(replace(worker.presence, stream="elsewhere"))
    worker.hear_from_registry(replace(worker.presence, stream="elsewhere"))

    assert worker.over
    assert worker.bid() is None
    assert instructions(worker) == [None]


def test_a_stream_that_redis_forgot_goes_on() -> None:
    worker = session(stream="here")

    worker.hear_from_registry(replace(worker.presence, stream=""))

    assert not worker.over


def test_a_worker_that_another_master_drained_is_told_once() -> None:
    worker = session()

    for _ in range(2):
        worker.hear_from_registry(replace(worker.presence, draining=True))

    assert [type(each) for each in instructions(worker)] == [Drain]


async def test_changes_of_slots_are_told_once_each() -> None:
    sessions = Sessions()
    workers = [session(name) for name in "ab"]
    for worker in workers:
        sessions.add(worker)
        worker.ask(Want(number=1, shards=2, free=CAPACITY))
    workers[0].assign([assigned()])

    assert await sessions.changes() == workers
    workers[0].release([assigned().ref])
    assert await sessions.changes() == workers[:1]
