"""Suites that were submitted lately, read."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cachetools import LRUCache

from fleetest.common.suite import Suite, load_suite

__all__ = ["Suites"]

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_KEPT_BYTES: Final = 8 << 20
_TASK_BYTES: Final = 2048
"""About what a task takes, read; its texts, and one text may make thousands of tasks, come on top."""


@dataclass(frozen=True, slots=True)
class _Known:
    suite: Suite
    size_bytes: int


class Suites:
    """
    Reads suites, beside the loop that serves everybody else. A project submits the same text again and again: what was
    read lately is at hand.
    """

    def __init__(self) -> None:
        self._known: LRUCache[Hashable, _Known] = LRUCache(_KEPT_BYTES, getsizeof=lambda known: known.size_bytes)

    async def read(
        self, text: str, *, source: str, environment: str = "", settings: Mapping[str, str] = _NOTHING
    ) -> Suite:
        """
        What `load_suite` says of these arguments.

        Raises:
            SuiteInvalid: with every problem of the suite.
        """
        key = source, text, environment, tuple(sorted(settings.items()))
        if (known := self._known.get(key)) is None:
            suite = await asyncio.to_thread(load_suite, text, source=source, environment=environment, settings=settings)
            known = _Known(suite, (len(text) + _TASK_BYTES) * len(suite.tasks))
            if known.size_bytes <= _KEPT_BYTES:
                self._known[key] = known
        return known.suite
