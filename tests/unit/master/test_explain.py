"""Why is this task not running? Each reason is made true, then removed, and the task runs."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from fleetest.common.states import Verdict
from fleetest.common.tasks import Access, OnLost, Resources, Use
from fleetest.master.explain import Reason, ReasonKind, TaskExplanation, explain
from fleetest.master.reports import Ended, Planned, Running
from fleetest.master.roster import Roster
from fleetest.master.runs.calibration import Measure
from fleetest.master.runs.speeds import SpeedBook
from fleetest.master.sessions import Session, Want
from tests.tools.core import CAPACITY, LEASE_TTL, Core
from tests.tools.story import cases, command_task, need, pytest_task, result

GIB = 1 << 30
_TWICE_AS_LONG = Measure(worker_id="w1", took=timedelta(seconds=2), earlier_id="w2", earlier_took=timedelta(seconds=1))


async def reasons(core: Core, run_id: str, task_id: str = "lint") -> tuple[Reason, ...]:
    return (await explanation(core, run_id, task_id)).reasons


async def explanation(core: Core, run_id: str, task_id: str = "lint") -> TaskExplanation:
    roster = Roster(core.registry, core.sessions)
    return await explain(await core.status(run_id), task_id, roster, core.queue, core.resources)


async def kinds(core: Core, run_id: str, task_id: str = "lint") -> list[ReasonKind]:
    return [reason.kind for reason in await reasons(core, run_id, task_id)]


async def runs(core: Core, run_id: str, session: Session) -> bool:
    """The reasons are gone: the task runs, and explain says where."""
    await core.dispatcher.dispatch()
    [reason] = await reasons(core, run_id)
    assert reason.message == f"1 of its shards runs on {session.presence.worker_id}"
    return reason.kind is ReasonKind.RUNS


async def update(core: Core, session: Session, **changes: object) -> None:
    """As its next heartbeat would."""
    session.presence = msgspec.structs.replace(session.presence, **changes)  # type: ignore[arg-type]  # forwarded as they are
    await core.registry.renew(session.presence, lease_ttl=LEASE_TTL)


async def test_it_runs_on_a_worker_that_is_known_to_be_slow(core: Core) -> None:
    run_id = await core.submit(pytest_task())
    session = await core.connect("w1")
    await SpeedBook(core.store).learn("p", [_TWICE_AS_LONG] * 10)
    [plan] = await core.assigned(session)
    await core.report(plan.ref, Running(), Planned(cases=cases("t::1")), Ended(verdict=Verdict.COMPLETED))
    await core.dispatcher.dispatch()

    [reason] = await reasons(core, run_id, "unit")

    assert reason.message == "1 of its shards runs on w1 (at 0.71 of the usual speed)"


async def test_it_waits_for_a_task(core: Core) -> None:
    run_id = await core.submit(command_task("a"), command_task(needs=(need("a"),)))
    session = await core.connect()
    [reason] = await reasons(core, run_id)
    assert (reason.kind, reason.constraint) == (ReasonKind.WAITS_FOR_TASK, "a")
    assert reason.message == "it needs a passed, which is queued"

    [assigned] = await core.assigned(session)
    keeper = core.book.keeper(run_id)
    token = assigned.ref.token
    await keeper.ask(lambda decider: decider.cases_finished("a#0", token, [result("a")]))
    await keeper.ask(lambda decider: decider.attempt_ended("a#0", token, Verdict.COMPLETED, ""))

    assert await runs(core, run_id, session)


async def test_no_worker_is_connected(core: Core) -> None:
    run_id = await core.submit(command_task())
    assert await kinds(core, run_id) == [ReasonKind.NO_WORKERS, ReasonKind.BEHIND_OTHERS]

    session = await core.connect()

    assert await runs(core, run_id, session)


async def test_a_capability_is_missing_and_each_is_counted(core: Core) -> None:
    run_id = await core.submit(command_task(requirements={"browser": "chromium", "os": "linux"}, image="alpine"))
    await core.connect("w1", capabilities={"os": "linux"})
    await core.connect("w2", capabilities={"os": "macos"})

    found = await reasons(core, run_id)

    assert [(reason.constraint, reason.workers, reason.workers_total) for reason in found[:-1]] == [
        ("browser=chromium", 2, 2),
        ("executor.docker=true", 2, 2),
        ("os=linux", 1, 2),
    ]
    assert found[0].message == "2 of 2 workers lack browser=chromium"
    able = await core.connect("w3", capabilities={"os": "linux", "browser": "chromium", "executor.docker": "true"})
    assert await runs(core, run_id, able)


async def test_every_worker_is_too_small(core: Core) -> None:
    big = {
        "cpu 64": Resources(cpu_millis=64_000),
        "memory 64GiB": Resources(memory_bytes=64 * GIB),
        "disk 1TiB": Resources(disk_bytes=1024 * GIB),
    }
    run_ids = {
        constraint: await core.submit(command_task(resources=resources)) for constraint, resources in big.items()
    }
    await core.connect()

    for constraint, run_id in run_ids.items():
        first, *_ = await reasons(core, run_id)
        assert (first.kind, first.workers, first.constraint.replace(" G", "G").replace(" T", "T")) == (
            ReasonKind.TOO_LARGE,
            1,
            constraint,
        )
    huge = msgspec.structs.replace(CAPACITY, memory_bytes=128 * GIB)
    await core.connect("w2", capacity=huge, free=huge)
    await core.dispatcher.dispatch()
    assert (await kinds(core, run_ids["memory 64GiB"])) == [ReasonKind.RUNS]


async def test_no_single_worker_has_enough_of_everything(core: Core) -> None:
    run_id = await core.submit(command_task(resources=Resources(cpu_millis=4000, memory_bytes=4 * GIB)))
    await core.connect("w1", capacity=Resources(cpu_millis=8000, memory_bytes=GIB))
    await core.connect("w2", capacity=Resources(cpu_millis=1000, memory_bytes=8 * GIB))

    first, *_ = await reasons(core, run_id)

    assert (first.kind, first.workers) == (ReasonKind.TOO_LARGE, 2)
    assert first.message == "2 of 2 workers are too small: it needs more than any of them has in all"


async def test_what_a_shard_takes_is_told_where_it_is_not_what_was_requested(core: Core) -> None:
    request, taken = Resources(cpu_millis=4000, memory_bytes=4 * GIB), Resources(cpu_millis=500, memory_bytes=GIB)
    run_id = await core.submit(command_task(resources=request), packed={"lint": taken})
    session = await core.connect(shards=0)
    await update(core, session, free=Resources(cpu_millis=400, memory_bytes=2 * GIB))

    first, *_ = await reasons(core, run_id)
    assert (first.kind, first.workers) == (ReasonKind.WORKERS_BUSY, 1)
    assert first.message == (
        "1 of 1 worker could run it, but has no slot or room free now (it takes cpu 0.5, memory 1GiB, by what its last "
        "runs used, of the cpu 4, memory 4GiB that it asks for)"
    )

    session.ask(Want(number=1, shards=1, free=msgspec.structs.replace(taken, disk_bytes=1)))
    assert await runs(core, run_id, session)


async def test_every_worker_is_busy(core: Core) -> None:
    await core.submit(command_task("other"))
    session = await core.connect(shards=1, slots=1)
    [given] = await core.assigned(session)
    run_id = await core.submit(command_task())
    first, *_ = await reasons(core, run_id)
    assert (first.kind, first.workers, first.workers_total) == (ReasonKind.WORKERS_BUSY, 1, 1)

    other = await core.connect("w2", free=Resources(), shards=0)
    assert (await reasons(core, run_id))[0].workers == 2
    core.sessions.remove(other)
    await core.registry.end("w2", other.presence.session_id)
    session.release([given.ref])
    session = await core.connect("w3")

    assert await runs(core, run_id, session)


async def test_the_worker_drains(core: Core) -> None:
    run_id = await core.submit(command_task())
    session = await core.connect(draining=True)
    first, *_ = await reasons(core, run_id)
    assert (first.kind, first.message) == (
        ReasonKind.WORKERS_DRAINING,
        "1 of 1 worker drains and takes no more work",
    )

    await update(core, session, draining=False)

    assert await runs(core, run_id, session)


async def test_the_worker_is_not_ready(core: Core) -> None:
    run_id = await core.submit(command_task())
    session = await core.connect(ready=False, not_ready_reason="3 infrastructure failures in a row")
    first, *_ = await reasons(core, run_id)
    assert first.kind is ReasonKind.WORKERS_NOT_READY
    assert first.message.endswith("not ready: 3 infrastructure failures in a row")

    await update(core, session, ready=True)

    assert await runs(core, run_id, session)


async def test_it_is_behind_others(core: Core) -> None:
    first = await core.submit(command_task(priority=90))
    run_id = await core.submit(command_task())
    [_, reason] = await reasons(core, run_id)
    assert (reason.kind, reason.queue_position) == (ReasonKind.BEHIND_OTHERS, 2)
    assert reason.message.startswith("1 of 2 in its queue come before it")

    session = await core.connect(shards=1)
    await core.assigned(session)
    [reason] = [each for each in await reasons(core, run_id) if each.kind is ReasonKind.BEHIND_OTHERS]
    assert (reason.queue_position, reason.message) == (1, "it is next in its queue")
    assert await kinds(core, first) == [ReasonKind.RUNS]
    core.sessions.remove(session)

    assert ReasonKind.RUNS in await kinds(core, first)
    other = await core.connect("w2")
    assert await runs(core, run_id, other)


async def test_it_waits_before_its_next_attempt(core: Core) -> None:
    run_id = await core.submit(command_task())
    session = await core.connect()
    [assigned] = await core.assigned(session)
    token = assigned.ref.token
    await core.book.keeper(run_id).ask(lambda decider: decider.attempt_declined("lint#0", token, "no"))
    [reason] = await reasons(core, run_id)
    assert reason.kind is ReasonKind.RETRY_WAIT
    assert (
        reason.message
        == f"it waits until {core.clock.now() + timedelta(seconds=1):%H:%M:%S} UTC before its next attempt"
    )

    core.clock.advance(timedelta(seconds=2))

    assert await runs(core, run_id, session)


async def test_it_is_in_no_queue_for_the_moment(core: Core) -> None:
    run_id = await core.submit(command_task())
    session = await core.connect()
    await core.redis.flushall()
    await update_registry(core, session)
    [reason] = await reasons(core, run_id)
    assert reason.message == "it is about to be handed to a worker, or to be queued again"

    await core.reconciler.look()

    assert await runs(core, run_id, session)


async def update_registry(core: Core, session: Session) -> None:
    await core.registry.register(session.presence, lease_ttl=LEASE_TTL)


async def test_some_of_it_runs_and_some_waits(core: Core) -> None:
    run_id = await core.submit(command_task(shards=4))
    for worker in ("w1", "w2"):
        await core.connect(worker, shards=1)
    await core.dispatcher.dispatch()

    runs_on, *rest = await reasons(core, run_id)

    assert (runs_on.kind, runs_on.message) == (ReasonKind.RUNS, "2 of its shards run on w1, w2")
    assert rest[-1].kind is ReasonKind.BEHIND_OTHERS


async def test_it_is_being_stopped_and_then_has_ended(core: Core) -> None:
    run_id = await core.submit(command_task())
    session = await core.connect()
    [assigned] = await core.assigned(session)
    keeper = core.book.keeper(run_id)
    await keeper.ask(lambda decider: decider.cancel(by="ann", reason="enough"))
    assert await kinds(core, run_id) == [ReasonKind.STOPPING, ReasonKind.RUNS]

    token = assigned.ref.token
    await keeper.ask(lambda decider: decider.attempt_declined("lint#0", token, "no"))

    [reason] = await reasons(core, run_id)
    assert (reason.kind, reason.message) == (ReasonKind.ENDED, "it has ended: cancelled: enough")


async def test_a_task_that_passed_has_ended_without_more_to_say(core: Core) -> None:
    run_id = await core.submit(command_task())
    session = await core.connect()
    [assigned] = await core.assigned(session)
    token = assigned.ref.token
    await core.book.keeper(run_id).ask(lambda decider: decider.attempt_ended("lint#0", token, Verdict.COMPLETED, ""))

    [reason] = await reasons(core, run_id)

    assert reason.message == "it has ended: passed"


async def resource_reasons(core: Core, run_id: str) -> list[str]:
    return [each.message for each in await reasons(core, run_id) if each.kind is ReasonKind.WAITS_FOR_RESOURCE]


async def test_others_have_what_it_uses(core: Core) -> None:
    alone, shared = Use(resource="shop", access=Access.EXCLUSIVE), Use(resource="shop", access=Access.SHARED)
    seats = Use(resource="cluster/seats", access=Access.COUNTED, amount=2, size=3)
    loser = await core.submit(command_task(uses=(alone,)))
    assert await resource_reasons(core, loser) == [
        "it waits until it is known again who has what it uses: Redis has lost that, or has just started"
    ]
    await core.reconciler.look()
    session = await core.connect(shards=9)
    [first] = await core.assigned(session)
    waits = await core.submit(command_task(uses=(alone, seats)))
    assert await resource_reasons(core, waits) == [f"it waits for shop, held exclusively by task lint of run {loser}"]

    await core.report(first.ref, Ended(verdict=Verdict.COMPLETED))
    users = [await core.submit(command_task(uses=(shared,), priority=99)) for _ in range(2)]
    seated = await core.submit(command_task(uses=(seats,), priority=99))
    given = await core.assigned(session)
    both = f"task lint of run {users[0]} and task lint of run {users[1]}"
    assert await resource_reasons(core, waits) == [
        f"it waits to have shop to itself, used by {both}",
        f"it waits for 2 of cluster/seats: 2 of 3 are in use, by task lint of run {seated}",
    ]

    core.clock.advance(timedelta(minutes=2))
    await core.dispatcher.dispatch()
    late = await core.submit(command_task(uses=(shared,), priority=1))
    assert await resource_reasons(core, late) == [
        f"it waits for shop, which task lint of run {waits} gets first: it has waited for longer"
    ]

    for each in given:
        await core.report(each.ref, Ended(verdict=Verdict.COMPLETED))
    assert await runs(core, waits, session)


async def test_a_gang_has_not_room_for_all_of_it(core: Core) -> None:
    run_id = await core.submit(command_task(shards=5, gang=OnLost.ABORT, resources=Resources(cpu_millis=4000)))
    session = await core.connect("w1", shards=0, slots=9)
    first, *_ = await reasons(core, run_id)
    assert (first.kind, first.message) == (
        ReasonKind.TOO_LARGE,
        "its 5 shards start together, and 1 worker that could run them has 2 slots",
    )

    await update(core, session, slots_used=0, free=Resources(cpu_millis=3000))
    other = await core.connect(
        "w2", shards=0, slots=3, capacity=msgspec.structs.replace(CAPACITY, cpu_millis=64000), free=CAPACITY
    )
    first, *_ = await reasons(core, run_id)
    assert (first.kind, first.message) == (
        ReasonKind.WORKERS_BUSY,
        "its 5 shards start together, and of the 5 slots that they could have, 2 are free now",
    )

    session.ask(Want(number=1, shards=2, free=CAPACITY))
    other.ask(Want(number=1, shards=3, free=msgspec.structs.replace(CAPACITY, cpu_millis=12000)))
    await core.dispatcher.dispatch()
    [reason] = await reasons(core, run_id)
    assert reason.message == "5 of its shards run on w1, w2"
