from __future__ import annotations

import asyncio

from fleetest.common.ending import end_tasks


async def test_task_that_loses_a_cancellation_is_ended_all_the_same():
    lost = 0

    async def stubborn():
        nonlocal lost
        while lost < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)

    await end_tasks([task])

    assert task.cancelled()
    assert lost == 2


async def test_what_an_ending_task_raises_is_dropped():
    async def fails():
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("at the end")

    task = asyncio.create_task(fails())
    await asyncio.sleep(0)

    await end_tasks([task])

    assert task.done()


async def test_tasks_of_a_task_that_is_asked_to_end_again_and_again_are_ended_with_it():
    lost = 0

    async def stubborn():
        nonlocal lost
        while lost < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1

    async def owner():
        inner = asyncio.create_task(stubborn())
        try:
            await asyncio.Event().wait()
        finally:
            await end_tasks([inner])

    task = asyncio.create_task(owner())
    for _ in range(3):
        await asyncio.sleep(0)

    await end_tasks([task])

    assert task.cancelled()
    assert lost == 3


async def test_no_task_is_ended_at_once():
    await end_tasks([])
