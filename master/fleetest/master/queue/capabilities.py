"""
Ambient queues: each project has one for each set of required capabilities, whose hash is in its name.

Nobody declares one. The idea is LUCI Swarming's (`task_queues.py` in luci-py): the claimer works out once which of
the known queues a worker satisfies, and from then on reads only those.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from urllib.parse import quote

import msgspec

__all__ = ["KnownQueues", "canonical", "class_name", "queue_name", "set_of"]


def canonical(requirements: Mapping[str, str]) -> str:
    """The one spelling of a set of requirements."""
    return msgspec.json.encode(dict(requirements), order="sorted").decode()


def queue_name(requirements: Mapping[str, str], project: str, uses: Sequence[msgspec.Struct] = ()) -> str:
    """
    The name of a project's queue: `SET:project`. Of the set there are 80 bits of the hash of the requirements: a
    collision is not to be expected among 10⁹ sets.

    Args:
        uses: of named resources: who needs the same of them waits in a queue of its own, so that nobody else has to
            look past.
    """
    return f"{_set_of(frozenset(requirements.items()), tuple(uses))}:{quote(project, safe='')}"


def set_of(queue: str) -> str:
    """The set in a queue's name."""
    return queue.partition(":")[0]


@lru_cache(maxsize=4096)
def _set_of(requirements: frozenset[tuple[str, str]], uses: tuple[msgspec.Struct, ...]) -> str:
    named = canonical(dict(requirements))
    if uses:
        named += msgspec.json.encode(uses).decode()
    return _hashed(named)


def _hashed(named: str) -> str:
    return hashlib.sha256(named.encode()).hexdigest()[:20]


@lru_cache(maxsize=256)
def class_name(queues: tuple[str, ...]) -> str:
    """Names the class of all workers that satisfy these queues, whichever projects have any."""
    return _hashed(canonical(dict.fromkeys(map(set_of, queues), "")))


class KnownQueues:
    """
    The queues that existed at one moment, and which of them a worker satisfies.

    Args:
        version: changes whenever a queue comes or goes.
        queues: name to required capabilities.
        uses: name to what the entries of a queue use of named resources, of the few that use any.
    """

    def __init__(
        self,
        version: str = "",
        queues: Mapping[str, Mapping[str, str]] | None = None,
        uses: Mapping[str, Sequence[msgspec.Struct]] | None = None,
    ) -> None:
        self.version = version
        self.uses = uses or {}
        self._queues = queues or {}
        self._told_apart = frozenset(key for wanted in self._queues.values() for key in wanted)
        self._satisfied: dict[frozenset[tuple[str, str]], tuple[str, ...]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._queues)

    def like(self, queue: str) -> list[str]:
        """Those of all projects that need the same as this one, itself included."""
        return [name for name in self._queues if set_of(name) == set_of(queue)]

    def satisfied_by(self, capabilities: Mapping[str, str]) -> tuple[str, ...]:
        """
        The sorted names of the queues whose every requirement the worker has; remembered for its like: workers that no
        queue tells apart.
        """
        key = frozenset(item for item in capabilities.items() if item[0] in self._told_apart)
        if (known := self._satisfied.get(key)) is None:
            known = tuple(sorted(name for name, wanted in self._queues.items() if wanted.items() <= key))
            self._satisfied[key] = known
        return known
