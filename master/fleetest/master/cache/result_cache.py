"""The results of earlier runs, for whoever plans a run, and for whoever doubts them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta

import structlog

from fleetest.common.clock import Clock
from fleetest.common.errors import FleetestError
from fleetest.master.cache.entries import CachedCase, Cases, decode_entry, encode_entry, scope_of
from fleetest.master.cache.invalidations import Invalidation, InvalidationBook, Invalidations
from fleetest.master.cache.layers import CacheLayer
from fleetest.master.store.ports import Documents

__all__ = ["ResultCache"]

_log = structlog.get_logger()


class ResultCache:
    """
    Answers only what is whole, young enough, and not invalid. Whatever goes wrong is no hit, never a wrong one.

    Args:
        layer: where entries are kept; may answer garbage.
        usable_for: how long after it was obtained a result is used at most.
    """

    def __init__(self, layer: CacheLayer, documents: Documents, clock: Clock, *, usable_for: timedelta) -> None:
        self._layer = layer
        self._book = InvalidationBook(documents, matter_for=usable_for)
        self._clock = clock
        self._usable_for = usable_for
        self._listeners: list[Callable[[str], None]] = []

    def on_invalidated(self, callback: Callable[[str], None]) -> None:
        """`callback` is called with each scope that was invalidated here."""
        self._listeners.append(callback)

    async def look_up(self, project: str, keys: Iterable[str]) -> Mapping[str, Cases]:
        """The usable cases of those entries that there are, by key."""
        wanted = list(dict.fromkeys(keys))
        try:
            invalid = await self._book.of(project)
        except FleetestError as error:
            _log.warning("cache_not_used", project=project, error=str(error))
            return {}
        values = await self._layer.get(wanted) if wanted else {}
        found = {}
        for key, value in values.items():
            try:
                cases = decode_entry(key, value)
            except ValueError as error:  # msgspec's errors are some, too
                _log.warning("cache_entry_broken", key=key, error=str(error))
                await self._layer.drop(key)
                continue
            if usable := self._usable(key, cases, invalid):
                found[key] = usable
        return found

    async def keep(self, project: str, passed: Mapping[str, Cases], failed: Mapping[str, Iterable[str]]) -> None:
        """
        Remember cases that passed, by key, beside those that are known. A key of which a case failed that is known to
        have passed is banned.

        Raises:
            DependencyUnavailable, CapacityExceeded: the store does not take the ban.
        """
        known: defaultdict[str, dict[str, CachedCase]] = defaultdict(dict)
        for key, cases in (await self.look_up(project, [*passed, *failed])).items():
            known[key] |= cases
        for key, case_ids in failed.items():
            if any(case_id in known[key] or case_id in passed.get(key, ()) for case_id in case_ids):
                await self.ban(project, key)
        invalid = await self._book.of(project)
        fresh = {key: {**known[key], **cases} for key, cases in passed.items() if not invalid.ban(key)}
        values = {key: encode_entry(key, usable) for key in fresh if (usable := self._usable(key, fresh[key], invalid))}
        if values:
            await self._layer.put(values)

    async def ban(self, project: str, key: str) -> None:
        """
        The key stands for different results: nothing that is kept under it is used, now or later. Idempotent.

        Raises:
            DependencyUnavailable, CapacityExceeded: the store does not take it.
        """
        _log.warning("cache_key_banned", project=project, key=key)
        await self._invalidate(project, Invalidation(scope=key, at=self._clock.now(), for_good=True))

    async def invalidate(self, project: str, *, task: str = "", file: str = "") -> None:
        """
        Results that were obtained until now do not count any more: of a project, a task, or a file of a task. Bans in
        there are lifted. Idempotent.

        Raises:
            DependencyUnavailable, CapacityExceeded: the store does not take it.
        """
        _log.info("cache_invalidated", project=project, task=task, file=file)
        await self._invalidate(project, Invalidation(scope=scope_of(project, task, file), at=self._clock.now()))

    async def _invalidate(self, project: str, invalidation: Invalidation) -> None:
        """First what counts, then what is only tidy."""
        await self._book.add(project, invalidation)
        await self._layer.drop(invalidation.scope)
        for callback in self._listeners:
            callback(invalidation.scope)

    def _usable(self, key: str, cases: Cases, invalid: Invalidations) -> dict[str, CachedCase]:
        oldest = self._clock.now() - self._usable_for
        return {case_id: case for case_id, case in cases.items() if case.at > oldest and invalid.allow(key, case.at)}
