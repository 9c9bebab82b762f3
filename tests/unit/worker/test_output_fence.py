"""What a session says stays behind the output that it had written by then."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetest.worker.runners.output_fence import OutputFence

WORD = "secret"


class Heard:
    """What came through a fence, in order."""

    def __init__(self) -> None:
        self.all: list[Any] = []
        self.fence = OutputFence(WORD, on_output=self._hear_output, on_message=self._hear)

    def _hear_output(self, content: bytes) -> None:
        if self.all and isinstance(self.all[-1], bytes):
            content = self.all.pop() + content
        self._hear(content)

    def _hear(self, what: Any) -> None:
        self.all.append(what)


async def test_message_waits_for_the_output_before_its_mark():
    heard = Heard()
    first, second = {"event": "done", "mark": 1}, {"event": "start"}

    heard.fence.say(first)
    heard.fence.say(second)
    heard.fence.write(b"of the first")
    assert heard.all == [b"of the first"]
    heard.fence.write(b", all\0secret 1\0of the second")

    assert heard.all == [b"of the first, all", first, second, b"of the second"]


@given(st.lists(st.integers(1, 60)))
def test_marks_are_taken_out_wherever_the_output_is_cut(sizes: list[int]):
    output = b"a\0b\0secret 1\0\0secret 2\0\0secret x\0\0sec"

    async def cut() -> list[Any]:
        heard, rest = Heard(), output
        for size in sizes:
            heard.fence.write(rest[:size])
            rest = rest[size:]
        heard.fence.write(rest)
        heard.fence.end()
        return heard.all

    assert asyncio.run(cut()) == [b"a\0b\0secret x\0\0sec"]


@pytest.mark.parametrize("mark", [0, None, "garbage"])
async def test_message_of_an_output_that_was_lost_does_not_wait(mark: Any):
    heard = Heard()

    heard.fence.say({"event": "done", "mark": mark})

    assert heard.all == [{"event": "done", "mark": mark}]


async def test_end_of_both_passes_everything_on():
    heard = Heard()
    message = {"event": "done", "mark": 7}

    heard.fence.say(message)
    heard.fence.write(b"cut off \0secr")
    heard.fence.end()

    assert heard.all == [b"cut off \0secr", message]
