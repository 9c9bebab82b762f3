"""The agent's half of the line to a session."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fleetest.worker.runners.pytest_channel import PROTOCOL, Channel

TURNS = 5


class Line:
    """A channel and a session that speaks on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[Any] = []
        self.told = asyncio.Event()
        self.channel = Channel(
            path, token="t", on_message=self._hear, on_garbage=pytest.fail, on_ended=lambda: self._hear("end")
        )

    def _hear(self, message: Any) -> None:
        self.heard.append(message)
        self.told.set()

    async def open(self) -> None:
        self.channel.listen()
        _, self.writer = await asyncio.open_unix_connection(self.path)
        self.say({"event": "hello", "protocol": PROTOCOL, "token": "t"})

    def say(self, message: Any) -> None:
        self.writer.write(json.dumps(message).encode() + b"\n")

    async def heard_something(self) -> None:
        async with asyncio.timeout(10):
            await self.told.wait()
        self.told.clear()


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[Line]:
    line = Line(tmp_path / "s")
    await line.open()
    yield line
    line.writer.close()
    await line.channel.close()


FIRST, SECOND = {"event": "first"}, {"event": "second"}


async def test_who_rests_is_not_woken_up_by_each_word(line: Line) -> None:
    line.say(FIRST)
    await line.heard_something()

    line.channel.read_later(timedelta(hours=1))
    line.say(SECOND)
    for _ in range(TURNS):  # it is in the socket by now
        await asyncio.sleep(0)

    assert line.heard == [FIRST]


async def test_what_was_said_meanwhile_is_heard_after_a_rest(line: Line) -> None:
    line.say(FIRST)
    await line.heard_something()

    line.channel.read_later(timedelta(milliseconds=1))
    line.say(SECOND)
    await line.heard_something()

    assert line.heard == [FIRST, SECOND]


async def test_a_session_that_ends_is_heard_to_its_last_word(line: Line) -> None:
    line.say(FIRST)
    await line.heard_something()

    line.channel.read_later(timedelta(hours=1))
    line.say(SECOND)
    line.writer.close()
    await line.channel.drain(timedelta(seconds=10))

    assert line.heard == [FIRST, SECOND, "end"]


async def test_a_closed_line_takes_no_rest(line: Line) -> None:
    line.say(FIRST)
    await line.heard_something()

    await line.channel.close()
    line.channel.read_later(timedelta(hours=1))

    assert line.heard == [FIRST]
