"""What the master asks of an object store: whole objects by key."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Protocol

__all__ = ["Objects"]


class Objects(Protocol):
    """
    Objects by key. One is there whole, or not at all.

    Every method tries again, with back-off, what may succeed then, and raises DependencyUnavailable when the store does
    not answer, or refuses the master's credentials. No message holds a credential.
    """

    async def check(self) -> None:
        """That the store answers, and lets itself be listed."""

    async def exists(self, key: str) -> bool: ...

    async def put(self, key: str, content: bytes) -> None:
        """
        Raises:
            CapacityExceeded: the store is full.
        """

    async def put_file(self, key: str, path: Path) -> None:
        """
        As `put`; in parts when it is large, of which only a few are in memory at a time.

        Raises:
            CapacityExceeded: the store is full.
        """

    def read(self, key: str) -> AsyncGenerator[bytes, None]:
        """
        The content in pieces of any size.

        Raises:
            NotFound: there is no such object.
        """

    async def delete(self, keys: Sequence[str]) -> None:
        """Idempotent. When it fails, some may be gone."""

    async def sign(self, key: str, expires_in: timedelta) -> str:
        """
        A URL by which anybody can read the object for so long.

        Raises:
            WrongState: the master's credentials cannot sign.
        """
