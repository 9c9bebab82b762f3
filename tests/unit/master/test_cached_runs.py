"""Runs of which the cache knows something: on a real Redis and a real SQLite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

from fleetest.common.results import PlannedCase
from fleetest.common.states import Outcome, RunState, TaskState, Verdict
from fleetest.common.tasks import CachePolicy, Task
from fleetest.master.cache.entries import CachedCase
from fleetest.master.cache.planning import sampled, with_hits
from fleetest.master.reports import Ended, Planned, Results, Running
from fleetest.master.runs.events import WrongHit, decode
from fleetest.master.runs.planner import Fleet, Plan, plan
from fleetest.master.runs.results import KeptResult, decode_result
from fleetest.master.runs.state import RunStatus
from fleetest.master.sessions import Session
from tests.tools.core import Core
from tests.tools.story import cases, pytest_task, result

DONE = Ended(verdict=Verdict.COMPLETED)
A1, A2, B1 = "test_a.py::test_1", "test_a.py::test_2", "test_b.py::test_1"
CASES = cases(A1, A2, B1)
SAME = {"test_a.py": "a" * 64, "test_b.py": "b" * 64}


class Laboratory:
    """Runs a task again and again on one worker."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.session: Session | None = None

    async def run(
        self,
        outcomes: Mapping[str, str] | None = None,
        *,
        fingerprints: Mapping[str, str] = SAME,
        sample: float = 0.0,
        duration: timedelta = timedelta(seconds=1),
        output: Mapping[str, bytes] = MappingProxyType({}),
        uncacheable: str = "",
        **settings: Any,
    ) -> tuple[RunStatus, list[str]]:
        """The ended run, and the cases that were leased; they pass, unless `outcomes` says otherwise."""
        core = self.core
        run_id = await core.submit(pytest_task(**{"cache": CachePolicy(sample=sample), **settings}))
        if self.session is None:
            self.session = await core.connect(shards=100)
        leased: list[str] = []
        while (await core.status(run_id)).state is RunState.RUNNING:
            assigned = await core.assigned(self.session)
            assert assigned, "nothing is left to do, but the run has not ended"
            for each in assigned:
                if not each.case_ids:
                    planned = Planned(cases=CASES, fingerprints=fingerprints)
                    await core.report(each.ref, Running(), planned, DONE)
                    continue
                leased += each.case_ids
                results = tuple(
                    _result(
                        case_id,
                        (outcomes or {}).get(case_id, "passed"),
                        each.number,
                        duration=duration,
                        whole=case_id.encode() + output.get(case_id, b""),
                        uncacheable="reads a file" if case_id == uncacheable else "",
                    )
                    for case_id in each.case_ids
                )
                await core.report(each.ref, Running(), Results(results=results), DONE)
        await core.clerk.flush()
        await core.projector.flush(run_id)
        core.clock.advance(timedelta(minutes=1))
        return await core.status(run_id), leased


def _result(case_id: str, outcome: str, number: int, **fields: Any) -> KeptResult:
    """`flaky` fails at first, then passes."""
    if outcome == "flaky":
        outcome = "failed" if number == 1 else "passed"
    return msgspec.structs.replace(result(case_id, outcome), **fields)


@pytest.fixture
async def laboratory(core: Core) -> Laboratory:
    return Laboratory(core)


async def test_what_passed_before_is_finished_without_a_lease(laboratory: Laboratory) -> None:
    first, leased_at_first = await laboratory.run()

    second, leased = await laboratory.run()

    task = second.tasks["unit"]
    assert (leased_at_first, leased) == ([A1, A2, B1], [])
    assert (second.state, task.state) == (RunState.PASSED, TaskState.PASSED)
    assert (task.counts.passed, task.counts.cached, task.counts.planned) == (3, 3, 3)
    [row, *_] = await laboratory.core.store.list_cases(second.run_id)
    told = decode_result(row.result)
    assert told.cached_from is not None
    assert (told.cached_from.run_id, told.whole) == (first.run_id, A1.encode())
    assert (row.outcome, row.body["worker_id"], row.body["attempts"]) == (Outcome.PASSED, "", 0)


async def test_only_the_file_that_changed_is_run_again(laboratory: Laboratory) -> None:
    await laboratory.run()

    status, leased = await laboratory.run(fingerprints={**SAME, "test_b.py": "c" * 64})
    _, back = await laboratory.run()

    assert leased == [B1]
    assert status.tasks["unit"].counts.cached == 2
    assert back == []


async def test_file_without_a_fingerprint_is_always_run(laboratory: Laboratory) -> None:
    some = {"test_a.py": "a" * 64}
    await laboratory.run(fingerprints=some)

    _, leased = await laboratory.run(fingerprints=some)

    assert leased == [B1]


async def test_result_with_very_much_output_is_not_cached(laboratory: Laboratory) -> None:
    await laboratory.run(output={B1: b"x" * (33 << 10)})

    _, leased = await laboratory.run()

    assert leased == [B1]


async def test_result_that_depends_on_what_nobody_knows_is_not_cached(laboratory: Laboratory) -> None:
    await laboratory.run(uncacheable=B1)

    _, leased = await laboratory.run()

    assert leased == [B1]


