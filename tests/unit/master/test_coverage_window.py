"""What running tests tell of coverage, on its way into the log of their run."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from fleetest.common.coverage import CoverageTotals, FileCoverage
from fleetest.common.states import Verdict
from fleetest.common.suite.combining import with_combining
from fleetest.common.tasks import Coverage
from fleetest.master.reports import CoverageMeasured, Ended, Planned, Results, Running
from fleetest.master.runs.events import CoverageUpdated, decode
from fleetest.master.runs.summary import summary_of
from fleetest.master.sessions import AttemptRef
from tests.support.line_sets import bits_of
from tests.tools.core import Core
from tests.tools.story import cases, pytest_task, result

LINES = bits_of([1, 2, 3, 4])


def executed(*lines: int) -> CoverageMeasured:
    return CoverageMeasured(files={"a.py": FileCoverage(lines=LINES, covered=bits_of(lines))})


def done(number: int) -> tuple[Results, Ended]:
    return Results(results=(result(f"a.py::{number}"),)), Ended(verdict=Verdict.COMPLETED)


async def two_shards(core: Core) -> tuple[AttemptRef, AttemptRef]:
    task = replace(pytest_task(shards=2), coverage=Coverage())
    await core.submit(*with_combining([task]))
    session = await core.connect()
    [plan] = await core.assigned(session)
    await core.report(plan.ref, Planned(cases=cases("a.py::1", "a.py::2")), Ended(verdict=Verdict.COMPLETED))
    session.release([plan.ref])
    one, two = sorted(await core.assigned(session), key=lambda assigned: assigned.case_ids)
    await core.report(one.ref, Running())
    await core.report(two.ref, Running())
    return one.ref, two.ref


async def updates(core: Core, run_id: str) -> list[CoverageUpdated]:
    commits = await core.store.read(run_id)
    return [each for commit in commits for each in decode(commit.events) if isinstance(each, CoverageUpdated)]


async def test_sessions_are_heard_together_each_five_seconds_and_when_all_have_ended(core: Core) -> None:
    one, two = await two_shards(core)

    await core.report(one, executed(1))
    await core.report(two, executed(2))
    gathering = await updates(core, one.run_id)
    core.clock.advance(timedelta(seconds=5))
    await core.report(one, executed(1))
    after_the_window = await updates(core, one.run_id)
    await core.report(one, executed(3), *done(1))
    before_the_end = await updates(core, one.run_id)
    await core.report(two, executed(2), *done(2))

    assert gathering == []
    assert before_the_end == after_the_window
    assert [update.totals.covered for update in after_the_window] == [2]
    assert [update.totals.covered for update in await updates(core, one.run_id)] == [2, 3]
    [summary] = summary_of(await core.status(one.run_id)).coverage
    assert (summary.task_id, summary.combined, summary.files) == ("coverage", False, 1)
    assert summary.worst == (("a.py", CoverageTotals(lines=4, covered=3)),)


async def test_reports_that_are_sent_again_or_come_too_late_change_nothing(core: Core) -> None:
    one, two = await two_shards(core)
    await core.report(one, executed(1), Ended(verdict=Verdict.COMPLETED))
    core.clock.advance(timedelta(seconds=5))
    await core.report(two, executed(1))

    await core.report(one, executed(4))  # it is over
    core.clock.advance(timedelta(seconds=5))
    await core.report(two, executed(1))

    [update] = await updates(core, one.run_id)
    assert update.files == executed(1).files
