"""
What of the cache is not true any more, or never was: kept in the store, for all masters and for as long as it matters.

Layers forget, and a word between masters may be lost; a value that was dropped here may still lie there. So whoever
finds one asks here whether it counts. Dropping it is only tidying up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from fleetest.common.errors import DependencyUnavailable
from fleetest.master.cache.layers import covers
from fleetest.master.store.ports import Documents

__all__ = ["Invalidation", "InvalidationBook", "Invalidations"]

_KIND: Final = "cache_invalidations"
_MOST: Final = 500
"""More than these become one for the whole project."""

_TRIES: Final = 50


class Invalidation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Results that were obtained before do not count.

    Args:
        scope: a key, or what is above many.
        for_good: nor do later ones: the key has been seen to stand for different results.
    """

    scope: str
    at: datetime
    for_good: bool = False


_DECODER: Final = msgspec.json.Decoder(tuple[Invalidation, ...])


class Invalidations:
    """Those of one project."""

    def __init__(self, known: Sequence[Invalidation]) -> None:
        self._known = known

    def allow(self, key: str, at: datetime) -> bool:
        """Whether a result that was obtained then may be used."""
        return not any(covers(each.scope, key) and (each.for_good or at <= each.at) for each in self._known)

    def ban(self, key: str) -> bool:
        """Whether nothing is kept under this key."""
        return any(each.for_good and covers(each.scope, key) for each in self._known)


class InvalidationBook:
    """
    Args:
        matter_for: after so long a result is not used anyway, and an invalidation is forgotten.
    """

    def __init__(self, documents: Documents, matter_for: timedelta) -> None:
        self._documents = documents
        self._matter_for = matter_for

    async def of(self, project: str) -> Invalidations:
        """
        Raises:
            DependencyUnavailable: the store cannot be read.
        """
        text = await self._documents.get_document(_KIND, project)
        return Invalidations(_DECODER.decode(text) if text is not None else ())

    async def add(self, project: str, new: Invalidation) -> None:
        """
        Remember it. One without `for_good` takes the place of all that it covers: whoever clears a scope starts afresh.

        Raises:
            DependencyUnavailable, CapacityExceeded: the store does not take it.
        """
        await self._change(project, new.at, lambda known: _with(known, new, project_scope=new.scope.partition("/")[0]))

    async def _change(
        self,
        project: str,
        now: datetime,
        change: Callable[[Sequence[Invalidation]], Sequence[Invalidation]],
    ) -> None:
        text = await self._documents.get_document(_KIND, project)
        for _ in range(_TRIES):
            known = _DECODER.decode(text) if text is not None else ()
            mattering = [each for each in known if now - each.at < self._matter_for]
            after = msgspec.json.encode(tuple(change(mattering))).decode()
            if text is None:
                text = await self._documents.put_if_absent(_KIND, project, after)
                if text == after:
                    return
            elif await self._documents.replace_document(_KIND, project, expected=text, value=after):
                return
            else:
                text = await self._documents.get_document(_KIND, project)
        raise DependencyUnavailable(f"what is invalid in the cache of {project} is being changed all the time")


def _with(known: Sequence[Invalidation], new: Invalidation, *, project_scope: str) -> Sequence[Invalidation]:
    if new.for_good:
        kept = [each for each in known if each.scope != new.scope or not each.for_good]
    else:
        kept = [each for each in known if not covers(new.scope, each.scope)]
    if len(kept) < _MOST:
        return [*kept, new]
    # What was banned may then be cached again, from results that are still to come.
    return [Invalidation(scope=project_scope, at=new.at)]
