"""One partition of the queue: its keys, and the scripts that work on them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from fleetest.master.queue.connection import redis_errors
from fleetest.master.queue.sources import lua
from fleetest.master.queue.wire import Wire, WireScript

__all__ = ["Partition", "Script"]

_FIXED: Final = (
    "entries",
    "claims",
    "holders",
    "delayed",
    "reservations",
    "fair",
    "queues",
    "used",
    "version",
    "uses",
    "holds",
    "resources",
)
"""In the order in which `prelude.lua` names them."""

_LAYOUT: Final = 2
"""Of what the keys hold. Those of an earlier layout are not read: what waits is queued once more, from the log."""


class Script(StrEnum):
    """The scripts: each is a file of that name, and the prelude goes before it."""

    ENQUEUE = "enqueue"
    CLAIM = "claim"
    CONFIRM = "confirm"
    RELEASE = "release"
    REMOVE = "remove"
    RETURN_DUE = "return_due"
    PLACE = "place"
    KEEP = "keep"
    GIVE_BACK = "give_back"
    RESTORE = "restore"


_PARTS: Final = {
    Script.CLAIM: ("claim_tags", "claim_resources", "claim_view", "claim_room", "claim_give", "claim_gangs"),
}
"""Those that go before a long script."""


class Partition:
    """
    Args:
        name: goes into every key as its hash tag: all keys of a partition share a slot of Redis Cluster.
    """

    def __init__(self, redis: Redis, name: str) -> None:
        self._prefix = f"fleetest:{{{name}}}:{_LAYOUT}:"
        self.channel = self._prefix + "wakeups"
        self._keys = [self._prefix + each for each in _FIXED]
        wire = Wire(redis)
        self._scripts = {
            each: WireScript(wire, "\n".join(map(lua, ("prelude", *_PARTS.get(each, ()), each)))) for each in Script
        }

    def key(self, name: str) -> str:
        """The full name of one of the fixed keys."""
        return self._prefix + name

    def index(self, run: str) -> str:
        """The full name of a run's index."""
        return f"{self._prefix}index:{run}"

    async def call(
        self,
        script: Script,
        request: dict[str, Any],
        *,
        queues: Sequence[str] = (),
        runs: Sequence[str] = (),
        kinds: Sequence[bytes] = (),
    ) -> Any:
        """
        Run a script, which may touch these queues, the indexes of these runs, and no others.

        Args:
            request: without bytes: `cmsgpack` in Redis 6.2 knows no msgpack `bin`.
            kinds: handed over as they are.

        Raises:
            DependencyUnavailable: Redis does not answer.
        """
        keys = [*self._keys, *(f"{self._prefix}queue:{name}" for name in queues), *map(self.index, runs)]
        packed = msgspec.msgpack.encode({**request, "queues": queues, "runs": runs})
        with redis_errors():
            return await self._scripts[script](keys, [packed, self.channel, *kinds])