async def test_task_without_a_cache_neither_takes_nor_gives(laboratory: Laboratory) -> None:
    await laboratory.run(cache=None)
    _, first = await laboratory.run()

    _, leased = await laboratory.run(cache=None)

    assert len(first) == len(leased) == 3


@pytest.mark.parametrize("outcome", ["failed", "error", "timed_out", "skipped", "xfailed", "xpassed"])
async def test_only_what_passed_is_cached(laboratory: Laboratory, outcome: str) -> None:
    await laboratory.run({A1: outcome})

    _, leased = await laboratory.run()

    assert leased == [A1]


async def test_what_passed_only_when_tried_again_is_not_cached(laboratory: Laboratory) -> None:
    first, _ = await laboratory.run({A1: "flaky"}, retries=1)

    _, leased = await laboratory.run(retries=1)

    assert first.state is RunState.PASSED
    assert leased == [A1]


async def test_sampled_case_that_ends_otherwise_is_reported_and_its_file_run_from_then_on(
    laboratory: Laboratory,
) -> None:
    first, _ = await laboratory.run()

    second, leased = await laboratory.run({A1: "failed"}, sample=1.0)
    _, then = await laboratory.run()
    _, later = await laboratory.run()

    assert leased == [A1, A2, B1]
    assert second.state is RunState.FAILED
    assert second.tasks["unit"].wrong_hits == 1
    events = [each for commit in await laboratory.core.store.read(second.run_id) for each in decode(commit.events)]
    [wrong] = [each for each in events if isinstance(each, WrongHit)]
    assert (wrong.case_id, wrong.file, wrong.outcome) == (A1, "test_a.py", Outcome.FAILED)
    assert wrong.cached_from.run_id == first.run_id
    assert then == later == [A1, A2]


async def test_sampled_case_that_fails_at_first_and_then_passes_is_a_wrong_hit_once(laboratory: Laboratory) -> None:
    await laboratory.run()

    status, _ = await laboratory.run({A1: "flaky"}, sample=1.0, retries=1)

    assert status.state is RunState.PASSED
    assert status.tasks["unit"].wrong_hits == 1


async def test_sampled_case_that_passes_has_its_new_origin(laboratory: Laboratory) -> None:
    await laboratory.run()
    second, _ = await laboratory.run(sample=1.0)

    third, leased = await laboratory.run()

    assert leased == []
    rows = await laboratory.core.store.list_cases(third.run_id)
    origins = [decode_result(row.result).cached_from for row in rows]
    assert {origin.run_id for origin in origins if origin is not None} == {second.run_id}


async def test_cached_results_leave_the_history_alone(laboratory: Laboratory) -> None:
    core = laboratory.core
    await laboratory.run()
    before = await core.store.load_history("p", "unit")

    await laboratory.run(duration=timedelta(seconds=9), fingerprints={**SAME, "test_b.py": "c" * 64})

    after = await core.store.load_history("p", "unit")
    assert {case_id for case_id in before if before[case_id] != after[case_id]} == {B1}


async def test_last_failed_runs_what_failed_though_the_rest_is_cached(laboratory: Laboratory) -> None:
    await laboratory.run({B1: "failed"})

    status, leased = await laboratory.run(last_failed=True)

    assert leased == [B1]
    assert status.tasks["unit"].counts.planned == 1


def test_sample_is_the_same_for_a_run_and_another_for_the_next() -> None:
    ids = [f"test_{number}" for number in range(2000)]

    chosen = {run_id: {each for each in ids if sampled(run_id, each, 0.05)} for run_id in ("r1", "r2")}

    assert all(60 < len(each) < 140 for each in chosen.values())
    assert len(chosen["r1"] & chosen["r2"]) < 30
    assert not any(sampled("r1", each, 0.0) for each in ids)
    assert all(sampled("r1", each, 1.0) for each in ids)


async def test_shards_hold_only_what_is_no_hit() -> None:
    collected = [PlannedCase(case_id=f"t.py::test_{number}", file="t.py") for number in range(6)]
    wanted = tuple(case.case_id for case in collected[1:])
    task = pytest_task(shards=2, only_cases=(*wanted, "gone"))
    hits = {case.case_id: _hit() for case in collected[:4]}

    found = await with_hits(
        task,
        collected,
        hits,
        _deal,
        lambda case_id: case_id.endswith("3"),
    )

    assert [case.case_id for case in found.cases] == list(wanted)
    assert sorted(each for shard in found.shards for each in shard.cases) == [2, 3, 4]
    assert [each.case_id for each in found.cached] == ["t.py::test_1", "t.py::test_2"]
    assert found.sampled.keys() == {"t.py::test_3"}
    assert (found.missing, found.left_out) == (("gone",), 1)


async def _deal(task: Task, cases: Sequence[PlannedCase]) -> Plan:
    return plan(task, cases, {}, fleet=Fleet(slots={"w1": 1}))


def _hit() -> CachedCase:
    return CachedCase(run_id="r0", at=datetime(2026, 11, 3, tzinfo=UTC))
