"""What was learnt lately of something that only grows."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

__all__ = ["Recent"]

_Key = TypeVar("_Key", bound=Hashable)

_REMEMBERED: Final = 10_000


class Recent(Generic[_Key]):
    """The last number that was seen for each of so many keys; the longest unused is forgotten first."""

    def __init__(self) -> None:
        self._last: dict[_Key, int] = {}

    def get(self, key: _Key) -> int | None:
        return self._last.get(key)

    def saw(self, key: _Key, number: int) -> None:
        """It is this far, at least."""
        self._last[key] = max(number, self._last.pop(key, number))  # popped, so that the newest come last
        if len(self._last) > _REMEMBERED:
            del self._last[next(iter(self._last))]
