"""
Specs of tasks that a worker's stream has carried: what is sent once, and named from then on.

The two ends keep the newest alike, so that neither grows with the runs that a worker has had to do with; one that was
forgotten is sent again.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final

__all__ = ["KEPT_SPECS", "forget_oldest"]

KEPT_SPECS: Final = 256


def forget_oldest(specs: MutableMapping[str, Any]) -> None:
    """To be called by both ends after each message that carries specs; they are in the order in which they came."""
    while len(specs) > KEPT_SPECS:
        del specs[next(iter(specs))]
