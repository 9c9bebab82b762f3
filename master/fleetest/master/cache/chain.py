"""Layers as one: the fast ones spare the slow ones the asking, the slow ones remember what the fast ones forgot."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from datetime import timedelta
from typing import Final, TypeVar

import structlog

from fleetest.common.errors import FleetestError
from fleetest.master.cache.layers import CacheLayer

__all__ = ["LayerChain"]

_T = TypeVar("_T")

_log = structlog.get_logger()

_PATIENCE: Final = timedelta(seconds=3)
"""For one layer: a run waits for the answer."""


class LayerChain:
    """
    Fulfils `CacheLayer`, and never raises: a layer that does not serve is said so in the log, and passed over.

    Args:
        layers: the fastest first.
    """

    name = "chain"

    def __init__(self, layers: Sequence[CacheLayer]) -> None:
        self._layers = tuple(layers)

    async def get(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        found: dict[str, bytes] = {}
        for number, layer in enumerate(self._layers):
            wanted = [key for key in keys if key not in found]
            if not wanted:
                break
            here = await _tried(layer, "get", layer.get(wanted)) or {}
            found |= here
            for faster in self._layers[:number] if here else ():
                await _tried(faster, "put", faster.put(here))
        return found

    async def put(self, values: Mapping[str, bytes]) -> None:
        for layer in self._layers:
            await _tried(layer, "put", layer.put(values))

    async def drop(self, scope: str) -> None:
        for layer in reversed(self._layers):  # or a slow one would fill a fast one again meanwhile
            await _tried(layer, "drop", layer.drop(scope))


async def _tried(layer: CacheLayer, what: str, work: Awaitable[_T]) -> _T | None:
    try:
        async with asyncio.timeout(_PATIENCE.total_seconds()):
            return await work
    except (FleetestError, TimeoutError) as error:
        _log.warning("cache_layer_failed", layer=layer.name, what=what, error=str(error) or "it did not answer in time")
        return None
