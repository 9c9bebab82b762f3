"""
Cases are handed back to idle slots, in a simulation: the planner, the rules, the queue and the store are real, only time
and the workers' processes are not.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from fleetest.common.backoff import Backoff
from fleetest.common.results import PlannedCase
from fleetest.common.states import Outcome, RunState, Verdict
from fleetest.common.tasks import Split, Task
from fleetest.master.queue.ports import CommitNotice
from fleetest.master.reports import Ended, HandedBack, Planned, Results, Running
from fleetest.master.runs.keeper import Committed, RunKeeper
from fleetest.master.runs.results import KeptResult
from fleetest.master.runs.speeds import SpeedBook
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.tail import ASK_AGAIN, RELUCTANT_FOR, TailLook, look_at_tail
from fleetest.master.sessions import Assign, Assigned, HandBack, Session, Want
from fleetest.master.store.ports import CaseHistory
from tests.tools.core import CAPACITY, Core, instructions
from tests.tools.story import Story, pytest_task, result

HANDOVER_SECONDS = 0.02  # what it takes until the first case of a shard runs


@dataclass
class Suite:
    """Cases `file::name` with the seconds that they take, and those that they are known to."""

    takes: dict[str, float]
    known: dict[str, float] = field(default_factory=dict)

    def planned(self) -> tuple[PlannedCase, ...]:
        return tuple(PlannedCase(case_id=each, file=each.partition("::")[0]) for each in self.takes)

    def history(self) -> list[CaseHistory]:
        return [
            CaseHistory(case_id=case_id, duration=timedelta(seconds=seconds), outcome=Outcome.PASSED)
            for case_id, seconds in self.known.items()
        ]

    def ideal(self, slots: int) -> float:
        return max(sum(self.takes.values()) / slots, *self.takes.values())


class Slot:
    """A worker with one slot, which runs cases as a resident session does: the present one cannot be taken back."""

    def __init__(self, core: Core, session: Session, suite: Suite, speed: float) -> None:
        self.core, self.session, self.suite, self.speed = core, session, suite, speed
        self.held: deque[tuple[Assigned, deque[str]]] = deque()
        self.ends_at = math.inf
        self.ran: list[str] = []
        self.handed_back: list[str] = []
        self._wants = 0

    def ask(self, warm: frozenset[str]) -> None:
        if not self.held and not self.session.wants_more:
            self._wants += 1
            free = self.session.presence.capacity
            self.session.ask(Want(number=self._wants, shards=1, free=free, warm_environment_keys=warm))

    async def obey(self, now: float) -> bool:
        """Answers whether there was anything to do."""
        told = instructions(self.session)
        for instruction in told:
            match instruction:
                case Assign(assigned=assigned):
                    for each in assigned:
                        await self._begin(each, now)
                case HandBack(ref=ref, case_ids=case_ids):
                    await self._hand_back(ref, case_ids)
        return bool(told)

    async def finish_case(self, now: float) -> None:
        assigned, todo = self.held[0]
        case_id = todo.popleft()
        duration = timedelta(seconds=self.suite.takes[case_id] / self.speed)
        result = KeptResult(case_id=case_id, outcome=Outcome.PASSED, duration=duration)
        await self.core.report(assigned.ref, Results(results=(result,)))
        await self._go_on(now)

    async def _begin(self, assigned: Assigned, now: float) -> None:
        await self.core.report(assigned.ref, Running())
        if not assigned.case_ids:
            await self.core.report(assigned.ref, Planned(cases=self.suite.planned()), Ended(verdict=Verdict.COMPLETED))
            self.session.release([assigned.ref])
            return
        self.held.append((assigned, deque(assigned.case_ids)))
        if len(self.held) == 1:
            await self._go_on(now + HANDOVER_SECONDS)

    async def _go_on(self, now: float) -> None:
        self.ends_at = math.inf
        while self.held:
            assigned, todo = self.held[0]
            if todo:
                self.ran.append(todo[0])
                self.ends_at = now + self.suite.takes[todo[0]] / self.speed
                return
            self.held.popleft()
            await self.core.report(assigned.ref, Ended(verdict=Verdict.COMPLETED))
            self.session.release([assigned.ref])

    async def _hand_back(self, ref: object, case_ids: tuple[str, ...]) -> None:
        for number, (assigned, todo) in enumerate(self.held):
            if assigned.ref == ref:
                given = [each for each in case_ids if each in list(todo)[0 if number else 1 :]]
                self.handed_back += given
                for each in given:
                    todo.remove(each)
                await self.core.report(assigned.ref, HandedBack(case_ids=tuple(given)))


class Simulation:
    """One run of a suite on so many slots, by the core's clock."""

    def __init__(self, core: Core, suite: Suite, task: Task, slots: int, speeds: Sequence[float] = ()) -> None:
        self.core, self.suite, self.task = core, suite, task
        self.speeds = speeds or [1.0] * slots
        self.look = core.tail_work.look
        self.slots: list[Slot] = []
        self.run_id = ""

    async def run(self) -> float:
        """Answers how many seconds pass from the plan to the end."""
        await self.core.store.save_history("p", self.task.name, self.suite.history())
        for number, speed in enumerate(self.speeds):
            session = await self.core.connect(f"w{number}", shards=0, slots=1, capacity=CAPACITY, free=CAPACITY)
            self.slots.append(Slot(self.core, session, self.suite, speed))
        run_id = self.run_id = await self.core.submit(self.task)
        begun, now = self.core.clock.now(), 0.0
        while not (await self.core.status(run_id)).state.ended:
            again_in = await self._hand_out(now)
            later = min(slot.ends_at for slot in self.slots)
            later = min(later, now + max(again_in, 0.05)) if again_in is not None else later
            assert later < math.inf, "nobody has anything to do"
            now = later
            self.core.clock.advance(begun + timedelta(seconds=now) - self.core.clock.now())
            for slot in self.slots:
                if slot.ends_at <= now:
                    await slot.finish_case(now)
        status = await self.core.status(run_id)
        assert status.state is RunState.PASSED
        assert Counter(case for slot in self.slots for case in slot.ran) == Counter(list(self.suite.takes))
        return now

    async def _hand_out(self, now: float) -> float | None:
        """As the master's loops do: dispatch, look at the tail, until everybody knows all."""
        while True:
            busy = False
            for slot in self.slots:
                slot.ask(self._warm)
            while await self.core.dispatcher.dispatch():
                pass
            for slot in self.slots:
                busy |= await slot.obey(now)
            if not busy:
                again_in = await self.look()
                for slot in self.slots:
                    busy |= await slot.obey(now)
                if not busy:
                    return again_in

    @property
    def _warm(self) -> frozenset[str]:
        """Whoever works here has the environment warm."""
        return frozenset(slot.held[0][0].work.environment_key for slot in self.slots if slot.held)

    @property
    def handed_back(self) -> list[str]:
        return [case for slot in self.slots for case in slot.handed_back]


