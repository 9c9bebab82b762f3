"""Ctrl-C while a run is followed: what the person, or the system, wants of it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, Protocol, TextIO

if TYPE_CHECKING:
    from fleetest.client.view.renderer import Renderer

__all__ = ["AskAtTerminal", "CancelAtOnce", "Chooser", "Decision", "Signals"]

_QUESTION: Final = "\nThe run goes on. [c]ancel it, [d]etach from it, or [k]eep watching? "


class Decision(Enum):
    """What becomes of a run whose follower was interrupted."""

    CANCEL = auto()
    DETACH = auto()
    KEEP = auto()


class Signals:
    """SIGINT and SIGTERM as they come, while within `caught`."""

    def __init__(self) -> None:
        self._numbers: asyncio.Queue[signal.Signals] = asyncio.Queue()

    async def next(self) -> signal.Signals:
        return await self._numbers.get()

    def put(self, number: signal.Signals) -> None:
        self._numbers.put_nowait(number)

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Take the process's signals; gives them back at the end."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, self.put, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


class Chooser(Protocol):
    """Decides what an interrupt means."""

    async def choose(self, number: signal.Signals, signals: Signals, renderer: Renderer) -> Decision:
        """Further signals may come while it decides."""


class CancelAtOnce:
    """Nobody is there to be asked."""

    async def choose(self, number: signal.Signals, signals: Signals, renderer: Renderer) -> Decision:
        del number, signals, renderer
        return Decision.CANCEL


class AskAtTerminal:
    """Asks on Ctrl-C; a second Ctrl-C, or SIGTERM, cancels at once."""

    def __init__(self, answers: TextIO, questions: TextIO) -> None:
        self._answers = answers
        self._questions = questions

    async def choose(self, number: signal.Signals, signals: Signals, renderer: Renderer) -> Decision:
        if number is not signal.SIGINT:
            return Decision.CANCEL
        with renderer.suspended():
            self._questions.write(_QUESTION)
            self._questions.flush()
            line = asyncio.ensure_future(self._line())
            again = asyncio.ensure_future(signals.next())
            try:
                done, _ = await asyncio.wait({line, again}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                line.cancel()
                again.cancel()
        if again in done:
            self._questions.write("\n")
            return Decision.CANCEL
        return {"c": Decision.CANCEL, "d": Decision.DETACH}.get(line.result()[:1].lower(), Decision.KEEP)

    async def _line(self) -> str:
        """What is typed, without a thread that would wait for ever; an ended input detaches."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._answers, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._answers)
        return self._answers.readline().strip() or "k"
