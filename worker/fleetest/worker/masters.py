"""The masters that a worker knows, and which of them it uses."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Masters"]


class Masters:
    """
    One master is in use at a time, for the session's stream and for blobs alike: whoever finds that it does not
    serve turns everybody to the next.

    Args:
        addresses: taken in turn, beginning with the first.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = tuple(addresses)
        self._turn = 0

    def __len__(self) -> int:
        return len(self._addresses)

    @property
    def address(self) -> str:
        """Of the one in use."""
        return self._addresses[self._turn]

    def leave(self, address: str) -> None:
        """That one does not serve: turn to the next, unless somebody has done so already."""
        if address == self.address:
            self._turn = (self._turn + 1) % len(self._addresses)
