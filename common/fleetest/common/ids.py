"""Ids of runs and other things."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, date, datetime
from uuid import UUID

__all__ = ["day_of_run", "new_run_id", "new_token"]


def new_run_id(at: datetime | None = None) -> str:
    """
    A fresh run id: a UUIDv7 (RFC 9562 §5.7), so that ids sort by time of submission and carry their day.

    Args:
        at: aware; now, by this machine's clock, unless given.
    """
    milliseconds = time.time_ns() // 1_000_000 if at is None else int(at.timestamp() * 1000)
    value = (milliseconds & (1 << 48) - 1) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(UUID(int=value))


def day_of_run(run_id: str) -> date:
    """
    The UTC day on which the run was submitted.

    Raises:
        ValueError: `run_id` is not a UUIDv7.
    """
    uuid = UUID(run_id)
    if uuid.version != 7:  # noqa: PLR2004 - the version that RFC 9562 gives to time-ordered ids
        raise ValueError(f"not a run id: {run_id!r}")
    return datetime.fromtimestamp((uuid.int >> 80) / 1000, tz=UTC).date()


def new_token() -> str:
    """A random token for a client, a worker or an idempotency key: 256 bits, URL-safe."""
    return secrets.token_urlsafe(32)
