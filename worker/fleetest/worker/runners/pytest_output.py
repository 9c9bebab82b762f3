"""What a pytest session writes, on its way to the attempts that it is of."""

from __future__ import annotations

from typing import Final

from fleetest.worker.runners.pytest_attempt import Attempt

__all__ = ["SessionOutput"]

_EARLY_PIECES: Final = 64


class SessionOutput:
    """Neighbouring pieces of an attempt are one when they are passed on: quick cases write thousands of a few bytes."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._owner: Attempt | None = None

    def write(self, content: bytes, owner: Attempt | None) -> None:
        """What comes before there is an attempt is the first one's; so much is kept for it."""
        if owner is not self._owner:
            self.pass_on()
            self._owner = owner
        if owner is not None or len(self._pieces) < _EARLY_PIECES:
            self._pieces.append(content)

    def pass_on(self, first: Attempt | None = None) -> None:
        """To its attempt; what has none is for `first`."""
        owner = self._owner or first
        if owner is not None and self._pieces:
            owner.reporter.output(b"".join(self._pieces))
            self._pieces.clear()