def cases(file: str, number: int, seconds: float) -> dict[str, float]:
    return {f"{file}::{index}": seconds for index in range(number)}


QUICK_FIRST = cases("quick.py", 60, 0.05) | cases("slow.py", 8, 3.0)
WRONG = {
    "long cases that were quick": (Suite(QUICK_FIRST, dict.fromkeys(QUICK_FIRST, 0.05) | cases("slow.py", 8, 0.01)), 2),
    "quick cases that were long": (
        Suite(cases("a.py", 24, 0.1) | cases("b.py", 48, 0.5), cases("a.py", 24, 4.0) | cases("b.py", 48, 0.1)),
        4,
    ),
    "everything five times slower": (
        Suite(cases("a.py", 30, 1.0) | cases("b.py", 40, 0.5), cases("a.py", 30, 0.2) | cases("b.py", 40, 0.1)),
        3,
    ),
    "nothing known": (Suite(QUICK_FIRST), 2),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_suite_with_a_wrong_history_ends_within_a_tenth_of_the_ideal(core: Core, name: str) -> None:
    suite, slots = WRONG[name]

    seconds = await Simulation(core, suite, pytest_task(shards=None), slots).run()

    assert suite.ideal(slots) <= seconds <= 1.1 * suite.ideal(slots)


async def test_the_skewed_suite_of_the_benchmarks_takes_little_more_than_its_ideal(core: Core) -> None:
    """With a true history, as from the second run on."""
    takes = {f"test_{file}.py::{index}": 0.01 for file in range(10) for index in range(20)} | cases("test_z.py", 4, 3.0)
    suite = Suite(takes, takes)

    seconds = await Simulation(core, suite, pytest_task(shards=None), 2).run()

    assert seconds <= 1.05 * suite.ideal(2)


async def test_without_looking_at_the_tail_the_same_suite_takes_far_longer(core: Core) -> None:
    """So that the test above can fail."""
    suite, slots = WRONG["long cases that were quick"]
    simulation = Simulation(core, suite, pytest_task(shards=None), slots)
    simulation.look = nobody_looks

    seconds = await simulation.run()

    assert seconds > 1.5 * suite.ideal(slots)


async def nobody_looks() -> None: ...


async def test_what_belongs_together_is_handed_back_together(core: Core) -> None:
    """The files of which a case has begun stay where they are."""
    files = [f"f{index}.py" for index in range(12)]
    takes = {case_id: seconds for file in files for case_id, seconds in cases(file, 4, 0.5).items()}
    suite = Suite(takes, dict.fromkeys(takes, 0.01))
    simulation = Simulation(core, suite, pytest_task(shards=None, split=Split.FILE), 3)

    seconds = await simulation.run()

    assert simulation.handed_back
    assert seconds <= 1.1 * suite.ideal(3)
    for file in files:
        assert sum(any(case.startswith(f"{file}::") for case in slot.ran) for slot in simulation.slots) == 1


async def test_a_suite_that_says_its_number_of_shards_keeps_it(core: Core) -> None:
    suite, slots = WRONG["long cases that were quick"]
    simulation = Simulation(core, suite, pytest_task(shards=2), slots)

    await simulation.run()

    assert not simulation.handed_back


@given(
    files=st.lists(st.integers(8, 24), min_size=2, max_size=6),
    split=st.sampled_from(Split),
    done=st.lists(st.integers(0, 4), min_size=16, max_size=16),
    waited=st.floats(0, 20),
    idle=st.integers(1, 4),
)
def test_only_what_has_not_begun_is_asked_for_and_nothing_is_torn_apart(
    files: list[int], split: Split, done: list[int], waited: float, idle: int
) -> None:
    story = Story(pytest_task(shards=None, split=split))
    story.plans("unit", *(f"{file}.py::{number}" for file, count in enumerate(files) for number in range(count)))
    for shard_id, number in zip(story.waiting(), done, strict=False):
        story.start(shard_id)
        shard = story.status.shard(shard_id)
        assert shard is not None
        story.report(shard_id, *map(result, shard.case_ids[: min(number, len(shard.case_ids) - 1)]))
    story.clock.advance(timedelta(seconds=waited))

    requests = look_at_tail(story.task("unit"), story.clock.now(), idle=idle, slots={"w1": 16}).requests

    assert sum(request.parts for request in requests) <= idle
    for request in requests:
        shard = story.status.shard(request.shard_id)
        assert shard is not None
        assert shard.attempt is not None
        first = next(case_id for case_id in shard.case_ids if case_id in shard.attempt.awaited)
        assert set(request.case_ids) <= shard.attempt.awaited - {first}
        if split is Split.FILE:
            kept = set(shard.case_ids) - set(request.case_ids)
            assert not {each.partition("::")[0] for each in kept} & {
                each.partition("::")[0] for each in request.case_ids
            }


def test_a_worker_that_is_asked_or_gave_nothing_is_left_alone_for_a_while() -> None:
    story = Story(pytest_task(shards=None))
    story.plans("unit", *(f"a.py::{index}" for index in range(40)))
    token = story.start("unit#0")
    story.ask(lambda decider: decider.attempt_running("unit#0", token))

    def look() -> TailLook:
        enough = len(story.waiting()) + 1
        return look_at_tail(story.task("unit"), story.clock.now(), idle=enough, slots={"w1": 1})

    [request] = look().requests
    story.ask(lambda decider: decider.ask_back_cases("unit#0", token, request.case_ids, request.parts))
    asked = look()
    story.ask(lambda decider: decider.cases_handed_back("unit#0", token, []))
    gave_nothing = look()
    story.clock.advance(RELUCTANT_FOR)

    assert (asked.requests, asked.again_in) == ((), ASK_AGAIN.total_seconds())
    assert (gave_nothing.requests, gave_nothing.again_in) == ((), RELUCTANT_FOR.total_seconds())
    assert look().requests


def test_without_history_a_case_is_expected_to_last_as_long_as_others_of_its_file() -> None:
    story = Story(pytest_task(shards=1))
    story.plans("unit", "a.py::1", "a.py::2", "z.py::1", "z.py::2", "new.py::1")
    task = story.task("unit")
    at_first = task.expected_seconds("z.py::2", speed=2.0)

    story.start("unit#0")
    story.report("unit#0", result("a.py::1"), replace(result("z.py::1"), duration=timedelta(seconds=3)))

    expected = [task.expected_seconds(case_id, speed=2.0) for case_id in ("a.py::2", "z.py::2", "new.py::1")]
    assert at_first == 1.0
    assert expected == pytest.approx([0.005, 3.0, 3.005 / 2])


async def test_the_master_that_has_the_stream_asks_the_worker(core: Core) -> None:
    """Another one decides, and tells of its commit."""
    suite = Suite(cases("a.py", 6, 1.0), cases("a.py", 6, 0.01))
    session = await core.connect("w1", shards=0, slots=1)
    slot = Slot(core, session, suite, 1.0)
    await core.store.save_history("p", "unit", suite.history())
    run_id = await core.submit(pytest_task(shards=None))
    for _ in range(2):
        slot.ask(frozenset())
        await core.dispatcher.dispatch()
        await slot.obey(0.0)
    [(assigned, todo)] = slot.held
    ref, elsewhere = assigned.ref, RunKeeper(run_id, core.store, core.clock, Backoff(), nothing_follows)

    await elsewhere.ask(lambda decider: decider.ask_back_cases(ref.shard_id, ref.token, list(todo)[3:], 1))
    position = (await elsewhere.status()).position
    await core.book.pass_on_stops([CommitNotice(run_id=run_id, position=position, events=b"", stops=True)])

    assert instructions(session) == [HandBack(ref=ref, case_ids=tuple(todo)[3:])]


async def nothing_follows(status: RunStatus, committed: Committed) -> None: ...


async def test_runs_teach_how_fast_workers_are(core: Core) -> None:
    """Of two workers one is three times slower; in the end that is known, and durations are free of it."""
    suite = Suite(cases("a.py", 40, 0.4) | cases("b.py", 20, 0.8))
    speeds = [1.0, 1 / 3]
    took = []
    for _ in range(4):
        simulation = Simulation(core, suite, pytest_task(shards=None), 2, speeds)
        took.append(await simulation.run())
        await core.projector.flush(simulation.run_id)
        for session in core.sessions:
            core.sessions.remove(session)

    known = await SpeedBook(core.store).of_project("p")
    history = await core.store.load_history("p", "unit")
    in_steps = [history[case_id].duration.total_seconds() / seconds for case_id, seconds in suite.takes.items()]

    assert known["w0"].speed / known["w1"].speed == pytest.approx(3, rel=0.1)
    assert max(in_steps) / min(in_steps) < 1.5
    assert took[-1] <= 1.1 * sum(suite.takes.values()) / sum(speeds)
