"""
The agent's half of a load generator: its process, and the line to it.

The other half is `fleetest.worker.load`, which cannot be imported here: it runs in the task's interpreter. `line.py`
there describes what the two say to each other.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from fleetest.common.load import LoadSample, RequestSample
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.ports import Environment, Process
from fleetest.worker.runners.pytest_channel import Channel

__all__ = ["LoadGenerator", "load_sample"]

_FILES: Final = Path(__file__).parent.parent / "load"
_PACKAGE: Final = "fleetest_load"
_OPEN_DIRECTORY: Final = 0o755
_OPEN_FILE: Final = 0o644
_DRAIN: Final = timedelta(seconds=2)
_MOST_NAMES: Final = 1000
_LONGEST_NAME: Final = 200


class LoadGenerator:
    """
    One process, from its start to its end.

    Args:
        on_sample: gets what it did, second by second.
        output: gets what it writes.

    Attributes:
        ready: set when it is ready to begin.
        told_all: whether it has said its last.
        problem: why it cannot be used, if it said so.
    """

    def __init__(
        self, environment: Environment, *, on_sample: Callable[[LoadSample], None], output: Callable[[bytes], None]
    ) -> None:
        self.ready = asyncio.Event()
        self.told_all = False
        self.problem = ""
        self._environment = environment
        self._on_sample = on_sample
        self._output = output
        self._process: Process | None = None
        self._channel: Channel | None = None

    @property
    def process(self) -> Process | None:
        """`None` before it was started."""
        return self._process

    async def start(self, spec: TaskSpec, *, index: int, count: int, variables: Mapping[str, str]) -> None:
        """
        Start it; it then imports what it needs, and says that it is ready.

        Args:
            index: which part of the load is its own, of `count`.

        Raises:
            InvalidRequest, CapacityExceeded, DependencyUnavailable: as `Environment.start` does.
        """
        host, seen = self._environment.host_channel_directory, self._environment.channel_directory
        name, token = f"load-{secrets.token_hex(4)}", secrets.token_hex(16)
        await asyncio.to_thread(_install, host / _PACKAGE)
        self._channel = Channel(
            host / name, token=token, on_message=self._hear, on_garbage=self._hang_up, on_ended=lambda: None
        )
        self._channel.listen()
        self._process = await self._environment.start(
            [self._environment.python, str(seen / _PACKAGE)],
            env={
                **variables,
                "FLEETEST_LOAD_SOCKET": str(seen / name),
                "FLEETEST_LOAD_TOKEN": token,
                "FLEETEST_LOAD_SCENARIO": spec.command[0] if spec.command else "",
                "FLEETEST_SHARD_INDEX": str(index),
                "FLEETEST_SHARD_TOTAL": str(count),
            },
            cwd=self._environment.source / spec.working_directory,
            output=self._output,
        )

    def begin(self) -> None:
        """The schedule starts now."""
        if self._channel is not None:
            self._channel.send({"begin": True})

    async def ended(self) -> int:
        """
        Its exit code, when it has ended and all that it said has been heard.

        Raises:
            DependencyUnavailable: nobody knows what became of it.
        """
        assert self._process is not None, "it was not started"
        code = await self._process.wait()
        if self._channel is not None:
            await self._channel.drain(_DRAIN)
        return code

    async def stop(self, grace: timedelta) -> None:
        """Ask it to make no more load and to end; end it when the grace has passed."""
        if self._process is not None:
            await self._process.stop(grace)

    async def close(self) -> None:
        """Nothing of it is left. Idempotent."""
        await self.stop(timedelta())
        if self._channel is not None:
            await self._channel.close()

    def _hear(self, message: Mapping[str, Any]) -> None:
        match message["event"]:
            case "ready":
                self.ready.set()
            case "unfit":
                self.problem = str(message.get("reason", ""))[:2000]
            case "sample":
                sample = load_sample(message)
                self.told_all = self.told_all or sample.last
                self._on_sample(sample)

    def _hang_up(self, reason: str) -> None:
        self.problem = self.problem or f"its line to the worker broke: {reason}"


def load_sample(message: Mapping[str, Any]) -> LoadSample:
    """
    The sample that a message holds.

    Raises:
        ValueError: it does not hold one.
    """
    try:
        return LoadSample(
            second=_number(message["second"], 1 << 30),
            length=timedelta(microseconds=_number(message["length_us"], 1_000_000)),
            users=_number(message["users"], 1 << 30),
            arrivals=_number(message["arrivals"], 1 << 40),
            lag=timedelta(microseconds=_number(message["lag_us"], 1 << 50)),
            last=message["last"] is True,
            requests=tuple(
                RequestSample(name=str(name)[:_LONGEST_NAME], errors=_number(errors, 1 << 40), histogram=str(histogram))
                for name, errors, histogram in message["requests"][:_MOST_NAMES]
            ),
        )
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"not a sample: {error!r}") from error


def _number(value: object, most: int) -> int:
    if not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"not a number from 0 to {most}: {value!r}"[:200])
    return value


def _install(directory: Path) -> None:
    """Put the generator's files where its interpreter sees them: as a program, and the package that it imports."""
    package = directory / _PACKAGE
    package.mkdir(parents=True, exist_ok=True)
    for path in (directory, package):
        path.chmod(_OPEN_DIRECTORY)
    for path in _FILES.glob("*.py"):
        target = (directory if path.stem == "__main__" else package) / path.name
        target.write_bytes(path.read_bytes())
        target.chmod(_OPEN_FILE)
