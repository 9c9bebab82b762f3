"""Has no-op tasks done by a cluster of ours, and checks what came of them."""

from __future__ import annotations

import time
from typing import Final

from fleetest.client import AsyncClient
from fleetest.client.events import CasesFinished, RunEnded
from fleetest.common.errors import WrongState
from fleetest.common.states import Outcome, RunState

__all__ = ["run_noops"]

_SUITE: Final = """
version: 1
name: no-op
tasks:
  noop:
    command: [no-op, '{cases}']
    shards: {count}
    requires: {{cpu: 0}}
"""
"""Each shard of a command is queued, claimed, leased, tried and reported by itself."""


async def run_noops(client: AsyncClient, count: int, *, cases: int = 1) -> float:
    """
    The seconds from submission until the client holds every result and knows that the run has ended.

    Args:
        cases: of each task.

    Raises:
        WrongState: not every task has passed, or one has two results.
    """
    start = time.perf_counter()
    submission = await client.submit(_SUITE.format(count=count, cases=cases), project="benchmarks", followed=True)
    passed: list[str] = []
    state = RunState.RUNNING
    async for commit in client.watch(submission.run_id):
        for event in commit.events:
            if isinstance(event, CasesFinished):
                passed += [result.case_id for result in event.results if result.outcome is Outcome.PASSED]
            elif isinstance(event, RunEnded):
                state = event.state
    seconds = time.perf_counter() - start
    expected = count * cases
    if state is not RunState.PASSED or len(passed) != expected or len(set(passed)) != expected:
        raise WrongState(f"of {expected} cases {len(set(passed))} passed, in {len(passed)} results; the run: {state}")
    return seconds
