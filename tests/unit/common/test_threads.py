from __future__ import annotations

import asyncio
import threading

import pytest

from fleetest.common.threads import in_thread


async def test_result_and_error_of_the_thread_come_back() -> None:
    assert await in_thread(sorted, [2, 1], reverse=True) == [2, 1]
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 1, 0)


async def test_cancelled_caller_waits_for_the_thread_however_often_it_is_cancelled() -> None:
    started, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        may_end.wait(30)
        ended.set()

    caller = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(started.wait, 30)
    for _ in range(2):
        caller.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    ended_early = caller.done()
    may_end.set()

    with pytest.raises(asyncio.CancelledError):
        await caller
    assert not ended_early
    assert ended.is_set()
