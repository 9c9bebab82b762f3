"""What a task really uses is measured, shown, and what its next run is sized by."""

from __future__ import annotations

import re
import sys

import pytest

from fleetest.client import ReasonKind
from fleetest.common.states import RunState

MIB = 1 << 20

TOGETHER = "touch {here}/$FLEETEST_SHARD_INDEX; until [ $(ls {here} | wc -l) -ge 3 ]; do sleep 0.05; done"
"""Ends only when three shards run at the same time."""


@pytest.fixture
def client(apart, start_worker):
    start_worker("only", "--slots", "3")
    with apart.client(project="sized") as client:
        yield client


@pytest.fixture
def run(apart, client, until):
    """One run of the task `t`, to its end; it asks for all cores and nine tenths of the memory of the only worker."""

    def submit(shell, shards=1):
        until(client.workers, what="the worker is there")
        capacity = client.workers()[0].capacity
        requires = f"{{cpu: {capacity.cpu_millis / 1000}, memory: {capacity.memory_bytes * 9 // 10}B}}"
        task = f'{{run: "{shell}", shards: {shards}, requires: {requires}, timeouts: {{total: 60s}}}}'
        return client.submit(f"version: 1\nname: s\ntasks: {{t: {task}}}").run_id

    def to_its_end(shell, shards=1):
        ended = apart.ended(submit(shell, shards))
        assert ended.state is RunState.PASSED, ended.reason
        return ended.tasks[0]

    to_its_end.submit = submit
    return to_its_end


def test_second_run_packs_more_shards_of_a_task_that_asks_for_too_much(client, run, apart, tmp_path, until):
    here = tmp_path / "together"
    here.mkdir()
    together = TOGETHER.format(here=here)
    alone = run.submit(together, shards=3)
    until(lambda: list(here.iterdir()), what="the first shard runs")
    reasons = client.explain(alone, task_id="t")[0].reasons
    assert [path.name for path in here.iterdir()] == ["0"]
    assert ReasonKind.WORKERS_BUSY in {reason.kind for reason in reasons}
    client.cancel(alone)
    apart.ended(alone)
    first = run("sleep 0.2")
    (here / "0").unlink()

    second = run(together, shards=3)

    assert first.packed == first.requested
    assert 0 < first.usage.peak_memory_bytes < 100 * MIB
    assert second.requested == first.requested
    assert second.packed.memory_bytes == first.usage.peak_memory_bytes + 32 * MIB
    assert second.packed.cpu_millis < first.requested.cpu_millis / 3


def test_task_that_grew_is_sized_by_its_growth_in_the_run_after(run, apart):
    run("true")
    grown = run(f"{sys.executable} -c 'bytearray(200 << 20)'")

    after = run("true")

    assert grown.packed.memory_bytes < 100 * MIB
    assert grown.usage.peak_memory_bytes > 200 * MIB
    assert after.packed.memory_bytes >= 1.2 * grown.usage.peak_memory_bytes
    assert re.search(r"(?m)^t +passed .* \d+\.\d MiB of \S+ GiB +\d\.\d of \d", apart.fleetest("show").stdout)
