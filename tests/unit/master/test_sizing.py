"""How much of a worker a shard takes, by what its task used before."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from fleetest.common.results import ResourceUsage
from fleetest.common.states import Outcome, Verdict
from fleetest.common.tasks import Resources, Task
from fleetest.master.reports import Ended, Results, Running
from fleetest.master.runs.sizing import packed, telling_usage
from fleetest.master.submission import Submission
from tests.tools.core import Core
from tests.tools.story import Story, command_task, pytest_task, result

MIB = 1 << 20
GIB = 1 << 30
REQUEST = Resources(cpu_millis=2000, memory_bytes=4 * GIB, disk_bytes=GIB)


def used(*, memory: int = 0, cores: float = 0.0, seconds: float = 10) -> ResourceUsage:
    wall_time = timedelta(seconds=seconds)
    return ResourceUsage(peak_memory_bytes=memory, cpu_time=wall_time * cores, wall_time=wall_time)


def test_without_history_a_shard_takes_what_it_requests() -> None:
    assert packed(REQUEST, []) == REQUEST


def test_memory_is_the_highest_peak_and_a_margin() -> None:
    usages = [used(memory=300 * MIB), used(memory=1000 * MIB), used(memory=200 * MIB)]

    assert packed(REQUEST, usages).memory_bytes == 1200 * MIB


def test_cpu_is_the_highest_mean_of_a_run_and_a_margin() -> None:
    assert packed(REQUEST, [used(cores=0.5, memory=1), used(cores=1.0, memory=1)]).cpu_millis == 1200


def test_a_tiny_task_still_takes_something() -> None:
    taken = packed(REQUEST, [used(memory=MIB, cores=0.001)])

    assert (taken.cpu_millis, taken.memory_bytes, taken.disk_bytes) == (100, 33 * MIB, GIB)


def test_nothing_takes_more_than_was_requested() -> None:
    assert packed(REQUEST, [used(memory=8 * GIB, cores=9)]) == REQUEST


def test_memory_without_a_limit_takes_what_was_measured() -> None:
    assert packed(Resources(cpu_millis=1000), [used(memory=1000 * MIB)]).memory_bytes == 1200 * MIB


@pytest.mark.parametrize("unmeasured", [ResourceUsage(), ResourceUsage(cpu_time=timedelta(seconds=3))])
def test_what_was_not_measured_takes_what_is_requested(unmeasured: ResourceUsage) -> None:
    assert packed(REQUEST, [unmeasured]) == REQUEST


def ended(task: Task, verdict: str, usage: ResourceUsage, **outcomes: str) -> Story:
    story = Story(task)
    story.start(f"{task.name}#0")
    if outcomes:
        story.report(f"{task.name}#0", **outcomes)
    token = story.token(f"{task.name}#0")
    story.ask(lambda decider: decider.attempt_ended(f"{task.name}#0", token, Verdict(verdict), "", usage=usage))
    return story


@pytest.mark.parametrize(("verdict", "outcome"), [("completed", "passed"), ("completed", "failed")])
def test_a_task_that_ran_to_its_end_tells_of_the_next(verdict: str, outcome: str) -> None:
    usage = used(memory=MIB)

    story = ended(command_task(), verdict, usage, lint=outcome)

    assert telling_usage(story.task("lint")) == usage


def test_a_task_that_was_cancelled_tells_nothing() -> None:
    story = Story(command_task())
    story.start("lint#0")
    story.cancel()
    token = story.token("lint#0")
    story.ask(lambda decider: decider.attempt_ended("lint#0", token, Verdict.CANCELLED, "", usage=used(memory=MIB)))

    assert telling_usage(story.task("lint")) is None


def test_a_part_of_a_task_tells_nothing_of_the_whole() -> None:
    story = Story(pytest_task(only_cases=("a",)))
    story.plans("unit", "a")
    story.start("unit#0")
    story.report("unit#0", a="passed")
    token = story.token("unit#0")
    story.ask(lambda decider: decider.attempt_ended("unit#0", token, Verdict.COMPLETED, "", usage=used(memory=MIB)))

    assert telling_usage(story.task("unit")) is None


def test_a_task_that_nobody_measured_tells_nothing() -> None:
    story = ended(command_task(), "completed", ResourceUsage(), lint="passed")

    assert telling_usage(story.task("lint")) is None


SUITE = "version: 1\nname: s\ntasks: {lint: {run: 'true', requires: {cpu: 2, memory: 4GiB}}}"


async def run_once(core: Core, usage: ResourceUsage) -> str:
    """One run of the suite on a worker of its own; answers its id."""
    run_id = (await core.desk.submit(Submission(suite_text=SUITE, project="p"))).run_id
    session = await core.connect(f"w-{run_id}")
    [assigned] = await core.assigned(session)
    passed = Results(results=(result("lint", Outcome.PASSED),))
    await core.report(assigned.ref, Running(), passed, Ended(verdict=Verdict.COMPLETED, usage=usage))
    await core.projector.flush(run_id)
    core.sessions.remove(session)
    await core.registry.end(session.presence.worker_id, session.presence.session_id)
    return run_id


async def test_a_run_is_sized_by_the_runs_before_it_and_a_task_that_grew_by_its_growth(core: Core) -> None:
    sizes = []

    for memory in (100 * MIB, 1000 * MIB, 100 * MIB, 100 * MIB):
        run_id = await run_once(core, used(memory=memory, cores=0.5))
        sizes.append((await core.status(run_id)).tasks["lint"].packed.memory_bytes // MIB)

    assert sizes == [4096, 132, 1200, 1200]


@pytest.mark.parametrize(("seconds", "lasting"), [(2, ("lint",)), (0.4, ())])
async def test_a_run_knows_which_of_its_tasks_lasted_long_in_the_last_one(
    core: Core, seconds: float, lasting: tuple[str, ...]
) -> None:
    first = await run_once(core, used(memory=MIB, seconds=seconds))
    second = await run_once(core, used(memory=MIB))

    assert [(await core.status(run_id)).request.lasting for run_id in (first, second)] == [(), lasting]


async def test_growth_is_forgotten_after_five_runs(core: Core) -> None:
    await run_once(core, used(memory=1000 * MIB))
    for _ in range(5):
        last = await run_once(core, used(memory=100 * MIB))

    after = await run_once(core, used(memory=100 * MIB))

    assert (await core.status(last)).tasks["lint"].packed.memory_bytes == 1200 * MIB
    assert (await core.status(after)).tasks["lint"].packed.memory_bytes == 132 * MIB


async def test_more_shards_of_a_task_that_asks_for_too_much_go_to_one_worker(core: Core) -> None:
    capacity = Resources(cpu_millis=4000, memory_bytes=5 * GIB, disk_bytes=GIB)
    suite = SUITE.replace("run: 'true'", "run: 'true', shards: 4")
    first = (await core.desk.submit(Submission(suite_text=suite, project="p"))).run_id
    session = await core.connect(capacity=capacity, free=capacity)

    before = await core.assigned(session)
    await core.book.keeper(first).ask(lambda decider: decider.cancel(by="a test", reason=""))
    core.sessions.remove(session)
    await core.store.save_usage("p", first, {"lint": used(memory=600 * MIB, cores=0.5)})
    await core.desk.submit(Submission(suite_text=suite, project="p"))
    other = await core.connect("w2", capacity=capacity, free=capacity)
    after = await core.assigned(other)

    assert len(before) == 1
    assert len(after) == 4
    assert {each.reserve for each in after} == {Resources(cpu_millis=600, memory_bytes=720 * MIB)}
    assert {each.work.task.resources.memory_bytes for each in after} == {4 * GIB}
    assert other.want is not None
    assert other.want.free == replace(capacity, cpu_millis=1600, memory_bytes=(5 * 1024 - 4 * 720) * MIB)
