"""Wakes whoever follows a run on this master."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Hub"]


class Hub:
    """
    Tells followers of a run that there may be more to read. Carries no content: the store has it.

    Follow as in ::

        with hub.follow(run_id) as bell:
            while ...:
                bell.clear()
                ...  # read all there is
                await bell.wait()
    """

    def __init__(self) -> None:
        self._bells: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    def ring(self, run_id: str) -> None:
        """There is more of this run: a commit, or output."""
        for bell in self._bells.get(run_id, ()):
            bell.set()

    @contextmanager
    def follow(self, run_id: str) -> Iterator[asyncio.Event]:
        """A bell that rings for this run while the context is open."""
        bell = asyncio.Event()
        self._bells[run_id].add(bell)
        try:
            yield bell
        finally:
            self._bells[run_id].discard(bell)
            if not self._bells[run_id]:
                del self._bells[run_id]
