"""
Puts the collector of garbage off while pytest and the tests are imported and collected.

Nearly all that is made then lives as long as the session, and looking through it again and again takes a sixth of a
collection. Whatever a test sees is as ever: before the first one, the collector's own pace is back, and what has been
made counts as old, as it would have become.
"""

from __future__ import annotations

import gc
from typing import Tuple

__all__ = ["PutOff"]

_YOUNG_OBJECTS = 100_000


class PutOff:
    """From now on, until `end`. What the tests' own code says to the collector meanwhile stands."""

    def __init__(self) -> None:
        self._before: Tuple[int, ...] = gc.get_threshold()
        self._meanwhile = _YOUNG_OBJECTS, *self._before[1:]
        if 0 < self._before[0] < _YOUNG_OBJECTS:
            gc.set_threshold(*self._meanwhile)

    def end(self) -> None:
        """Idempotent."""
        if gc.get_threshold() != self._meanwhile:
            return
        gc.set_threshold(*self._before)
        if not gc.get_freeze_count():
            # Among the old ones without being looked through: two methods that exchange lists.
            gc.freeze()
            gc.unfreeze()
