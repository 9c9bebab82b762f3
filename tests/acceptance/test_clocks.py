"""Clocks minutes apart: runs finish, nothing is repeated, and what is told of time is true."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from fleetest.client import ReasonKind
from fleetest.common.states import RunState
from tests.acceptance.conftest import clean_environment
from tests.support.masters import Masters
from tests.support.other_clock import clock_off_by

MINUTES = timedelta(minutes=5)
SOON = timedelta(seconds=60)
"""How much later than its beginning a test is over, and how far apart right times may be."""

JITTER = timedelta(seconds=1)
"""What corrected clocks may still differ by, on a machine that has more to do than it can."""

SUITE = """
version: 1
name: clocks
tasks:
  first: {run: "sleep 1; echo >> $TALLY", shards: 6, env: {TALLY: %s}}
  second: {run: "echo >> $TALLY", shards: 2, needs: [first], env: {TALLY: %s}}
"""


@pytest.fixture
def skewed(tmp_path):
    """Masters ten minutes apart, each with a worker that is ten minutes from it."""
    ahead, behind = clock_off_by(MINUTES), clock_off_by(-MINUTES)
    with Masters(tmp_path / "masters", clean_environment()) as masters:
        masters.redis.start()
        masters.start("a", **ahead)
        masters.start("b", **behind)
        masters.until_serving("a", "b")
        masters.start_worker("late", ["a", "b"], **behind)
        masters.start_worker("early", ["b", "a"], **ahead)
        yield masters


def test_a_run_on_clocks_minutes_apart_ends_and_is_told_as_it_was(skewed, tmp_path, until):
    tally = tmp_path / "tally"
    began = datetime.now(UTC)
    with skewed.client("a") as client:
        until(lambda: len(client.workers()) == 2, what="both workers are there")
        run_id = client.submit(SUITE % (tally, tally)).run_id
        commits = [*client.watch(run_id)]
        run, workers = client.get_run(run_id), client.workers()
        cases = [case.result for case in client.cases(run_id)]

    assert run.state is RunState.PASSED
    assert len(tally.read_text().splitlines()) == 8
    assert len(cases) == 8
    times = [commit.at for commit in commits]
    assert all(earlier <= later + JITTER for earlier, later in itertools.pairwise(times)), times
    times += [case.started_at for case in cases] + [worker.last_seen_at for worker in workers]
    assert all(began - SOON < time < began + SOON for time in times), times
    first, second = run.tasks
    assert timedelta(seconds=1) < first.ended_at - first.started_at < SOON
    assert first.ended_at <= second.ended_at
    assert {case.duration > timedelta(seconds=0.9) for case in cases if case.case_id.startswith("first")} == {True}


def test_a_master_that_dies_leaves_no_retry_waiting_for_its_clock(skewed, tmp_path, until):
    gate = tmp_path / "gate"
    with skewed.client("b") as client:
        until(lambda: len(client.workers()) == 2, what="both workers are there")
        run_id = client.submit(
            f"version: 1\nname: s\ntasks: {{t: {{run: 'until test -e {gate}; do sleep 0.1; done'}}}}"
        ).run_id
        until(lambda: any(worker.slots_used for worker in client.workers()), what="the task runs")
        [busy] = [worker.worker_id for worker in client.workers() if worker.slots_used]
        skewed.kill("a")
        skewed.kill(busy)
        gate.touch()
        [*client.watch(run_id)]
        run = client.get_run(run_id)

    assert run.state is RunState.PASSED
    assert run.ended_at - run.submitted_at < SOON


def test_runs_are_in_the_order_in_which_they_were_handed_in(skewed):
    runs = []
    for master in ("a", "b", "a"):
        with skewed.client(master) as client:
            runs.append(client.submit("version: 1\nname: s\ntasks: {t: {run: 'true', requires: {cpu: 500}}}").run_id)

    with skewed.client("b") as client:
        assert [run.run_id for run in client.list_runs()] == runs[::-1]
        explained = [reason.kind for reason in client.explain(runs[0])[0].reasons]
    assert not {ReasonKind.RETRY_WAIT, ReasonKind.ENDED} & {*explained}
