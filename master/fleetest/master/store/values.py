"""How values lie in either engine: times as whole microseconds since 1970, documents as JSON text."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

__all__ = ["from_json", "from_microseconds", "to_json", "to_microseconds"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(dict[str, object])


def to_microseconds(at: datetime) -> int:
    """Exact, and refuses a naive time."""
    return (at - _EPOCH) // _MICROSECOND


def from_microseconds(value: int) -> datetime:
    """What `to_microseconds` was given, in UTC."""
    return _EPOCH + timedelta(microseconds=value)


def to_json(body: Mapping[str, object]) -> str:
    """One line of JSON."""
    return _encoder.encode(body).decode()


def from_json(text: str) -> Mapping[str, object]:
    """What `to_json` was given."""
    return _decoder.decode(text)
