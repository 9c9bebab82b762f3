"""
What keeps cached values: one port, whatever the values mean. Every layer passes `tests/contract/test_cache_layer.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final, Protocol

__all__ = ["CacheLayer", "CacheStrategy", "Eviction", "check_key", "covers"]

_KEY: Final = re.compile(r"[0-9a-f]+(/[0-9a-f]+)*", re.ASCII)


class Eviction(StrEnum):
    """What makes room for a new value in a layer that is full."""

    LRU = "lru"
    """The value that was not asked for for the longest time."""

    FIFO = "fifo"
    """The value that was put there first."""

    RANDOM = "random"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStrategy:
    """
    How a layer is bounded.

    Args:
        ttl: how long a value is kept after it was put.
        max_bytes: of all values and their keys together; zero switches the layer off.
    """

    ttl: timedelta
    max_bytes: int
    eviction: Eviction = Eviction.LRU


class CacheLayer(Protocol):
    """
    Keeps values by keys, as long as it likes but no longer than its strategy says. Losing one is no failure.

    A key is lower-case hexadecimal words, parted by `/`, from the wider to the narrower.

    Every method raises `DependencyUnavailable` or `CapacityExceeded` when what it keeps its values in does not serve.
    """

    name: str

    async def get(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """The values that there are. A broken layer may answer garbage: whoever reads it must be able to tell."""

    async def put(self, values: Mapping[str, bytes]) -> None:
        """Keep values, in place of those that their keys had. One that is larger than the layer is not kept."""

    async def drop(self, scope: str) -> None:
        """Forget the value of this key, and of all keys below it. Idempotent."""


def check_key(key: str) -> str:
    """A key again, fit to be a path; anything else is a defect of the caller."""
    assert _KEY.fullmatch(key), f"not a key: {key!r}"
    return key


def covers(scope: str, key: str) -> bool:
    """Whether `key` is the scope, or below it."""
    return key == scope or key.startswith(scope + "/")
