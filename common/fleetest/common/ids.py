"""Ids of runs and other things."""

from __future__ import annotations

import re
import secrets
import time
from datetime import UTC, date, datetime
from typing import Final

__all__ = ["day_of_run", "new_run_id", "new_token"]

_UUID7: Final = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


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
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def day_of_run(run_id: str) -> date:
    """
    The UTC day on which the run was submitted.

    Raises:
        ValueError: `run_id` is not a UUIDv7.
    """
    id_ = _UUID7.fullmatch(run_id)
    if id_ is None:
        raise ValueError(f"not a run id: {run_id!r}")
    return datetime.fromtimestamp(int(id_[1] + id_[2], 16) / 1000, tz=UTC).date()


def new_token() -> str:
    """A random token for a client, a worker or an idempotency key: 256 bits, URL-safe."""
    return secrets.token_urlsafe(32)
